//! Swap files, and block devices for swap, in the running machine.
//!
//! A new swap file is made whole beside its place (`PATH.drover-new`) and then moved there. So a file that is in the
//! place and is no swap area was not left by a killed run: it is somebody's, and is never overwritten or removed.

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use drover_catalog::{Presence, PropertyEvent, SwapSpec};

use super::{
    Provider, ProviderError, event_of,
    kernel_tables::{device_node, line_of_fstab, runs_systemd, swaps},
    run_tool, unit_name,
};
use crate::host::{Access, Command, Entry, EntryKind, Host, UnitJob};

/// How long a tool may take: to switch swap off reads all of it back, and `dd` writes all of it.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// Who can read swap can read memory.
const ACCESS: Access = Access { mode: 0o600, user: 0, group: 0 };

const MIB: u64 = 1024 * 1024;

/// A swap area as it is.
pub(crate) struct Observed {
    /// The priority of an active one.
    active: Option<i32>,
    entry: Option<Entry>,
    /// Whether a regular file has a swap area's signature.
    is_area: bool,
    by: By,
}

/// Who switches it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Systemd, by the line of fstab.
    Fstab,
    /// A command that systemd runs outside the agent's container: the kernel remembers the path that it was given.
    TransientUnit,
    /// The machine's own swapon(8).
    Tools,
}

/// What must change about a swap area.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Make the file.
    Create { mib: u64 },
    /// Make it anew with another size.
    Resize { from: u64, to: u64, active: bool },
    /// Close it to others.
    Access { mode: u32 },
    /// Switch it on.
    On(By),
    /// Switch it off and on, which is what it takes to have it used sooner or later than others.
    Priority { from: i32, to: u16, by: By },
    /// Switch it off.
    Off,
    /// Remove the file.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { mib } => write!(f, "created with {mib} MiB"),
            Self::Resize { from, to, active: _ } => write!(f, "size {} -> {} MiB", from / MIB, to / MIB),
            Self::Access { mode } => write!(f, "mode {mode:04o} -> {:04o}", ACCESS.mode),
            Self::On(_) => f.write_str("switched on"),
            Self::Priority { from, to, by: _ } => write!(f, "priority {from} -> {to}"),
            Self::Off => f.write_str("switched off"),
            Self::Remove => f.write_str("removed"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        let of = |property, previous: &str, desired: &str| {
            event_of(property, Some(previous.to_owned()), Some(desired.to_owned()))
        };
        match self {
            Self::Create { .. } => of("ensure", "absent", "present"),
            Self::Resize { from, to, active: _ } => of("sizeMib", &(from / MIB).to_string(), &(to / MIB).to_string()),
            Self::Access { mode } => of("mode", &format!("{mode:04o}"), &format!("{:04o}", ACCESS.mode)),
            Self::On(_) => of("active", "false", "true"),
            Self::Priority { from, to, by: _ } => of("priority", &from.to_string(), &to.to_string()),
            Self::Off => of("active", "true", "false"),
            Self::Remove => of("ensure", "present", "absent"),
        }
    }
}

impl Provider for SwapSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let table = host.kernel_file("swaps")?.unwrap_or_default();
        let node = device_node(host, &self.path)?;
        let mut active = None;
        for (found, priority) in swaps(&table) {
            if device_node(host, &found)? == node {
                active = Some(priority);
            }
        }
        let entry = host.entry(&self.path)?;
        let is_file = entry.is_some_and(|entry| entry.kind == EntryKind::File);
        let is_area = is_file && (active.is_some() || has_signature(host, &self.path).await?);
        let by = if !runs_systemd(host)? {
            By::Tools
        } else if line_of_fstab(host, 0, &self.path)?.is_some_and(|line| priority(&line) == self.priority) {
            By::Fstab
        } else {
            By::TransientUnit
        };
        Ok(Observed { active, entry, is_area, by })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let Observed { active, entry, is_area, by } = observed;
        let refused = |why: &str| Err(ProviderError::Refused(format!("{} {why}", self.path)));
        let file = match entry {
            Some(Entry { kind: EntryKind::Directory, .. }) => return refused("is a directory; choose another path"),
            Some(entry) if entry.kind == EntryKind::File => Some(entry),
            _ => None,
        };
        if file.is_some() && !is_area {
            return refused("is there and is no swap area; move it away, or choose another path");
        }
        if self.state == Presence::Absent {
            let off = active.map(|_| Change::Off);
            return Ok(off.into_iter().chain(file.map(|_| Change::Remove)).collect());
        }
        let mut changes = Vec::new();
        match (file, self.size_mib) {
            (Some(file), Some(mib)) => {
                let to = mib * MIB;
                if file.size != to {
                    changes.push(Change::Resize { from: file.size, to, active: active.is_some() });
                } else if file.access != ACCESS {
                    changes.push(Change::Access { mode: file.access.mode });
                }
            }
            (None, Some(mib)) if entry.is_none() => changes.push(Change::Create { mib }),
            (None, Some(_)) => return refused("is no regular file, and has the size it has; leave out sizeMib"),
            (None, None) if entry.is_none() => return refused("is not there; give sizeMib to have a swap file made"),
            (_, None) => {}
        }
        let anew = matches!(changes.first(), Some(Change::Resize { .. }));
        match (*active, self.priority) {
            (Some(from), Some(to)) if !anew && from != i32::from(to) => {
                changes.push(Change::Priority { from, to, by: *by });
            }
            (Some(_), _) if !anew => {}
            _ => changes.push(Change::On(*by)),
        }
        Ok(changes)
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        let path = self.path.as_str();
        for change in changes {
            match change {
                Change::Create { mib } => create(host, path, *mib, false).await?,
                Change::Resize { from: _, to, active } => create(host, path, to / MIB, *active).await?,
                Change::Access { mode: _ } => {
                    run_tool(host, &Command::new(["chown", "0:0", path], TIMEOUT)).await?;
                    run_tool(host, &Command::new(["chmod", "0600", path], TIMEOUT)).await?;
                }
                Change::On(by) => switch_on(host, path, self.priority, *by).await?,
                Change::Priority { by, .. } => {
                    run_tool(host, &Command::new(["swapoff", path], TIMEOUT)).await?;
                    switch_on(host, path, self.priority, *by).await?;
                }
                Change::Off => run_tool(host, &Command::new(["swapoff", path], TIMEOUT)).await?,
                Change::Remove => host.remove_file(path)?,
            }
        }
        Ok(())
    }
}

/// Whether a file is a swap area, by the machine's own blkid(8).
async fn has_signature(host: &impl Host, path: &str) -> Result<bool, ProviderError> {
    let output = host.run(&Command::new(["blkid", "-p", path], TIMEOUT)).await?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("TYPE=\"swap\""))
}

/// Makes a swap file beside its place, and moves it there. An active one in its place is switched off for that only when the
/// new one is whole: what goes wrong before leaves the machine its swap.
async fn create(host: &impl Host, path: &str, mib: u64, active: bool) -> Result<(), ProviderError> {
    let new = format!("{path}.drover-new");
    // Closed to others before anything is in it.
    host.write_file(&new, b"", ACCESS, None).await?;
    let made = async {
        fill(host, &new, mib).await?;
        if active {
            run_tool(host, &Command::new(["swapoff", path], TIMEOUT)).await?;
        }
        run_tool(host, &Command::new(["mv", "-f", &new, path], TIMEOUT)).await
    };
    let made = made.await;
    if made.is_err() {
        // What went wrong matters more; the next run replaces it anyway.
        let _ = host.remove_file(&new);
    }
    made
}

async fn fill(host: &impl Host, new: &str, mib: u64) -> Result<(), ProviderError> {
    let length = (mib * MIB).to_string();
    let fallocate = Command::new(["fallocate", "-l", &length, new], TIMEOUT);
    let allocated = host.run(&fallocate).await?;
    if !allocated.success() {
        let failure = allocated.failure();
        // Not every file system can; zeros it can. Where it failed for another reason, such as a lack of room, zeros would
        // only fill the disk.
        if !failure.contains("not supported") {
            return Err(ProviderError::Command { program: fallocate.program().to_owned(), failure });
        }
        let (output, count) = (format!("of={new}"), format!("count={mib}"));
        let argv = ["dd", "if=/dev/zero", &output, "bs=1048576", &count, "conv=fsync"];
        run_tool(host, &Command::new(argv, TIMEOUT)).await?;
    }
    run_tool(host, &Command::new(["mkswap", new], TIMEOUT)).await
}

async fn switch_on(host: &impl Host, path: &str, priority: Option<u16>, by: By) -> Result<(), ProviderError> {
    let mut argv = match by {
        By::Fstab => {
            // It may not have seen the line yet.
            host.reload_unit_files().await?;
            return Ok(host.run_unit_job(&unit_name::of_path(path, "swap"), UnitJob::Start).await?);
        }
        By::TransientUnit => vec!["systemd-run", "--quiet", "--wait", "--collect", "--", "swapon"],
        By::Tools => vec!["swapon"],
    };
    let number = priority.map(|priority| priority.to_string());
    argv.extend(number.iter().flat_map(|number| ["--priority", number]));
    argv.push(path);
    run_tool(host, &Command::of(argv.into_iter().map(str::to_owned).collect(), TIMEOUT)).await
}

/// The priority in a line of fstab.
fn priority(line: &[String]) -> Option<u16> {
    line.get(3)?.split(',').find_map(|option| option.strip_prefix("pri="))?.parse().ok()
}
