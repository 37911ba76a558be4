//! Kernel parameters: the value in the running kernel, and the one after a reboot, which are two things that drift.

use std::fmt;

use drover_catalog::{PropertyEvent, SysctlSpec};

use super::{Provider, ProviderError, event_of};
use crate::host::{Access, Host, HostError};

const ACCESS: Access = Access { mode: 0o644, user: 0, group: 0 };

/// A kernel parameter as it is.
pub(crate) struct Observed {
    live: Live,
    at_boot: AtBoot,
}

/// The value in the running kernel.
enum Live {
    Value(String),
    /// The kernel has no such parameter.
    Unknown,
    /// No kernel of its own runs: the file alone makes it so, at the first boot.
    NotRunning,
}

/// The file that sets the value at boot.
enum AtBoot {
    /// As it must be.
    Same,
    /// It has this value, where it has one.
    Other(Option<String>),
}

/// What must change about a kernel parameter, with the values where they may be shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Write the file that sets it at boot.
    AtBoot(Values),
    /// Remove that file.
    NotAtBoot(Values),
    /// Set it in the running kernel.
    Live(Values),
}

/// The value before and after; both are withheld where the parameter is a key (`net.ipv4.tcp_fastopen_key`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Values {
    previous: Option<String>,
    desired: Option<String>,
}

impl Values {
    fn of(key: &str, previous: Option<&str>, desired: Option<&str>) -> Self {
        let shown = |value: Option<&str>| value.filter(|_| !key.contains("key")).map(normal);
        Self { previous: shown(previous), desired: shown(desired) }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtBoot(_) => "value at boot set",
            Self::NotAtBoot(_) => "value at boot removed",
            Self::Live(_) => "live value set",
        })
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        let (property, Values { previous, desired }) = match self {
            Self::AtBoot(values) | Self::NotAtBoot(values) => ("atBoot", values),
            Self::Live(values) => ("live", values),
        };
        event_of(property, previous.clone(), desired.clone())
    }
}

impl Provider for SysctlSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let path = kernel_path(&self.key)?;
        let live = match host.kernel_parameter(&path) {
            Ok(Some(value)) => Live::Value(value),
            Ok(None) => Live::Unknown,
            Err(HostError::Unavailable(_)) => Live::NotRunning,
            Err(error) => return Err(error.into()),
        };
        let found = host.read_file(&boot_file(&self.key))?;
        let wanted = self.at_boot.then(|| boot_content(self).into_bytes());
        let at_boot = match found {
            same if same == wanted => AtBoot::Same,
            other => AtBoot::Other(other.and_then(|content| value_in(&String::from_utf8_lossy(&content)))),
        };
        Ok(Observed { live, at_boot })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let key = &self.key;
        let values = |previous: Option<&str>| Values::of(key, previous, Some(&self.value));
        let live = match &observed.live {
            Live::Value(value) if normal(value) == normal(&self.value) => None,
            Live::Value(value) => Some(Change::Live(values(Some(value)))),
            Live::NotRunning => None,
            Live::Unknown => {
                let refusal = format!("the kernel has no parameter {key}; load the module that it belongs to first");
                return Err(ProviderError::Refused(refusal));
            }
        };
        let at_boot = match &observed.at_boot {
            AtBoot::Same => None,
            AtBoot::Other(found) if self.at_boot => Some(Change::AtBoot(values(found.as_deref()))),
            AtBoot::Other(found) => Some(Change::NotAtBoot(Values::of(key, found.as_deref(), None))),
        };
        // The kernel first: it refuses a wrong value, which then is not kept for the next boot either.
        Ok(live.into_iter().chain(at_boot).collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match change {
                Change::Live(_) => host.set_kernel_parameter(&kernel_path(&self.key)?, &self.value)?,
                Change::NotAtBoot(_) => host.remove_file(&boot_file(&self.key))?,
                Change::AtBoot(_) => {
                    host.write_file(&boot_file(&self.key), boot_content(self).as_bytes(), ACCESS, None).await?;
                }
            }
        }
        Ok(())
    }
}

/// The path below `/proc/sys`. As in sysctl.d(5), whichever of dot and slash comes first separates, and the other
/// stands for it within a name.
fn kernel_path(key: &str) -> Result<String, ProviderError> {
    let path = match key.find(['.', '/']).and_then(|first| key.get(first..=first)) {
        Some(".") => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_owned(),
    };
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_whitespace);
    if path.split('/').all(is_name) {
        Ok(path)
    } else {
        Err(ProviderError::Refused(format!("{key:?} is no kernel parameter; write it such as net.ipv4.ip_forward")))
    }
}

fn boot_file(key: &str) -> String {
    format!("/etc/sysctl.d/60-drover-{}.conf", key.replace('/', ":"))
}

fn boot_content(spec: &SysctlSpec) -> String {
    format!("# Written by Drover; changes here are undone.\n{} = {}\n", spec.key, normal(&spec.value))
}

/// The value that our file sets, by sysctl.d(5).
fn value_in(content: &str) -> Option<String> {
    let line = content.lines().rfind(|line| !line.trim_start().starts_with(['#', ';']))?;
    line.split_once('=').map(|(_, value)| normal(value))
}

/// A value with single spaces: the kernel shows tabs where people write spaces.
fn normal(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::{MemoryHost, apply, check};

    fn ports(value: &str) -> SysctlSpec {
        SysctlSpec { key: "net.ipv4.ip_local_port_range".into(), value: value.into(), at_boot: true }
    }

    const FILE: &str = "/etc/sysctl.d/60-drover-net.ipv4.ip_local_port_range.conf";
    const PATH: &str = "net/ipv4/ip_local_port_range";

    #[test]
    fn the_live_value_and_the_one_at_boot_are_two_things() {
        let kept = boot_content(&ports("1024 65000"));
        let fresh = || MemoryHost::new().kernel_parameter(PATH, "32768\t60999\n");
        check(&ports("1024 65000"), &fresh(), "live value set; value at boot set");
        check(&ports("1024 65000"), &fresh().file(FILE, &kept, ACCESS), "live value set");
        let live = || MemoryHost::new().kernel_parameter(PATH, "1024\t65000\n");
        check(&ports("1024 65000"), &live(), "value at boot set");
        check(&ports(" 1024   65000 "), &live().file(FILE, &kept, ACCESS), "");
    }

    #[test]
    fn without_a_kernel_the_file_is_enough() {
        let image = MemoryHost::new().without_kernel();
        check(&ports("1024 65000"), &image, "value at boot set");
        apply(&ports("1024 65000"), &image).unwrap();
        check(&ports("1024 65000"), &image, "");
    }

    #[test]
    fn a_value_that_is_no_longer_for_the_boot_is_taken_away() {
        let now = SysctlSpec { at_boot: false, ..ports("1024 65000") };
        let live = || MemoryHost::new().kernel_parameter(PATH, "1024\t65000\n");
        check(&now, &live(), "");
        let kept = live().file(FILE, &boot_content(&ports("1024 65000")), ACCESS);
        check(&now, &kept, "value at boot removed");
        apply(&now, &kept).unwrap();
        assert_eq!(kept.log(), format!("remove {FILE}"));
    }

    #[test]
    fn events_have_the_values_unless_the_parameter_is_a_key() {
        let events = |key: &str, host: &MemoryHost| {
            let spec = SysctlSpec { key: key.into(), value: "3  4".into(), at_boot: true };
            let observed = futures::executor::block_on(spec.observe(host, false)).unwrap();
            let told = |change: &Change| {
                let PropertyEvent { property, previous, desired } = super::super::Change::event(change);
                format!("{property} {} {}", previous.unwrap_or_default(), desired.unwrap_or_default())
            };
            spec.diff(&observed).unwrap().iter().map(told).collect::<Vec<_>>()
        };
        let old = "# Written\nvm.two = 1  2\n";
        let host = MemoryHost::new().kernel_parameter("vm/two", "1\t2\n");
        assert_eq!(events("vm.two", &host), ["live 1 2 3 4", "atBoot  3 4"]);
        let host = host.file("/etc/sysctl.d/60-drover-vm.two.conf", old, ACCESS);
        assert_eq!(events("vm.two", &host), ["live 1 2 3 4", "atBoot 1 2 3 4"]);
        let secret = MemoryHost::new().kernel_parameter("net/ipv4/tcp_fastopen_key", "hunter2\n");
        assert_eq!(events("net.ipv4.tcp_fastopen_key", &secret), ["live  ", "atBoot  "]);
    }

    #[test]
    fn an_unknown_parameter_is_refused() {
        let refusal =
            "the kernel has no parameter net.ipv4.ip_local_port_range; load the module that it belongs to first";
        check(&ports("1 2"), &MemoryHost::new(), &format!("refused: {refusal}"));
    }

    #[test]
    fn a_key_never_leads_out_of_the_kernels_tree() {
        for (key, path) in [
            ("vm.swappiness", Some("vm/swappiness")),
            ("net.ipv4.conf.eth0/1.forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("a.//.b", None),
            ("../etc/passwd", None),
            ("/etc/passwd", None),
            ("", None),
            ("a..b", None),
            ("a b", None),
        ] {
            assert_eq!(kernel_path(key).ok().as_deref(), path, "{key}");
        }
    }
}
