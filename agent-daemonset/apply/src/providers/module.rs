//! Kernel modules in the running kernel, loaded and unloaded by the machine's own `modprobe`, which knows what they need.

use std::{fmt, time::Duration};

use drover_catalog::{ModuleSpec, PropertyEvent};

use super::{Provider, ProviderError, event_of};
use crate::host::{Command, Host, HostError};

/// How long modprobe may take; some modules look for their hardware first.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A module as it is.
pub(crate) struct Observed {
    release: String,
    state: State,
}

/// How a module is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Loaded,
    BuiltIn,
    Absent,
}

/// What must change about a module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Load it into the kernel of this release.
    Load { release: String },
    /// Unload it.
    Unload,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load { .. } => "loaded",
            Self::Unload => "unloaded",
        })
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        let (previous, desired) = match self {
            Self::Load { .. } => ("false", "true"),
            Self::Unload => ("true", "false"),
        };
        event_of("loaded", Some(previous.to_owned()), Some(desired.to_owned()))
    }
}

impl Provider for ModuleSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let modules = host.kernel_file("modules")?.unwrap_or_default();
        let release = host.kernel_file("sys/kernel/osrelease")?.unwrap_or_default().trim().to_owned();
        if loaded(&modules, &self.name).is_some() {
            return Ok(Observed { release, state: State::Loaded });
        }
        let built_in = host.read_file(&format!("/lib/modules/{release}/modules.builtin"))?.unwrap_or_default();
        let is_built_in = is_built_in(&String::from_utf8_lossy(&built_in), &self.name);
        Ok(Observed { release, state: if is_built_in { State::BuiltIn } else { State::Absent } })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let name = &self.name;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.starts_with('-') || !name.chars().all(fits) {
            let advice = "write it as lsmod(8) shows it, without path and `.ko`";
            return Err(ProviderError::Refused(format!("{name:?} is no name of a module; {advice}")));
        }
        match (self.loaded, observed.state) {
            (true, State::Loaded | State::BuiltIn) | (false, State::Absent) => Ok(Vec::new()),
            (true, State::Absent) => Ok(vec![Change::Load { release: observed.release.clone() }]),
            (false, State::Loaded) => Ok(vec![Change::Unload]),
            (false, State::BuiltIn) => Err(ProviderError::Refused(format!(
                "the module {name} is built into the kernel {}, and can not be unloaded",
                observed.release
            ))),
        }
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match change {
                Change::Load { release } => load(host, &self.name, release).await?,
                Change::Unload => unload(host, &self.name).await?,
            }
        }
        Ok(())
    }
}

async fn load(host: &impl Host, name: &str, release: &str) -> Result<(), ProviderError> {
    let output = host.run(&Command::new(["modprobe", name], TIMEOUT)).await?;
    if output.success() {
        return Ok(());
    }
    let failure = output.failure();
    // kmod and busybox say it so.
    if failure.contains("not found") {
        let advice = "install the package that has it, or reboot into the kernel that its modules are installed for";
        return Err(ProviderError::Refused(format!("the kernel {release} has no module {name}; {advice}")));
    }
    Err(ProviderError::Command { program: "modprobe".to_owned(), failure })
}

async fn unload(host: &impl Host, name: &str) -> Result<(), ProviderError> {
    let output = host.run(&Command::new(["modprobe", "-r", name], TIMEOUT)).await?;
    if output.success() {
        return Ok(());
    }
    let modules = host.kernel_file("modules")?.ok_or_else(|| HostError::Unavailable("no modules".to_owned()))?;
    match loaded(&modules, name) {
        Some(Use { count, by }) if count > 0 => {
            let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
            let advice = "stop what uses it first, or leave it until the machine reboots";
            Err(ProviderError::Refused(format!("the module {name} is in use{by}; {advice}")))
        }
        _ => Err(ProviderError::Command { program: "modprobe".to_owned(), failure: output.failure() }),
    }
}

/// How much a loaded module is used, and by which others.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    count: u32,
    by: String,
}

/// Finds a module in `/proc/modules`: name, size, count, users separated by commas or `-`, state, address; see
/// `proc_modules(5)`.
fn loaded(modules: &str, name: &str) -> Option<Use> {
    modules.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        if !same_name(fields.next()?, name) {
            return None;
        }
        let count = fields.nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
        let by = fields.next().unwrap_or_default().trim_matches([',', '-']).replace(',', ", ");
        Some(Use { count, by })
    })
}

/// Whether `modules.builtin` has it: one path a line, such as `kernel/fs/ext4/ext4.ko`.
fn is_built_in(modules_builtin: &str, name: &str) -> bool {
    let file = |line: &str| line.rsplit('/').next().and_then(|file| file.strip_suffix(".ko").map(str::to_owned));
    modules_builtin.lines().filter_map(file).any(|found| same_name(&found, name))
}

fn same_name(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(a, b)| a == b || (is_dash(a) && is_dash(b)))
}

fn is_dash(byte: u8) -> bool {
    matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        Access,
        memory::{MemoryHost, apply, check},
    };

    const ROOT: Access = Access { mode: 0o644, user: 0, group: 0 };

    fn host() -> MemoryHost {
        let modules =
            "br_netfilter 32768 0 - Live 0x0\nbridge 311296 1 br_netfilter, Live 0x0\nloop 40960 2 - Live 0x0\n";
        MemoryHost::new()
            .file("/proc/modules", modules, ROOT)
            .file("/proc/sys/kernel/osrelease", "6.1.0-9\n", ROOT)
            .file("/lib/modules/6.1.0-9/modules.builtin", "kernel/fs/ext4/ext4.ko\nkernel/a/xt_mark-x.ko\n", ROOT)
    }

    fn module(name: &str, loaded: bool) -> ModuleSpec {
        ModuleSpec { name: name.into(), loaded }
    }

    #[test]
    fn a_module_is_loaded_built_in_or_not_there() {
        for (name, loaded, expected, ran) in [
            ("br_netfilter", true, "", vec![]),
            ("br-netfilter", true, "", vec![]),
            ("overlay", true, "loaded", vec!["modprobe overlay"]),
            ("netfilter", true, "loaded", vec!["modprobe netfilter"]),
            ("ext4", true, "", vec![]),
            ("xt-mark_x", true, "", vec![]),
            ("overlay", false, "", vec![]),
            ("br-netfilter", false, "unloaded", vec!["modprobe -r br-netfilter"]),
        ] {
            let (host, spec) = (host(), module(name, loaded));
            check(&spec, &host, expected);
            apply(&spec, &host).unwrap();
            assert_eq!(host.ran(), ran, "{name}");
        }
        let refusal = "refused: the module ext4 is built into the kernel 6.1.0-9, and can not be unloaded";
        check(&module("ext4", false), &host(), refusal);
        check(&module("overlay", true), &host().without_kernel(), "refused: no kernel");
        for name in ["", "--help", "a/b", "a b"] {
            assert!(apply(&module(name, true), &host()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let error = |spec: &ModuleSpec, stderr: &str| {
            apply(spec, &host().command("modprobe", 1, "", stderr)).unwrap_err().to_string()
        };
        let fatal = "modprobe: FATAL: Module nosuch not found in directory /lib/modules/6.1.0-9";
        let advice = "install the package that has it, or reboot into the kernel that its modules are installed for";
        let expected = format!("the kernel 6.1.0-9 has no module nosuch; {advice}");
        assert_eq!(error(&module("nosuch", true), fatal), expected);
        let denied = "modprobe: ERROR: could not insert 'overlay': Operation not permitted";
        assert_eq!(error(&module("overlay", true), denied), format!("modprobe exited with 1: {denied}"));
        let advice = "stop what uses it first, or leave it until the machine reboots";
        for (name, by) in [("bridge", " by br_netfilter"), ("loop", "")] {
            let expected = format!("the module {name} is in use{by}; {advice}");
            assert_eq!(error(&module(name, false), "modprobe: FATAL: Module is in use."), expected);
        }
        let expected = "modprobe exited with 1: boom";
        assert_eq!(error(&module("br_netfilter", false), "boom"), expected);
    }
}
