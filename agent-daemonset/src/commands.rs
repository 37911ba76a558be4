//! Commands that a Rollout wants to be run once, after the machine is what its catalog says.

use std::time::Duration;

use drover_apply::{Host, host::Command};
use drover_catalog::{Catalog, CommandResult, HostCommand};

/// How much of what a command printed is told, in bytes.
const TOLD: usize = 256;

/// Runs the catalog's commands that were not run yet, one after the other; returns the results of all of them.
pub(crate) async fn run(host: &impl Host, catalog: &Catalog, known: &[CommandResult]) -> Vec<CommandResult> {
    let mut results = vec![];
    for command in &catalog.commands {
        results.push(match known.iter().find(|result| result.token == command.token) {
            Some(result) => result.clone(),
            None => run_one(host, command).await,
        });
    }
    results
}

async fn run_one(host: &impl Host, command: &HostCommand) -> CommandResult {
    let timeout = Duration::from_secs(u64::from(command.timeout_seconds));
    let (code, message) = match host.run(&Command::of(command.argv.clone(), timeout)).await {
        Ok(output) => {
            let printed = if output.stderr.trim_ascii().is_empty() { &output.stdout } else { &output.stderr };
            (output.code, last_of(printed))
        }
        Err(error) => (None, last_of(error.to_string().as_bytes())),
    };
    tracing::info!(program = command.argv.first(), code, "ran a command of a Rollout");
    CommandResult { token: command.token.clone(), code, message }
}

/// The end of a text, in whole characters.
fn last_of(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    let from = (text.len().saturating_sub(TOLD)..=text.len()).find(|index| text.is_char_boundary(*index));
    text[from.unwrap_or(text.len())..].to_owned()
}

#[cfg(test)]
mod tests {
    use drover_apply::LocalHost;
    use drover_catalog::{Digest, HostIdentity};

    use super::*;

    #[tokio::test]
    async fn each_command_is_run_once_and_its_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("ran");
        let wish = |token: &str, script: String, timeout_seconds| HostCommand {
            token: token.into(),
            argv: vec!["/bin/sh".into(), "-c".into(), script],
            timeout_seconds,
        };
        let mut catalog = Catalog {
            host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
            generation: 1,
            revisions: vec![],
            interval_seconds: 60,
            resources: vec![],
            reboot: None,
            commands: vec![
                wish("a", format!("echo x >> {}; echo out", ran.display()), 10),
                wish("b", "echo out; echo wrong >&2; exit 3".into(), 10),
                wish("c", "sleep 60".into(), 1),
                wish("d", "yes é | head -c 1001".into(), 10),
            ],
            digest: Digest::of(b""),
        };
        catalog.commands.push(HostCommand {
            token: "e".into(),
            argv: vec!["no-such-program".into()],
            timeout_seconds: 1,
        });
        let host = LocalHost::open(std::path::Path::new("/"), true).unwrap();
        let results = run(&host, &catalog, &[]).await;
        let told: Vec<_> = results.iter().map(|result| (result.token.as_str(), result.code)).collect();
        assert_eq!(told, [("a", Some(0)), ("b", Some(3)), ("c", None), ("d", Some(0)), ("e", None)]);
        assert_eq!((results[0].message.as_str(), results[1].message.as_str()), ("out", "wrong"));
        assert!(results[3].message.len() <= TOLD && results[3].message.len() > 200);
        assert!(results[4].message.contains("no-such-program"), "{results:?}");
        catalog.commands.truncate(1);
        assert_eq!(run(&host, &catalog, &results).await, results[..1]);
        assert_eq!(std::fs::read_to_string(ran).unwrap(), "x\n", "it was run once");
    }
}
