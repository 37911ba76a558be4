//! Commands behind guards.

use std::{fmt, time::Duration};

use drover_catalog::{CommandSpec, PropertyEvent};

use super::{Provider, ProviderError, event};
use crate::host::{Command, Host};

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
        Ok(Observed { due: called && self.guards_allow(host).await? })
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
            let output = host.run(&self.command(&self.argv)).await?;
            if !output.success() {
                return Err(ProviderError::Command { program: program.clone(), failure: output.failure() });
            }
        }
        Ok(())
    }
}

trait Guarded {
    async fn guards_allow(&self, host: &impl Host) -> Result<bool, ProviderError>;
    fn command(&self, argv: &[String]) -> Command;
}

impl Guarded for CommandSpec {
    /// The cheapest guard first.
    async fn guards_allow(&self, host: &impl Host) -> Result<bool, ProviderError> {
        if let Some(path) = &self.creates
            && host.entry(path)?.is_some()
        {
            return Ok(false);
        }
        if let Some(argv) = &self.unless
            && host.run(&self.command(argv)).await?.success()
        {
            return Ok(false);
        }
        match &self.only_if {
            Some(argv) => Ok(host.run(&self.command(argv)).await?.success()),
            None => Ok(true),
        }
    }

    fn command(&self, argv: &[String]) -> Command {
        let timeout = Duration::from_secs(u64::from(self.timeout_seconds));
        Command { environment: self.environment.clone(), cwd: self.cwd.clone(), ..Command::of(argv.to_vec(), timeout) }
    }
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
    fn refuses_a_command_without_a_program() {
        let empty = CommandSpec { argv: vec![], ..spec() };
        check(&empty, &MemoryHost::new(), "refused: it names no program; put one first in argv");
    }
}
