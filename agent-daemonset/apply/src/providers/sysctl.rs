//! Kernel parameters: the value in the running kernel, and the one after a reboot, which are two things that drift.

use std::fmt;

use drover_catalog::{PropertyEvent, SysctlSpec};

use super::{Provider, ProviderError, event};
use crate::host::{Access, Host, HostError};

const ACCESS: Access = Access { mode: 0o644, user: 0, group: 0 };

/// A kernel parameter as it is.
pub(crate) struct Observed {
    live: Live,
    same_at_boot: bool,
}

/// The value in the running kernel.
enum Live {
    Value(String),
    /// The kernel has no such parameter.
    Unknown,
    /// No kernel of its own runs: the file alone makes it so, at the first boot.
    NotRunning,
}

/// What must change about a kernel parameter.
///
/// Neither shows a value: some parameters are keys (`net.ipv4.tcp_fastopen_key`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Write the file that sets it at boot.
    AtBoot,
    /// Set it in the running kernel.
    Live,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtBoot => "value at boot set",
            Self::Live => "live value set",
        })
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        event(match self {
            Self::AtBoot => "atBoot",
            Self::Live => "live",
        })
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
        let same_at_boot = !self.at_boot
            || host.read_file(&boot_file(&self.key))?.is_some_and(|found| found == boot_content(self).as_bytes());
        Ok(Observed { live, same_at_boot })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let same_live = match &observed.live {
            Live::Value(value) => value.split_whitespace().eq(self.value.split_whitespace()),
            Live::NotRunning => true,
            Live::Unknown => {
                let key = &self.key;
                let refusal = format!("the kernel has no parameter {key}; load the module that it belongs to first");
                return Err(ProviderError::Refused(refusal));
            }
        };
        let live = (!same_live).then_some(Change::Live);
        let at_boot = (!observed.same_at_boot).then_some(Change::AtBoot);
        // The kernel first: it refuses a wrong value, which then is not kept for the next boot either.
        Ok(live.into_iter().chain(at_boot).collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match change {
                Change::Live => host.set_kernel_parameter(&kernel_path(&self.key)?, &self.value)?,
                Change::AtBoot => {
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
    let value: Vec<&str> = spec.value.split_whitespace().collect();
    format!("# Written by Drover; changes here are undone.\n{} = {}\n", spec.key, value.join(" "))
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
