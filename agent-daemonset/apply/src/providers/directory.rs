//! Directories: there, with an owner and a mode, and if that is wanted, with nothing in them that no resource puts there.

use std::fmt;

use drover_catalog::{DirectorySpec, Presence, PropertyEvent};

use super::{AccessChange, Provider, ProviderError, event_of, wanted_access};
use crate::host::{Access, Entry, EntryKind, Host};

/// So many entries are removed at once, with all that is below them: more than that can hardly be meant.
const MOST_REMOVED: usize = 10_000;

/// So many names are shown.
const MOST_NAMES: usize = 5;

/// What must never be emptied or removed as a whole: a machine without them does not start, or loses what people have on it.
const PROTECTED: [&str; 19] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib*",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/usr/bin",
    "/usr/lib*",
    "/usr/sbin",
    "/var",
];

/// And what is below these, which is the kernel's.
const KERNELS: [&str; 3] = ["/dev/", "/proc/", "/sys/"];

/// A directory as it is.
pub(crate) struct Observed {
    entry: Option<Entry>,
    /// `None` when no directory is wanted, whose owner then need not exist.
    wanted: Option<Access>,
    /// The names of what is in it, where that matters.
    kept: Vec<String>,
    surplus: Vec<String>,
    /// How many entries the surplus is, with all that is below.
    surplus_entries: usize,
}

/// What must change about a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Make it.
    Make(Access),
    /// Give it to an owner with a mode; several of these are one act.
    SetAccess { change: AccessChange, access: Access },
    /// Remove these from it.
    Purge { names: Vec<String>, entries: usize },
    /// Remove it, when it is empty.
    Remove,
    /// Remove it with so many entries that are in it.
    RemoveAll { entries: usize },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Make(_) => f.write_str("created"),
            Self::SetAccess { change, access: _ } => change.fmt(f),
            Self::Purge { names, entries } => {
                write!(f, "purged {}: ", counted(*entries))?;
                let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(String::as_str).collect();
                f.write_str(&shown.join(", "))?;
                match names.len() - shown.len() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::Remove => f.write_str("removed"),
            Self::RemoveAll { entries } => write!(f, "removed with the {} in it", counted(*entries)),
        }
    }
}

fn counted(entries: usize) -> String {
    if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        let ensure = |from: &str, to: &str| event_of("ensure", Some(from.into()), Some(to.into()));
        match self {
            Self::Make(_) => ensure("absent", "present"),
            Self::SetAccess { change, access: _ } => change.event(),
            Self::Purge { entries, .. } => event_of("surplus", Some(counted(*entries)), None),
            Self::Remove | Self::RemoveAll { .. } => ensure("present", "absent"),
        }
    }
}

impl Provider for DirectorySpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let wanted = match self.state {
            Presence::Present => Some(wanted_access(host, self.mode, &self.owner, &self.group)?),
            Presence::Absent => None,
        };
        let entry = host.entry(&self.path)?;
        let mut observed = Observed { entry, wanted, kept: Vec::new(), surplus: Vec::new(), surplus_entries: 0 };
        let is_directory = entry.is_some_and(|entry| entry.kind == EntryKind::Directory);
        let content_matters = self.purge || self.state == Presence::Absent;
        if !is_directory || !content_matters || is_protected(&self.path) {
            return Ok(observed);
        }
        let names = host.list_directory(&self.path)?.unwrap_or_default();
        (observed.kept, observed.surplus) =
            names.into_iter().partition(|name| self.keep.iter().any(|pattern| matches(pattern, name)));
        if self.purge {
            for name in &observed.surplus {
                if observed.surplus_entries <= MOST_REMOVED {
                    let rest = MOST_REMOVED - observed.surplus_entries;
                    observed.surplus_entries += host.count_tree(&format!("{}/{name}", self.path), rest)?;
                }
            }
        }
        Ok(observed)
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let path = &self.path;
        let refused = |why: String| Err(ProviderError::Refused(why));
        if (self.purge || self.state == Presence::Absent) && is_protected(path) {
            return refused(format!(
                "{path} belongs to the system and is never purged or removed; name a directory below it"
            ));
        }
        match observed.entry.map(|entry| entry.kind) {
            None | Some(EntryKind::Directory) => {}
            Some(EntryKind::SymbolicLink) => {
                return refused(format!("{path} is a symbolic link; name the directory that it leads to"));
            }
            Some(EntryKind::File | EntryKind::Special) => {
                return refused(format!("{path} is no directory; move it away, or choose another path"));
            }
        }
        if observed.surplus_entries > MOST_REMOVED {
            let most = MOST_REMOVED;
            return refused(format!(
                "{path} holds more than {most} entries to remove, which can hardly be meant; remove them by hand"
            ));
        }
        // Names come to us as text; what is no text could not be told from something else.
        if self.purge && observed.surplus.iter().any(|name| name.contains(char::REPLACEMENT_CHARACTER)) {
            return refused(format!("{path} holds an entry whose name is no UTF-8; remove it by hand"));
        }
        let Some(wanted) = observed.wanted else { return removal(self, observed) };
        let Some(entry) = observed.entry else { return Ok(vec![Change::Make(wanted)]) };
        // Closed first, if it was open to others: then nothing new comes.
        let access =
            AccessChange::between(entry.access, wanted).map(|change| Change::SetAccess { change, access: wanted });
        let purge = (!observed.surplus.is_empty() && self.purge)
            .then(|| Change::Purge { names: observed.surplus.clone(), entries: observed.surplus_entries });
        Ok(access.chain(purge).collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        let mut has_access = false;
        for change in changes {
            match change {
                Change::Make(access) => host.make_directory(&self.path, *access)?,
                Change::SetAccess { .. } if has_access => {}
                Change::SetAccess { access, .. } => {
                    host.set_directory_access(&self.path, *access)?;
                    has_access = true;
                }
                Change::Purge { names, .. } => {
                    for name in names {
                        host.remove_tree(&format!("{}/{name}", self.path))?;
                    }
                }
                Change::Remove => host.remove_directory(&self.path)?,
                Change::RemoveAll { .. } => host.remove_tree(&self.path)?,
            }
        }
        Ok(())
    }
}

/// What it takes for a directory to go.
fn removal(spec: &DirectorySpec, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
    let path = &spec.path;
    if observed.entry.is_none() {
        return Ok(Vec::new());
    }
    let refused = |why: String| Err(ProviderError::Refused(why));
    if let Some(kept) = observed.kept.first() {
        return refused(format!("{path} can not go, because {kept} in it is to be kept"));
    }
    match (observed.surplus.as_slice(), spec.purge) {
        ([], _) => Ok(vec![Change::Remove]),
        (_, true) => Ok(vec![Change::RemoveAll { entries: observed.surplus_entries }]),
        ([name, ..], false) => {
            refused(format!("{path} is not empty (it holds {name}); set purge to remove it with all that is in it"))
        }
    }
}

fn is_protected(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    path.is_empty()
        || PROTECTED.iter().any(|pattern| matches(pattern, path))
        || KERNELS.iter().any(|above| path.starts_with(above))
}

/// Whether a pattern, in which `*` stands for any characters but `/`, is for a name as a whole.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(head) else { return false };
    let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    ends.take_while(|end| !name.get(..*end).is_some_and(|skipped| skipped.contains('/')))
        .any(|end| name.get(end..).is_some_and(|name| matches(rest, name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::{MemoryHost, apply, check};

    const WANTED: Access = Access { mode: 0o755, user: 0, group: 4 };

    fn www() -> DirectorySpec {
        DirectorySpec {
            path: "/srv/www".into(),
            state: Presence::Present,
            mode: 0o755,
            owner: "0".into(),
            group: "adm".into(),
            purge: false,
            keep: vec![],
        }
    }

    fn purged(keep: &[&str]) -> DirectorySpec {
        DirectorySpec { purge: true, keep: keep.iter().map(|&name| name.to_owned()).collect(), ..www() }
    }

    fn full() -> MemoryHost {
        let host = MemoryHost::new().directory("/srv/www", WANTED).directory("/srv/www/b.d", WANTED);
        host.file("/srv/www/a.conf", "", WANTED).file("/srv/www/b.d/c", "", WANTED).file("/srv/www2", "", WANTED)
    }

    #[test]
    fn says_what_changes() {
        let spec = www();
        check(&spec, &MemoryHost::new(), "created");
        check(&spec, &MemoryHost::new().directory("/srv/www", WANTED), "");
        check(&spec, &full(), "");
        let open = Access { mode: 0o777, user: 0, group: 0 };
        let host = MemoryHost::new().directory("/srv/www", open);
        check(&spec, &host, "owner 0:0 -> 0:4; mode 0777 -> 0755");
        apply(&spec, &host).unwrap();
        assert_eq!(host.log(), "set access of /srv/www");
        for spec in [www(), purged(&[]), DirectorySpec { state: Presence::Absent, ..www() }] {
            let link = "refused: /srv/www is a symbolic link; name the directory that it leads to";
            check(&spec, &MemoryHost::new().special("/srv/www", EntryKind::SymbolicLink), link);
            let file = "refused: /srv/www is no directory; move it away, or choose another path";
            check(&spec, &MemoryHost::new().file("/srv/www", "", WANTED), file);
        }
    }

    #[test]
    fn purges_what_is_not_kept() {
        check(&purged(&[]), &MemoryHost::new(), "created");
        check(&purged(&[]), &MemoryHost::new().directory("/srv/www", WANTED), "");
        check(&purged(&[]), &full(), "purged 3 entries: a.conf, b.d");
        check(&purged(&["b.d"]), &full(), "purged 1 entry: a.conf");
        check(&purged(&["*.conf", "b*"]), &full(), "");
        let host = full();
        apply(&purged(&["*.conf"]), &host).unwrap();
        assert_eq!(host.log(), "remove all of /srv/www/b.d");
        let many = (0..9).fold(full(), |host, n| host.file(&format!("/srv/www/{n}"), "", WANTED));
        check(&purged(&["b.d"]), &many, "purged 10 entries: 0, 1, 2, 3, 4 and 5 more");
        let open =
            MemoryHost::new().directory("/srv/www", Access { mode: 0o777, ..WANTED }).file("/srv/www/a", "", WANTED);
        check(&purged(&[]), &open, "mode 0777 -> 0755; purged 1 entry: a");
    }

    #[test]
    fn goes_when_it_is_empty_or_with_everything() {
        let gone = |purge, keep: &[&str]| DirectorySpec {
            state: Presence::Absent,
            purge,
            owner: "nobody knows".into(),
            ..purged(keep)
        };
        let empty = || MemoryHost::new().directory("/srv/www", WANTED);
        check(&gone(false, &[]), &MemoryHost::new(), "");
        check(&gone(false, &[]), &empty(), "removed");
        check(&gone(true, &[]), &full(), "removed with the 3 entries in it");
        let refused = "refused: /srv/www is not empty (it holds a.conf); set purge to remove it with all that is in it";
        check(&gone(false, &[]), &full(), refused);
        let refused = "refused: /srv/www can not go, because a.conf in it is to be kept";
        check(&gone(true, &["a*"]), &full(), refused);
        let host = full();
        apply(&gone(true, &[]), &host).unwrap();
        assert_eq!(host.log(), "remove all of /srv/www");
        let host = empty();
        apply(&gone(false, &[]), &host).unwrap();
        assert_eq!(host.log(), "remove /srv/www");
    }

    #[test]
    fn never_too_much_and_never_what_the_system_needs() {
        let host = (0..=MOST_REMOVED).fold(full(), |host, n| host.file(&format!("/srv/www/b.d/{n}"), "", WANTED));
        let refused =
            "refused: /srv/www holds more than 10000 entries to remove, which can hardly be meant; remove them by hand";
        check(&purged(&[]), &host, refused);
        let nameless = MemoryHost::new().directory("/srv/www", WANTED).file("/srv/www/caf\u{fffd}", "", WANTED);
        let refused = "refused: /srv/www holds an entry whose name is no UTF-8; remove it by hand";
        check(&purged(&[]), &nameless, refused);
        for (path, is) in [
            ("/", true),
            ("/etc", true),
            ("/etc/", true),
            ("/lib", true),
            ("/lib64", true),
            ("/usr/lib32", true),
            ("/proc/sys", true),
            ("/dev/shm/x", true),
            ("/etc/nginx", false),
            ("/lib/modules", false),
            ("/library/x", false),
            ("/var/www", false),
            ("/run/app", false),
        ] {
            assert_eq!(is_protected(path), is, "{path}");
        }
        for state in [Presence::Present, Presence::Absent] {
            let spec = DirectorySpec { path: "/var".into(), state, ..purged(&[]) };
            let refused =
                "refused: /var belongs to the system and is never purged or removed; name a directory below it";
            check(&spec, &MemoryHost::new().directory("/var", WANTED), refused);
        }
    }

    #[test]
    fn a_star_stands_for_any_characters_within_a_name() {
        for (pattern, name, is) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "a.b", true),
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "a", true),
            ("a*", "a/b", false),
            ("\u{e9}*", "\u{e9}t\u{e9}", true),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} {name}");
        }
    }
}
