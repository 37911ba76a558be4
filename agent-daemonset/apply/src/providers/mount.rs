//! File systems in the running machine.
//!
//! An agent in a container has mounts of its own, and what it mounted would be there alone. So where systemd runs, systemd
//! mounts: by the unit of the line in `/etc/fstab` when that line says what is wanted. It does not when something new is
//! wanted: the line is written once the mount has worked, so that no line can stop the next boot. Then systemd runs
//! mount(8), which leaves no unit file behind that would be in the way of the line's; systemd sees by the kernel's table
//! what is mounted, and takes it for the line's unit as soon as it has read the line. Where no systemd runs, the
//! machine's own mount(8) does.

mod options;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use drover_catalog::{MountSpec, PropertyEvent};

use super::{
    Provider, ProviderError, event_of,
    kernel_tables::{Mount, device_node, line_of_fstab, mounts, runs_systemd},
    run_tool, unit_name,
};
use crate::host::{Command, Host, HostError, UnitJob};

/// How long a tool may take; a file system may be checked first, and a server may be slow.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What is at the path.
pub(crate) struct Observed {
    /// What is mounted there; of several, the uppermost.
    mounted: Option<Mount>,
    /// Whether systemd mounts something there when it is first used.
    automount: bool,
    same_source: bool,
    by: By,
}

/// Who mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Systemd, by the line of fstab.
    Fstab,
    /// mount(8), in a unit that systemd makes for it.
    TransientUnit,
    /// The machine's own mount(8).
    Tools,
}

/// What must change about a mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Mount it.
    Mount(By),
    /// Mount it with these options, which are not in force.
    Options { missing: Vec<String>, by: By },
    /// Unmount what is there, and mount it.
    Replace { found: String, by: By },
    /// Unmount it.
    Unmount { found: String, automount: bool, by: By },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(_) => f.write_str("mounted"),
            Self::Options { missing, by: _ } => write!(f, "remounted with {}", missing.join(",")),
            Self::Replace { found, by: _ } => write!(f, "mounted in place of {found}"),
            Self::Unmount { .. } => f.write_str("unmounted"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        let (mounted, unmounted) = (Some("mounted".to_owned()), Some("unmounted".to_owned()));
        match self {
            Self::Mount(_) => event_of("state", unmounted, mounted),
            Self::Options { missing, by: _ } => event_of("options", None, Some(missing.join(","))),
            Self::Replace { found, by: _ } => event_of("device", Some(found.clone()), None),
            Self::Unmount { .. } => event_of("state", mounted, unmounted),
        }
    }
}

impl Provider for MountSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let table = mounts(&host.mount_table()?);
        let here = || table.iter().rev().filter(|mount| mount.path == self.path);
        let mounted = here().find(|mount| mount.fstype != "autofs").cloned();
        let same_source = match &mounted {
            None => false,
            Some(mount) if is_bind(self) => source_of_bind(&table, &self.device)
                .is_some_and(|(device, root)| (device, root.as_str()) == (mount.device.as_str(), mount.root.as_str())),
            // A mere name, such as `tmpfs`: it says nothing.
            Some(_) if !self.device.contains(['/', '=', ':']) => true,
            Some(mount) => {
                let (found, wanted) = (device_node(host, &mount.source)?, device_node(host, &self.device)?);
                found.trim_end_matches('/') == wanted.trim_end_matches('/')
                    || backing_file(host, &found)?.is_some_and(|file| file == wanted)
            }
        };
        let by = if !runs_systemd(host)? {
            By::Tools
        } else if line_of_fstab(host, 1, &self.path)?.is_some_and(|line| says(&line, self)) {
            By::Fstab
        } else {
            By::TransientUnit
        };
        Ok(Observed { automount: here().any(|mount| mount.fstype == "autofs"), mounted, same_source, by })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let Observed { mounted, automount, same_source, by } = observed;
        let (automount, by) = (*automount, *by);
        if self.device.starts_with('-') || !self.path.starts_with('/') {
            let (device, path) = (&self.device, &self.path);
            return Err(ProviderError::Refused(format!("{device:?} can not be mounted at {path:?}; give whole paths")));
        }
        if !self.mounted && self.path == "/" {
            return Err(ProviderError::Refused("the root file system stays mounted".to_owned()));
        }
        let change = match mounted {
            Some(found) if !self.mounted => Some(Change::Unmount { found: found.source.clone(), automount, by }),
            None if !self.mounted => automount.then(|| Change::Unmount { found: "autofs".to_owned(), automount, by }),
            // It is mounted as soon as somebody looks.
            None if automount && self.options.iter().any(|option| option == "x-systemd.automount") => None,
            None => Some(Change::Mount(by)),
            Some(found) if !same_source || !same_type(&self.fstype, &found.fstype) => {
                Some(Change::Replace { found: format!("{} ({})", found.source, found.fstype), by })
            }
            Some(found) => {
                let missing = options::missing(&self.options, &found.options);
                let missing: Vec<String> = missing.into_iter().map(str::to_owned).collect();
                (!missing.is_empty()).then_some(Change::Options { missing, by })
            }
        };
        Ok(change.into_iter().collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match change {
                Change::Mount(by) => mount(self, host, *by).await?,
                Change::Options { missing: _, by } => remount(self, host, *by).await?,
                Change::Replace { found: _, by } => {
                    unmount(self, host, false, *by).await?;
                    mount(self, host, *by).await?;
                }
                Change::Unmount { found: _, automount, by } => unmount(self, host, *automount, *by).await?,
            }
        }
        Ok(())
    }
}

async fn mount(spec: &MountSpec, host: &impl Host, by: By) -> Result<(), ProviderError> {
    if by == By::Fstab {
        // It may not have seen the line yet.
        host.reload_unit_files().await?;
        return Ok(host.run_unit_job(&unit_name::of_path(&spec.path, "mount"), UnitJob::Start).await?);
    }
    run_mount(spec, host, by, &options::for_the_tool(&spec.options)).await
}

/// Runs mount(8). It is told the device and the path: by one of them, it would add the options of the line in fstab.
async fn run_mount(spec: &MountSpec, host: &impl Host, by: By, options: &str) -> Result<(), ProviderError> {
    let fstype = Some(spec.fstype.as_str()).filter(|fstype| !matches!(*fstype, "" | "none" | "auto"));
    let mut arguments: Vec<&str> = fstype.into_iter().flat_map(|fstype| ["-t", fstype]).collect();
    if !options.is_empty() {
        arguments.extend(["-o", options]);
    }
    arguments.extend([spec.device.as_str(), &spec.path]);
    // What it says comes back by the pipe. What it leaves running is the file system, of those in user space.
    let unit = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--property=KillMode=process", "--"];
    let unit = if by == By::TransientUnit { &unit[..] } else { &[] };
    let argv = unit.iter().chain(&["mount"]).chain(&arguments).copied().map(str::to_owned).collect();
    run_tool(host, &Command::of(argv, TIMEOUT)).await
}

async fn remount(spec: &MountSpec, host: &impl Host, by: By) -> Result<(), ProviderError> {
    if by == By::Fstab {
        host.reload_unit_files().await?;
        // To reload a mount unit is to remount it, see systemd.mount(5).
        let unit = unit_name::of_path(&spec.path, "mount");
        return Ok(host.run_unit_job(&unit, UnitJob::ReloadOrRestart).await?);
    }
    let options = format!("remount,{}", options::for_the_tool(&spec.options));
    run_mount(spec, host, by, &options).await
}

async fn unmount(spec: &MountSpec, host: &impl Host, automount: bool, by: By) -> Result<(), ProviderError> {
    if by == By::Tools {
        return run_tool(host, &Command::new(["umount", &spec.path], TIMEOUT)).await;
    }
    // It would be mounted again by the next look at it.
    if automount {
        host.run_unit_job(&unit_name::of_path(&spec.path, "automount"), UnitJob::Stop).await?;
    }
    Ok(host.run_unit_job(&unit_name::of_path(&spec.path, "mount"), UnitJob::Stop).await?)
}

/// Whether a line of fstab says what is wanted.
fn says(line: &[String], spec: &MountSpec) -> bool {
    let [device, path, fstype, rest @ ..] = line else { return false };
    let wanted = if spec.options.is_empty() { "defaults".to_owned() } else { spec.options.join(",") };
    let options = rest.first().map_or("defaults", String::as_str);
    (device, path, fstype, options) == (&spec.device, &spec.path, &spec.fstype, wanted.as_str())
}

fn is_bind(spec: &MountSpec) -> bool {
    spec.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"))
}

/// The device number and the folder within its file system that a bind mount of a path has.
fn source_of_bind<'a>(table: &'a [Mount], path: &str) -> Option<(&'a str, String)> {
    let below = |mount: &Mount| {
        let rest = path.strip_prefix(mount.path.trim_end_matches('/'))?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
    };
    // Of several at one path, the last one is on top.
    let (mount, rest) = table
        .iter()
        .filter_map(|mount| Some((mount, below(mount)?)))
        .max_by_key(|(mount, _)| mount.path.trim_end_matches('/').len())?;
    let root = format!("{}{}", mount.root.trim_end_matches('/'), rest.trim_end_matches('/'));
    Some((&mount.device, if root.is_empty() { "/".to_owned() } else { root }))
}

/// The file behind a loop device: mount(8) makes one for a file that is given as a device.
fn backing_file(host: &impl Host, device: &str) -> Result<Option<String>, HostError> {
    let number = device.strip_prefix("/dev/loop").filter(|rest| rest.parse::<u32>().is_ok());
    let Some(number) = number else { return Ok(None) };
    let file = host.read_file(&format!("/sys/block/loop{number}/loop/backing_file"))?;
    Ok(file.map(|file| String::from_utf8_lossy(&file).trim_end_matches('\n').to_owned()))
}

/// Whether the kernel's word for a type is what was asked for.
fn same_type(wanted: &str, found: &str) -> bool {
    match wanted {
        // A bind mount has none, and mount(8) may choose one.
        "" | "none" | "auto" => true,
        "nfs" => matches!(found, "nfs" | "nfs4"),
        "ntfs" | "ntfs-3g" => matches!(found, "ntfs" | "ntfs3" | "fuseblk"),
        // A file system in user space goes by its own name, by that in fstab at least.
        other => other == found || found.strip_prefix("fuse.") == Some(other),
    }
}
