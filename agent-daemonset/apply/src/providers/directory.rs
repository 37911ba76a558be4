//! Directories: there, with an owner and a mode. What is in them is not looked at.

use std::fmt;

use drover_catalog::{DirectorySpec, PropertyEvent};

use super::{Provider, ProviderError, access_changes, event, event_of, wanted_access};
use crate::host::{Access, Entry, EntryKind, Host};

/// A directory as it is.
pub(crate) struct Observed {
    entry: Option<Entry>,
    wanted: Access,
}

/// What must change about a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Make it.
    Make(Access),
    /// Give it to an owner with a mode, for this reason.
    SetAccess { reason: String, access: Access },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make(_) => f.write_str("created"),
            Self::SetAccess { reason, access: _ } => f.write_str(reason),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::Make(_) => event_of("ensure", Some("absent".into()), Some("present".into())),
            Self::SetAccess { .. } => event("access"),
        }
    }
}

impl Provider for DirectorySpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let wanted = wanted_access(host, self.mode, &self.owner, &self.group)?;
        Ok(Observed { entry: host.entry(&self.path)?, wanted })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let wanted = observed.wanted;
        let Some(entry) = observed.entry else {
            return Ok(vec![Change::Make(wanted)]);
        };
        let path = &self.path;
        match entry.kind {
            EntryKind::Directory => {}
            EntryKind::SymbolicLink => {
                let refusal = format!("{path} is a symbolic link; name the directory that it leads to");
                return Err(ProviderError::Refused(refusal));
            }
            EntryKind::File | EntryKind::Special => {
                let refusal = format!("{path} is no directory; move it away, or choose another path");
                return Err(ProviderError::Refused(refusal));
            }
        }
        let reasons = access_changes(entry.access, wanted);
        if reasons.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Change::SetAccess { reason: reasons.join(", "), access: wanted }])
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match change {
                Change::Make(access) => host.make_directory(&self.path, *access)?,
                Change::SetAccess { reason: _, access } => host.set_directory_access(&self.path, *access)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use drover_catalog::Presence;

    use super::*;
    use crate::host::memory::{MemoryHost, check};

    #[test]
    fn says_what_changes() {
        let spec = DirectorySpec {
            path: "/srv/www".into(),
            state: Presence::Present,
            mode: 0o755,
            owner: "0".into(),
            group: "adm".into(),
            purge: false,
            keep: vec![],
        };
        let wanted = Access { mode: 0o755, user: 0, group: 4 };
        check(&spec, &MemoryHost::new(), "created");
        check(&spec, &MemoryHost::new().directory("/srv/www", wanted), "");
        let open = Access { mode: 0o777, user: 0, group: 0 };
        check(&spec, &MemoryHost::new().directory("/srv/www", open), "owner 0:0 -> 0:4, mode 0777 -> 0755");
        let link = "refused: /srv/www is a symbolic link; name the directory that it leads to";
        check(&spec, &MemoryHost::new().special("/srv/www", EntryKind::SymbolicLink), link);
        let file = "refused: /srv/www is no directory; move it away, or choose another path";
        check(&spec, &MemoryHost::new().file("/srv/www", "", wanted), file);
    }
}
