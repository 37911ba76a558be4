//! Files: content, owner and mode as one; whatever differs, the file is replaced as a whole.

use std::fmt;

use drover_catalog::{FileSpec, PropertyEvent};

use super::{Contents, Provider, ProviderError, access_changes, event, event_of, wanted_access};
use crate::host::{Access, Entry, EntryKind, Host};

/// A file as it is.
pub(crate) struct Observed {
    entry: Option<Entry>,
    same_content: bool,
    /// `None` when no file is wanted, whose owner then need not exist.
    wanted: Option<Access>,
}

/// What must change about a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Write it, for this reason.
    Write { reason: String, access: Access },
    /// Remove it.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { reason, access: _ } => f.write_str(reason),
            Self::Remove => f.write_str("removed"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::Write { .. } => event("content"),
            Self::Remove => event_of("ensure", Some("present".into()), Some("absent".into())),
        }
    }
}

impl Provider for FileSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let entry = host.entry(&self.path)?;
        let Some(content) = &self.content else {
            return Ok(Observed { entry, same_content: false, wanted: None });
        };
        let content = content.expose();
        // Another size is another content: most changed files need not be read.
        let may_be_same =
            entry.is_some_and(|e| e.kind == EntryKind::File && usize::try_from(e.size) == Ok(content.len()));
        let same_content = may_be_same && host.read_file(&self.path)?.is_some_and(|found| found == content);
        let wanted = wanted_access(host, self.mode, &self.owner, &self.group)?;
        Ok(Observed { entry, same_content, wanted: Some(wanted) })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let kind = observed.entry.map(|entry| entry.kind);
        if let Some(found @ (EntryKind::Directory | EntryKind::Special)) = kind {
            let found = if found == EntryKind::Directory { "a directory" } else { "a device, a socket or a pipe" };
            let path = &self.path;
            return Err(ProviderError::Refused(format!("{path} is {found}; move it away, or choose another path")));
        }
        let Some(wanted) = observed.wanted else {
            return Ok(observed.entry.map(|_| Change::Remove).into_iter().collect());
        };
        let reasons = match observed.entry {
            None => vec!["created".to_owned()],
            Some(entry) if entry.kind == EntryKind::SymbolicLink => vec!["replaced a symbolic link".to_owned()],
            Some(entry) => {
                let content = (!observed.same_content).then(|| "content replaced".to_owned());
                content.into_iter().chain(access_changes(entry.access, wanted)).collect()
            }
        };
        if reasons.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Change::Write { reason: reasons.join(", "), access: wanted }])
    }

    fn contents(&self, host: &impl Host, _changes: &[Change]) -> Result<Option<Contents>, ProviderError> {
        let entry = host.entry(&self.path)?.filter(|entry| entry.kind == EntryKind::File);
        let before = if entry.is_some() { host.read_file(&self.path)? } else { None };
        let after = self.content.as_ref().map(|content| content.expose().to_vec());
        if before == after {
            return Ok(None);
        }
        let public = entry.is_none_or(|entry| entry.access.mode & 0o004 != 0) && self.mode & 0o004 != 0;
        Ok(Some(Contents { path: self.path.clone(), before, public, after }))
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match (change, &self.content) {
                (Change::Write { reason: _, access }, Some(content)) => {
                    host.write_file(&self.path, content.expose(), *access, self.validate.as_deref()).await?;
                }
                (Change::Remove, _) | (_, None) => host.remove_file(&self.path)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use drover_catalog::SensitiveBytes;

    use super::*;
    use crate::host::memory::{MemoryHost, check};

    fn motd(content: Option<&str>) -> FileSpec {
        FileSpec {
            path: "/etc/motd".into(),
            content: content.map(SensitiveBytes::new),
            mode: 0o644,
            owner: "root".into(),
            group: "adm".into(),
            validate: None,
        }
    }

    const WANTED: Access = Access { mode: 0o644, user: 0, group: 4 };

    #[test]
    fn says_what_changes() {
        let moo = motd(Some("moo"));
        check(&moo, &MemoryHost::new(), "created");
        check(&moo, &MemoryHost::new().file("/etc/motd", "moo", WANTED), "");
        check(&moo, &MemoryHost::new().file("/etc/motd", "baa", WANTED), "content replaced");
        check(&moo, &MemoryHost::new().file("/etc/motd", "longer", WANTED), "content replaced");
        let mode = Access { mode: 0o4755, ..WANTED };
        check(&moo, &MemoryHost::new().file("/etc/motd", "moo", mode), "mode 4755 -> 0644");
        let owner = Access { user: 7, ..WANTED };
        check(&moo, &MemoryHost::new().file("/etc/motd", "baa", owner), "content replaced, owner 7:4 -> 0:4");
        check(&moo, &MemoryHost::new().special("/etc/motd", EntryKind::SymbolicLink), "replaced a symbolic link");
        let gone = motd(None);
        check(&gone, &MemoryHost::new(), "");
        check(&gone, &MemoryHost::new().file("/etc/motd", "moo", WANTED), "removed");
        check(&gone, &MemoryHost::new().special("/etc/motd", EntryKind::SymbolicLink), "removed");
    }

    #[test]
    fn shows_what_everybody_may_read() {
        let contents = |spec: &FileSpec, host: &MemoryHost| {
            let contents = spec.contents(host, &[]).unwrap()?;
            let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).unwrap());
            Some((text(contents.before), text(contents.after), contents.public))
        };
        let some = |text: &str| Some(text.to_owned());
        let moo = motd(Some("moo"));
        assert_eq!(contents(&moo, &MemoryHost::new()), Some((None, some("moo"), true)));
        assert_eq!(contents(&moo, &MemoryHost::new().file("/etc/motd", "moo", WANTED)), None);
        let baa = || MemoryHost::new().file("/etc/motd", "baa", WANTED);
        assert_eq!(contents(&moo, &baa()), Some((some("baa"), some("moo"), true)));
        assert_eq!(contents(&motd(None), &baa()), Some((some("baa"), None, true)));
        let closed = MemoryHost::new().file("/etc/motd", "key", Access { mode: 0o600, ..WANTED });
        assert_eq!(contents(&moo, &closed).map(|contents| contents.2), Some(false));
        let closing = FileSpec { mode: 0o640, ..moo };
        assert_eq!(contents(&closing, &baa()).map(|contents| contents.2), Some(false));
    }

    #[test]
    fn refuses_what_is_no_file() {
        for spec in [motd(Some("moo")), motd(None)] {
            let directory = "refused: /etc/motd is a directory; move it away, or choose another path";
            check(&spec, &MemoryHost::new().directory("/etc/motd", WANTED), directory);
            let special = "refused: /etc/motd is a device, a socket or a pipe; move it away, or choose another path";
            check(&spec, &MemoryHost::new().special("/etc/motd", EntryKind::Special), special);
        }
    }

    #[test]
    fn a_missing_owner_matters_only_for_a_file_that_shall_exist() {
        let spec = |content| FileSpec { owner: "nginx".into(), ..motd(content) };
        let missing =
            "refused: the machine has no user nginx; add it first (a package or a command that this resource requires)";
        check(&spec(Some("moo")), &MemoryHost::new(), missing);
        check(&spec(None), &MemoryHost::new(), "");
    }
}
