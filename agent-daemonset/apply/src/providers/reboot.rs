//! Reboots that are asked for. Nothing reboots here: the reason is noted and reported, and a Rollout decides.

use std::fmt;

use drover_catalog::{PropertyEvent, RebootSpec};

use super::{Provider, ProviderError, event_of};
use crate::host::Host;

/// Where Debian and its kin note that an upgrade wants a reboot, see update-notifier-common and needrestart.
const SYSTEM_ASKS: [&str; 2] = ["/run/reboot-required", "/var/run/reboot-required"];

/// What speaks for a reboot.
pub(crate) struct Observed {
    asked: bool,
    known: bool,
}

/// A reboot that is asked for, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    reason: String,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asks for a reboot: {}", self.reason)
    }
}

impl super::Change for Ask {
    fn event(&self) -> PropertyEvent {
        event_of("reboot", None, Some(self.reason.clone()))
    }
}

impl Provider for RebootSpec {
    type Observed = Observed;
    type Change = Ask;

    async fn observe(&self, host: &impl Host, notified: bool) -> Result<Observed, ProviderError> {
        let mut asked = notified;
        if self.when_system_asks {
            for path in SYSTEM_ASKS {
                asked = asked || host.entry(path)?.is_some();
            }
        }
        // A note lasts until the machine has rebooted.
        Ok(Observed { asked, known: asked && host.reboot_reasons()?.contains(&reason(self)) })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Ask>, ProviderError> {
        let due = observed.asked && !observed.known;
        Ok(due.then(|| Ask { reason: reason(self) }).into_iter().collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Ask]) -> Result<(), ProviderError> {
        for Ask { reason } in changes {
            host.require_reboot(reason)?;
        }
        Ok(())
    }
}

/// In one line, as it is noted.
fn reason(spec: &RebootSpec) -> String {
    match spec.reason.trim() {
        "" => "its NodeConfig gives no reason".to_owned(),
        reason => reason.replace('\n', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        Access,
        memory::{MemoryHost, apply, check, check_notified},
    };

    const ASKS: &str = "asks for a reboot: new kernel";

    fn spec(when_system_asks: bool) -> RebootSpec {
        RebootSpec { reason: "new\nkernel\n".into(), when_system_asks }
    }

    #[test]
    fn it_is_asked_for_when_somebody_asks_and_once_a_boot() {
        check(&spec(false), &MemoryHost::new(), "");
        check_notified(&spec(false), &MemoryHost::new(), ASKS);
        check(&spec(true), &MemoryHost::new(), "");
        for path in SYSTEM_ASKS {
            let host = MemoryHost::new().file(path, "", Access { mode: 0o644, user: 0, group: 0 });
            check(&spec(false), &host, "");
            check(&spec(true), &host, ASKS);
            apply(&spec(true), &host).unwrap();
            assert_eq!(host.reboot_reasons().unwrap(), ["new kernel"]);
            check(&spec(true), &host, "");
            check_notified(&spec(true), &host, "");
        }
    }

    #[test]
    fn without_a_reason_it_says_so() {
        let silent = RebootSpec { reason: " \n".into(), when_system_asks: false };
        check_notified(&silent, &MemoryHost::new(), "asks for a reboot: its NodeConfig gives no reason");
    }
}
