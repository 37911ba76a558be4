//! Commands behind guards. The guards run as the command does: as its user, with its environment and its time limit.
//! They only look, so they run in a dry run too.

use std::{fmt, time::Duration};

use drover_catalog::{CommandSpec, PropertyEvent};

use super::{Provider, ProviderError, event};
use crate::{
    account_files::users,
    host::{Command, CommandOutput, Host, HostError},
};

/// Whether a command's work is due.
pub(crate) struct Observed {
    due: bool,
}

/// A command that must run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    program: String,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments can hold secrets.
        write!(f, "ran {}", self.program)
    }
}

impl super::Change for Run {
    fn event(&self) -> PropertyEvent {
        event("ran")
    }
}

impl Provider for CommandSpec {
    type Observed = Observed;
    type Change = Run;

    async fn observe(&self, host: &impl Host, notified: bool) -> Result<Observed, ProviderError> {
        let called = notified || !self.refresh_only;
        Ok(Observed { due: called && guards_allow(self, host).await? })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Run>, ProviderError> {
        if !observed.due {
            return Ok(Vec::new());
        }
        let program = self.argv.first().cloned().unwrap_or_default();
        if program.is_empty() {
            return Err(ProviderError::Refused("it names no program; put one first in argv".to_owned()));
        }
        Ok(vec![Run { program }])
    }

    async fn apply(&self, host: &impl Host, changes: &[Run]) -> Result<(), ProviderError> {
        for Run { program } in changes {
            let command = command(self, host, &self.argv)?;
            let tries = self.tries.max(1);
            let mut tried = 1;
            while let Err(error) = run_once(self, host, program, &command, tried).await {
                // What cannot start now cannot start in a moment either.
                let may_pass =
                    matches!(error, ProviderError::Command { .. } | ProviderError::Host(HostError::Timeout { .. }));
                if tried == tries || !may_pass {
                    return Err(error);
                }
                tried += 1;
                if self.try_sleep_seconds > 0 {
                    tokio::time::sleep(Duration::from_secs(u64::from(self.try_sleep_seconds))).await;
                }
            }
        }
        Ok(())
    }
}

async fn run_once(
    spec: &CommandSpec,
    host: &impl Host,
    program: &str,
    command: &Command,
    tried: u32,
) -> Result<(), ProviderError> {
    let output = host.run(command).await?;
    if is_success(spec, &output) {
        return Ok(());
    }
    let mut failure = output.failure();
    if tried > 1 {
        failure = format!("failed {tried} times; at last it {failure}");
    }
    Err(ProviderError::Command { program: program.to_owned(), failure })
}

fn is_success(spec: &CommandSpec, output: &CommandOutput) -> bool {
    if spec.exit_codes.is_empty() {
        return output.success();
    }
    output.code.is_some_and(|code| spec.exit_codes.contains(&code))
}

/// The cheapest guard first.
async fn guards_allow(spec: &CommandSpec, host: &impl Host) -> Result<bool, ProviderError> {
    if let Some(path) = &spec.creates
        && host.entry(path)?.is_some()
    {
        return Ok(false);
    }
    if let Some(argv) = &spec.unless
        && ask(spec, host, "unless", argv).await?
    {
        return Ok(false);
    }
    match &spec.only_if {
        Some(argv) => ask(spec, host, "onlyIf", argv).await,
        None => Ok(true),
    }
}

/// What a guard says. One that cannot run says nothing, which is not no.
async fn ask(
    spec: &CommandSpec,
    host: &impl Host,
    guard: &'static str,
    argv: &[String],
) -> Result<bool, ProviderError> {
    match host.run(&command(spec, host, argv)?).await {
        Ok(output) => Ok(output.success()),
        Err(error @ (HostError::NoProgram { .. } | HostError::Spawn { .. } | HostError::Timeout { .. })) => {
            Err(ProviderError::Refused(format!("its guard {guard} gave no answer: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}

fn command(spec: &CommandSpec, host: &impl Host, argv: &[String]) -> Result<Command, ProviderError> {
    let timeout = Duration::from_secs(u64::from(spec.timeout_seconds));
    let user = spec.user.as_deref().map(|name| ids(host, name)).transpose()?;
    Ok(Command {
        environment: spec.environment.clone(),
        cwd: spec.cwd.clone(),
        user,
        umask: spec.umask,
        ..Command::of(argv.to_vec(), timeout)
    })
}

/// The numbers of a user, by name or number, and of its primary group.
fn ids(host: &impl Host, name: &str) -> Result<(u32, u32), ProviderError> {
    let passwd = host.read_file("/etc/passwd")?.unwrap_or_default();
    let number = name.parse::<u32>().ok();
    let passwd = String::from_utf8_lossy(&passwd);
    let found = users(&passwd).find(|user| user.name == name || Some(user.uid) == number);
    // A number without an account has no group, and root's would be the wrong one.
    let user = found.ok_or_else(|| HostError::NoAccount { kind: "user", name: name.to_owned() })?;
    Ok((user.uid, user.gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        Access,
        memory::{MemoryHost, apply, check, check_notified},
    };

    fn spec() -> CommandSpec {
        CommandSpec {
            argv: vec!["mkfs".into(), "--key=hunter2".into()],
            environment: [("TOKEN".to_owned(), drover_catalog::Sensitive::new("hunter2"))].into(),
            timeout_seconds: 9,
            ..CommandSpec::default()
        }
    }

    #[test]
    fn runs_when_no_guard_says_that_its_work_is_done() {
        let root = Access { mode: 0o644, user: 0, group: 0 };
        check(&spec(), &MemoryHost::new(), "ran mkfs");
        let creates = CommandSpec { creates: Some("/disk".into()), ..spec() };
        check(&creates, &MemoryHost::new(), "ran mkfs");
        check(&creates, &MemoryHost::new().file("/disk", "", root), "");
        let unless = CommandSpec { unless: Some(vec!["blkid".into()]), ..spec() };
        check(&unless, &MemoryHost::new().command("blkid", 2, "", ""), "ran mkfs");
        check(&unless, &MemoryHost::new().command("blkid", 0, "", ""), "");
        let only_if = CommandSpec { only_if: Some(vec!["blkid".into()]), ..spec() };
        check(&only_if, &MemoryHost::new().command("blkid", 2, "", ""), "");
        check(&only_if, &MemoryHost::new().command("blkid", 0, "", ""), "ran mkfs");
    }

    #[test]
    fn a_refresh_only_command_waits_for_a_notification_and_heeds_its_guards() {
        let refresh_only = CommandSpec { refresh_only: true, unless: Some(vec!["blkid".into()]), ..spec() };
        let undone = MemoryHost::new().command("blkid", 2, "", "");
        check(&refresh_only, &undone, "");
        assert_eq!(undone.log(), "", "no guard of it runs for nothing");
        check_notified(&refresh_only, &undone, "ran mkfs");
        check_notified(&refresh_only, &MemoryHost::new().command("blkid", 0, "", ""), "");
    }

    #[test]
    fn a_failure_shows_the_exit_code_and_standard_error_but_no_secret() {
        let host = MemoryHost::new().command("mkfs", 3, "", "no space left");
        assert_eq!(apply(&spec(), &host).unwrap_err().to_string(), "mkfs exited with 3: no space left");
    }

    #[test]
    fn only_the_named_exit_codes_are_success() {
        let outcome = |exit_codes: &[i32], code| {
            let host = MemoryHost::new().command("mkfs", code, "", "");
            apply(&CommandSpec { exit_codes: exit_codes.to_vec(), ..spec() }, &host).is_ok()
        };
        for (exit_codes, code, success) in [
            (&[][..], 0, true),
            (&[], 1, false),
            (&[0, 3], 3, true),
            (&[0, 3], 0, true),
            (&[3], 0, false),
            (&[0, 3], 4, false),
        ] {
            assert_eq!(outcome(exit_codes, code), success, "{code} of {exit_codes:?}");
        }
    }

    #[test]
    fn it_is_tried_as_often_as_it_may_be_and_not_once_more() {
        let failing =
            |first: usize| (0..first).fold(MemoryHost::new(), |host, _| host.command_first("mkfs", 3, "busy"));
        let thrice = CommandSpec { tries: 3, ..spec() };
        let host = failing(2);
        apply(&thrice, &host).unwrap();
        assert_eq!(host.ran().len(), 3);
        let host = failing(3);
        let error = apply(&thrice, &host).unwrap_err().to_string();
        assert_eq!(error, "mkfs failed 3 times; at last it exited with 3: busy");
        assert_eq!(host.ran().len(), 3);
        let host = failing(1);
        assert!(apply(&CommandSpec { tries: 0, ..spec() }, &host).is_err());
        let host = MemoryHost::new().without_program("mkfs");
        let error = apply(&thrice, &host).unwrap_err().to_string();
        assert!(error.starts_with("there is no program mkfs"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_between_two_tries() {
        let host = MemoryHost::new().command_first("mkfs", 3, "busy").command_first("mkfs", 3, "busy");
        let thrice = CommandSpec { tries: 3, try_sleep_seconds: 20, ..spec() };
        let began = tokio::time::Instant::now();
        thrice.apply(&host, &[Run { program: "mkfs".into() }]).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(40));
    }

    #[test]
    fn it_and_its_guards_run_as_the_same_user() {
        let root = Access { mode: 0o644, user: 0, group: 0 };
        let host = || MemoryHost::new().file("/etc/passwd", "anna:x:1000:100::/home/anna:/bin/sh\n", root);
        let only_if = Some(vec!["test".to_owned(), "-e".to_owned()]);
        for user in ["anna", "1000"] {
            let as_anna =
                CommandSpec { user: Some(user.into()), umask: Some(0o077), only_if: only_if.clone(), ..spec() };
            let host = host();
            check(&as_anna, &host, "ran mkfs");
            apply(&as_anna, &host).unwrap();
            let guard = "test -e as 1000:100 umask 077";
            assert_eq!(host.ran(), [guard, guard, "mkfs --key=hunter2 as 1000:100 umask 077"]);
        }
        let unknown = CommandSpec { user: Some("4242".into()), unless: Some(vec!["true".into()]), ..spec() };
        let refusal = "the machine has no user 4242; add it first (a package or a command that this resource requires)";
        check(&unknown, &host(), &format!("refused: {refusal}"));
    }

    #[test]
    fn a_guard_that_cannot_run_is_an_error_and_no_answer() {
        for (guard, spec) in [
            ("unless", CommandSpec { unless: Some(vec!["blkid".into()]), ..spec() }),
            ("onlyIf", CommandSpec { only_if: Some(vec!["blkid".into()]), ..spec() }),
        ] {
            let advice = "install the package that has it, and require that package";
            let why = format!("there is no program blkid on the machine; {advice}");
            let host = MemoryHost::new().without_program("blkid");
            check(&spec, &host, &format!("refused: its guard {guard} gave no answer: {why}"));
        }
    }

    #[test]
    fn refuses_a_command_without_a_program() {
        let empty = CommandSpec { argv: vec![], ..spec() };
        check(&empty, &MemoryHost::new(), "refused: it names no program; put one first in argv");
    }
}
