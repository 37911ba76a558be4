//! Files: content, owner and mode as one; whatever differs, the file is replaced as a whole.
//!
//! Also where only the owner or the mode differ. To set them in place would take two steps, with a moment between them in
//! which one is old and the other new; it would go through a hard link to a file elsewhere, so that a user who links one of
//! root's files into a folder of hers would be given that; and whoever has the file open for writing, by the access that it must
//! no longer have, could go on writing. The price is that a hard link of the file elsewhere is one no more.

use std::{fmt, rc::Rc};

use drover_catalog::{FileSpec, PropertyEvent, SensitiveBytes};

use super::{AccessChange, Contents, Provider, ProviderError, event, event_of, wanted_access};
use crate::{
    host::{Access, Entry, EntryKind, Host, LARGEST_CONFIGURATION},
    state::LARGEST_BACKUP,
};

/// A file as it is.
pub(crate) struct Observed {
    entry: Option<Entry>,
    content: Content,
    /// `None` when no file is wanted, whose owner then need not exist.
    wanted: Option<Access>,
}

/// What is known of a file's content.
enum Content {
    /// It is what is wanted.
    Same,
    /// It is something else, which has been read.
    Other(Rc<[u8]>),
    /// Its size says that it is something else.
    Unread,
}

/// What must change about a file. All but the last are one write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    what: What,
    /// What is to be kept of the file that goes.
    before: Option<Before>,
    /// What the file's owner and mode must be.
    access: Option<Access>,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    /// Write it where nothing is.
    Create,
    /// Write it where a symbolic link is.
    ReplaceLink,
    /// Write it where another content is.
    ReplaceContent,
    /// Write it with another owner or mode.
    Access(AccessChange),
    /// Remove it.
    Remove,
}

/// The content that is there before a change.
#[derive(Debug, PartialEq, Eq)]
enum Before {
    Unread,
    Read { public: bool, content: Rc<[u8]> },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Create => f.write_str("created"),
            What::ReplaceLink => f.write_str("replaced a symbolic link"),
            What::ReplaceContent => f.write_str("content replaced"),
            What::Access(change) => change.fmt(f),
            What::Remove => f.write_str("removed"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match &self.what {
            What::Create => event_of("ensure", Some("absent".into()), Some("present".into())),
            What::ReplaceLink => event_of("ensure", Some("link".into()), Some("file".into())),
            What::ReplaceContent => event("content"),
            What::Access(change) => change.event(),
            What::Remove => event_of("ensure", Some("present".into()), Some("absent".into())),
        }
    }
}

impl Provider for FileSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let entry = host.entry(&self.path)?;
        let Some(wanted_content) = self.content.as_ref().map(SensitiveBytes::expose) else {
            return Ok(Observed { entry, content: Content::Unread, wanted: None });
        };
        let wanted = Some(wanted_access(host, self.mode, &self.owner, &self.group)?);
        // Another size is another content: most changed files need not be read for this.
        let may_be_same =
            entry.is_some_and(|e| e.kind == EntryKind::File && usize::try_from(e.size) == Ok(wanted_content.len()));
        if !may_be_same {
            return Ok(Observed { entry, content: Content::Unread, wanted });
        }
        let at_most = LARGEST_CONFIGURATION.max(wanted_content.len() as u64);
        // Once more with its entry, which may be another one's by now.
        Ok(match host.read_entry(&self.path, at_most)? {
            Some((entry, content)) if entry.kind == EntryKind::File && content == wanted_content => {
                Observed { entry: Some(entry), content: Content::Same, wanted }
            }
            Some((entry, content)) => Observed { entry: Some(entry), content: Content::Other(content.into()), wanted },
            None => Observed { entry: None, content: Content::Unread, wanted },
        })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let Some(entry) = observed.entry else {
            let create = |access| Change { what: What::Create, before: None, access: Some(access) };
            return Ok(observed.wanted.map(create).into_iter().collect());
        };
        if let found @ (EntryKind::Directory | EntryKind::Special) = entry.kind {
            let found = if found == EntryKind::Directory { "a directory" } else { "a device, a socket or a pipe" };
            let path = &self.path;
            return Err(ProviderError::Refused(format!("{path} is {found}; move it away, or choose another path")));
        }
        let before = match &observed.content {
            Content::Other(content) => {
                Some(Before::Read { public: is_public(entry.access), content: Rc::clone(content) })
            }
            Content::Same | Content::Unread => (entry.kind == EntryKind::File).then_some(Before::Unread),
        };
        let Some(wanted) = observed.wanted else {
            return Ok(vec![Change { what: What::Remove, before, access: None }]);
        };
        let change = |what, before| Change { what, before, access: Some(wanted) };
        if entry.kind == EntryKind::SymbolicLink {
            return Ok(vec![change(What::ReplaceLink, None)]);
        }
        let content = match observed.content {
            Content::Same => None,
            Content::Other(_) | Content::Unread => Some(change(What::ReplaceContent, before)),
        };
        let access = AccessChange::between(entry.access, wanted).map(|access| change(What::Access(access), None));
        Ok(content.into_iter().chain(access).collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        match (changes.iter().find_map(|change| change.access), &self.content) {
            (Some(access), Some(content)) => {
                host.write_file(&self.path, content.expose(), access, self.validate.as_deref()).await?;
            }
            _ if changes.is_empty() => {}
            _ => host.remove_file(&self.path)?,
        }
        Ok(())
    }

    fn contents(&self, host: &impl Host, changes: &[Change]) -> Result<Option<Contents>, ProviderError> {
        let after = self.content.as_ref().map(|content| content.expose().to_vec());
        let path = self.path.clone();
        let stays_public = changes.iter().find_map(|change| change.access).is_none_or(is_public);
        if changes.iter().any(|change| matches!(change.what, What::Create | What::ReplaceLink)) {
            return Ok(Some(Contents { path, before: None, public: stays_public, after }));
        }
        let before = match changes.iter().find_map(|change| change.before.as_ref()) {
            None => return Ok(None),
            Some(Before::Read { public, content }) => Some((*public, content.to_vec())),
            Some(Before::Unread) => replaced_content(host, &path)?,
        };
        Ok(before.map(|(was_public, before)| {
            let public = was_public && stays_public;
            Contents { path, before: Some(before), public, after }
        }))
    }
}

/// The content of a file that is to be replaced or removed, and whether all may read it. `None` where it is too large to
/// keep a copy of, or to show.
pub(super) fn replaced_content(host: &impl Host, path: &str) -> Result<Option<(bool, Vec<u8>)>, ProviderError> {
    if host.entry(path)?.is_none_or(|entry| entry.kind != EntryKind::File || entry.size > LARGEST_BACKUP) {
        return Ok(None);
    }
    let found = host.read_entry(path, LARGEST_BACKUP)?.filter(|(entry, _)| entry.kind == EntryKind::File);
    Ok(found.map(|(entry, content)| (is_public(entry.access), content)))
}

/// Whether others than the owner and the group may read a file.
pub(super) fn is_public(access: Access) -> bool {
    access.mode & 0o004 != 0
}

#[cfg(test)]
mod tests {
    use drover_catalog::SensitiveBytes;

    use futures::executor::block_on;

    use super::*;
    use crate::{
        host::memory::{MemoryHost, apply, check},
        providers::Change as _,
    };

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
        check(&moo, &MemoryHost::new().file("/etc/motd", "baa", owner), "content replaced; owner 7:4 -> 0:4");
        check(&moo, &MemoryHost::new().special("/etc/motd", EntryKind::SymbolicLink), "replaced a symbolic link");
        let gone = motd(None);
        check(&gone, &MemoryHost::new(), "");
        check(&gone, &MemoryHost::new().file("/etc/motd", "moo", WANTED), "removed");
        check(&gone, &MemoryHost::new().special("/etc/motd", EntryKind::SymbolicLink), "removed");
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

    #[test]
    fn several_changes_are_one_write_and_one_event_each() {
        let other = Access { mode: 0o600, user: 7, group: 4 };
        let host = MemoryHost::new().file("/etc/motd", "baa", other);
        let spec = motd(Some("moo"));
        let changes = spec.diff(&block_on(spec.observe(&host, false)).unwrap()).unwrap();
        let events: Vec<PropertyEvent> = changes.iter().map(Change::event).collect();
        let expected = [
            event("content"),
            event_of("owner", Some("7:4".into()), Some("0:4".into())),
            event_of("mode", Some("0600".into()), Some("0644".into())),
        ];
        assert_eq!(events, expected);
        apply(&spec, &host).unwrap();
        assert_eq!(host.log(), "write /etc/motd");
        check(&spec, &host, "");
        apply(&motd(None), &host).unwrap();
        assert_eq!(host.log(), "remove /etc/motd");
    }

    #[test]
    fn what_is_replaced_can_be_kept_and_shown() {
        #[track_caller]
        fn check(spec: &FileSpec, host: &MemoryHost, expected: Option<(Option<&str>, bool, Option<&str>)>) {
            let changes = spec.diff(&block_on(spec.observe(host, false)).unwrap()).unwrap();
            let text = |content: Option<Vec<u8>>| content.map(|content| String::from_utf8(content).unwrap());
            let found = spec.contents(host, &changes).unwrap();
            let found = found.map(|found| (text(found.before), found.public, text(found.after)));
            let owned = |text: Option<&str>| text.map(str::to_owned);
            assert_eq!(found, expected.map(|(before, public, after)| (owned(before), public, owned(after))));
        }
        let private = Access { mode: 0o640, ..WANTED };
        let file = |content, access| MemoryHost::new().file("/etc/motd", content, access);
        let moo = motd(Some("moo"));
        check(&moo, &MemoryHost::new(), Some((None, true, Some("moo"))));
        let kept_close = FileSpec { mode: 0o640, ..motd(Some("moo")) };
        check(&kept_close, &MemoryHost::new(), Some((None, false, Some("moo"))));
        check(&kept_close, &file("baa", WANTED), Some((Some("baa"), false, Some("moo"))));
        check(&moo, &file("baa", WANTED), Some((Some("baa"), true, Some("moo"))));
        check(&moo, &file("baa", private), Some((Some("baa"), false, Some("moo"))));
        check(&moo, &file("longer", private), Some((Some("longer"), false, Some("moo"))));
        check(&moo, &file("moo", private), None);
        check(&motd(None), &file("moo", WANTED), Some((Some("moo"), true, None)));
        check(&motd(None), &MemoryHost::new().link("/etc/motd", "x"), None);
    }
}
