//! Symbolic links. Whether what they lead to is there does not matter, and their owner is the agent's.

use std::fmt;

use drover_catalog::{PropertyEvent, SymlinkSpec};

use super::{Contents, Provider, ProviderError, event_of, file::replaced_content};
use crate::host::{EntryKind, Host};

/// What is at the link's place.
pub(crate) enum Observed {
    /// Nothing.
    Nothing,
    /// A link to this.
    Link(String),
    /// A regular file.
    File,
    /// A directory, and whether it is empty.
    Directory { is_empty: bool },
    /// A device, a socket or a pipe.
    Special,
}

/// What must change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Remove the empty directory that is in its place.
    RemoveDirectory,
    /// Put the link in place of what is there.
    Write { previous: Previous, target: String },
    /// Remove the link.
    Remove { target: String },
}

/// What a link takes the place of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Previous {
    /// Nothing.
    Nothing,
    /// A link to this.
    Link(String),
    /// A regular file.
    File,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveDirectory => f.write_str("removed an empty directory"),
            Self::Write { previous: Previous::Nothing, .. } => f.write_str("created"),
            Self::Write { previous: Previous::Link(from), target } => write!(f, "target {from} -> {target}"),
            Self::Write { previous: Previous::File, .. } => f.write_str("replaced a file"),
            Self::Remove { .. } => f.write_str("removed"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::RemoveDirectory => event_of("ensure", Some("directory".into()), Some("link".into())),
            Self::Write { previous, target } => {
                let previous = match previous {
                    Previous::Link(target) => Some(target.clone()),
                    Previous::Nothing | Previous::File => None,
                };
                event_of("target", previous, Some(target.clone()))
            }
            Self::Remove { target } => event_of("target", Some(target.clone()), None),
        }
    }
}

impl Provider for SymlinkSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let Some(entry) = host.entry(&self.path)? else { return Ok(Observed::Nothing) };
        Ok(match entry.kind {
            EntryKind::SymbolicLink => host.read_link(&self.path)?.map_or(Observed::Nothing, Observed::Link),
            EntryKind::File => Observed::File,
            EntryKind::Directory => {
                let names = host.list_directory(&self.path)?;
                Observed::Directory { is_empty: names.is_some_and(|names| names.is_empty()) }
            }
            EntryKind::Special => Observed::Special,
        })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let path = &self.path;
        let refused = |why: &str| Err(ProviderError::Refused(format!("{path} is {why}")));
        let Some(target) = &self.target else {
            return match observed {
                Observed::Nothing => Ok(Vec::new()),
                Observed::Link(target) => Ok(vec![Change::Remove { target: target.clone() }]),
                _ => refused("no symbolic link; remove it as what it is, or choose another path"),
            };
        };
        let write = |previous| Change::Write { previous, target: target.clone() };
        match observed {
            Observed::Nothing => Ok(vec![write(Previous::Nothing)]),
            Observed::Link(found) if found == target => Ok(Vec::new()),
            Observed::Link(found) => Ok(vec![write(Previous::Link(found.clone()))]),
            Observed::File if self.force => Ok(vec![write(Previous::File)]),
            Observed::Directory { is_empty: true } if self.force => {
                Ok(vec![Change::RemoveDirectory, write(Previous::Nothing)])
            }
            Observed::File => refused("a file; set force to replace it, move it away, or choose another path"),
            Observed::Directory { is_empty: true } => {
                refused("an empty directory; set force to replace it, or choose another path")
            }
            Observed::Directory { is_empty: false } => {
                refused("a directory with something in it; move it away, or choose another path")
            }
            Observed::Special => refused("a device, a socket or a pipe; move it away, or choose another path"),
        }
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match change {
                Change::RemoveDirectory => host.remove_directory(&self.path)?,
                Change::Write { target, .. } => host.write_link(&self.path, target)?,
                Change::Remove { .. } => host.remove_file(&self.path)?,
            }
        }
        Ok(())
    }

    fn contents(&self, host: &impl Host, changes: &[Change]) -> Result<Option<Contents>, ProviderError> {
        let is_file = |change: &Change| matches!(change, Change::Write { previous: Previous::File, .. });
        if !changes.iter().any(is_file) {
            return Ok(None);
        }
        let path = self.path.clone();
        let before = replaced_content(host, &path)?;
        Ok(before.map(|(public, before)| Contents { path, before: Some(before), public, after: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{
        Access,
        memory::{MemoryHost, apply, check},
    };

    const ANY: Access = Access { mode: 0o755, user: 0, group: 0 };

    fn link(target: Option<&str>, force: bool) -> SymlinkSpec {
        SymlinkSpec { path: "/etc/localtime".into(), target: target.map(str::to_owned), force }
    }

    #[test]
    fn says_what_changes() {
        let utc = link(Some("../UTC"), false);
        check(&utc, &MemoryHost::new(), "created");
        check(&utc, &MemoryHost::new().link("/etc/localtime", "../UTC"), "");
        check(&utc, &MemoryHost::new().link("/etc/localtime", "/UTC"), "target /UTC -> ../UTC");
        let gone = link(None, true);
        check(&gone, &MemoryHost::new(), "");
        check(&gone, &MemoryHost::new().link("/etc/localtime", "x"), "removed");
        let refused = "refused: /etc/localtime is no symbolic link; remove it as what it is, or choose another path";
        check(&gone, &MemoryHost::new().file("/etc/localtime", "", ANY), refused);
    }

    #[test]
    fn replaces_something_else_only_by_force_and_never_a_full_directory() {
        let (soft, force) = (link(Some("x"), false), link(Some("x"), true));
        let file = || MemoryHost::new().file("/etc/localtime", "", ANY);
        let refused =
            "refused: /etc/localtime is a file; set force to replace it, move it away, or choose another path";
        check(&soft, &file(), refused);
        check(&force, &file(), "replaced a file");
        let empty = || MemoryHost::new().directory("/etc/localtime", ANY);
        let refused = "refused: /etc/localtime is an empty directory; set force to replace it, or choose another path";
        check(&soft, &empty(), refused);
        check(&force, &empty(), "removed an empty directory; created");
        let full = empty().file("/etc/localtime/x", "", ANY);
        let refused =
            "refused: /etc/localtime is a directory with something in it; move it away, or choose another path";
        check(&force, &full, refused);
        let special = MemoryHost::new().special("/etc/localtime", EntryKind::Special);
        let refused = "refused: /etc/localtime is a device, a socket or a pipe; move it away, or choose another path";
        check(&force, &special, refused);

        let host = empty();
        apply(&force, &host).unwrap();
        assert_eq!(host.log(), "remove /etc/localtime\nlink /etc/localtime");
        check(&force, &host, "");
    }
}
