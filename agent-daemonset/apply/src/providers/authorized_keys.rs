//! Keys that may log in as a user, in the `authorized_keys` file of sshd(8).
//!
//! The file is written as a whole, belongs to the user and is closed to all others; sshd refuses it otherwise. Lines that
//! are no key (comments, and what this agent does not understand) stay, unless the keys are exclusive: what this agent
//! does not understand may let somebody in.

mod line;

use std::fmt;

use drover_catalog::{AuthorizedKeysSpec, Presence, PropertyEvent};
use line::Key;

use super::{Contents, Provider, ProviderError, access_changes, event_of};
use crate::{
    account_files::users,
    host::{Access, EntryKind, Host, HostError},
};

/// How large the file may be, in bytes: its owner can make it as large as they like.
const LARGEST: u64 = 1 << 20;

/// The file as it is.
pub(crate) struct Observed {
    /// `None` where the user is not there.
    place: Option<Place>,
}

/// Where the keys are, and what is there.
struct Place {
    path: String,
    /// Where the file must be made in a folder that must be made first.
    missing_folder: Option<String>,
    content: String,
    found: Option<Access>,
    wanted: Access,
}

/// What must change about the keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    what: What,
    /// The same in each change of one resource: they are made at once.
    file: File,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: String,
    missing_folder: Option<String>,
    content: String,
    access: Access,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Added(String),
    /// Its options or its comment.
    Changed(String),
    Removed(String),
    /// So many lines that are no key, or repeat one.
    LinesRemoved(usize),
    /// Owner or mode, in words.
    Access(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Added(key) => write!(f, "key added: {key}"),
            What::Changed(key) => write!(f, "options or comment changed: {key}"),
            What::Removed(key) => write!(f, "key removed: {key}"),
            What::LinesRemoved(1) => f.write_str("1 other line removed"),
            What::LinesRemoved(lines) => write!(f, "{lines} other lines removed"),
            What::Access(words) => f.write_str(words),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match &self.what {
            What::Added(key) => event_of("key", None, Some(key.clone())),
            What::Changed(key) => event_of("options", None, Some(key.clone())),
            What::Removed(key) => event_of("key", Some(key.clone()), None),
            What::LinesRemoved(lines) => event_of("lines", Some(lines.to_string()), None),
            What::Access(words) => event_of("access", None, Some(words.clone())),
        }
    }
}

impl Provider for AuthorizedKeysSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let passwd = host.read_file("/etc/passwd")?.unwrap_or_default();
        let passwd = String::from_utf8_lossy(&passwd);
        let Some(user) = users(&passwd).find(|user| user.name == self.user) else {
            if self.state == Presence::Absent {
                return Ok(Observed { place: None });
            }
            return Err(HostError::NoAccount { kind: "user", name: self.user.clone() }.into());
        };
        if self.path.is_none() && !user.home.starts_with('/') {
            let refusal = format!("the user {} has no home directory in /etc/passwd; give the file by path", self.user);
            return Err(ProviderError::Refused(refusal));
        }
        let folder = format!("{}/.ssh", user.home.trim_end_matches('/'));
        let path = self.path.clone().unwrap_or_else(|| format!("{folder}/authorized_keys"));
        let in_ssh_folder = path.strip_prefix(&folder).is_some_and(|name| name.rfind('/') == Some(0));
        let missing_folder = (in_ssh_folder && host.entry(&folder)?.is_none()).then_some(folder);
        let (entry, content) = host.read_entry(&path, LARGEST)?.unzip();
        // The user may have put a link there that leads to a file which only root can read, and would get a copy of it.
        if entry.is_some_and(|entry| entry.kind != EntryKind::File) {
            let refusal = format!("{path} is no regular file, and is not followed; remove it");
            return Err(ProviderError::Refused(refusal));
        }
        // The same in another way, where fs.protected_hardlinks is off.
        if entry.is_some_and(|entry| entry.has_other_names) {
            let advice = "and what is in it may be another file's; remove it, or make it a copy of its own";
            return Err(ProviderError::Refused(format!("{path} is a hard link of a file with another name, {advice}")));
        }
        let content = content.unwrap_or_default();
        let content = String::from_utf8(content).map_err(|_| {
            ProviderError::Refused(format!("{path} is no text in UTF-8; move it away, and it is written anew"))
        })?;
        let wanted = Access { mode: 0o600, user: user.uid, group: user.gid };
        let found = entry.map(|entry| entry.access);
        Ok(Observed { place: Some(Place { path, missing_folder, content, found, wanted }) })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let keys = wanted(&self.keys)?;
        let Some(Place { path, missing_folder, content: before, found, wanted: access }) = &observed.place else {
            return Ok(Vec::new());
        };
        let (content, mut changes) = match self.state {
            Presence::Present => with_keys(before, &keys, self.exclusive),
            Presence::Absent => without_keys(before, &keys),
        };
        if self.state == Presence::Present
            && let Some(found) = found
        {
            changes.extend(access_changes(*found, *access).into_iter().map(What::Access));
        }
        let file = File { path: path.clone(), missing_folder: missing_folder.clone(), content, access: *access };
        Ok(changes.into_iter().map(|what| Change { what, file: file.clone() }).collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        let Some(Change { file: File { path, missing_folder, content, access }, what: _ }) = changes.first() else {
            return Ok(());
        };
        if let Some(folder) = missing_folder {
            host.make_directory(folder, Access { mode: 0o700, ..*access })?;
        }
        Ok(host.write_file(path, content.as_bytes(), *access, None).await?)
    }

    fn contents(&self, host: &impl Host, changes: &[Change]) -> Result<Option<Contents>, ProviderError> {
        let Some(Change { file: File { path, content, .. }, what: _ }) = changes.first() else {
            return Ok(None);
        };
        let before = host.read_entry(path, LARGEST)?.map(|(_, content)| content);
        Ok(Some(Contents { path: path.clone(), before, public: false, after: Some(content.clone().into_bytes()) }))
    }
}

/// The keys that are wanted. A line that is none is named by its place: it may be a private key.
fn wanted(lines: &[String]) -> Result<Vec<Key<'_>>, ProviderError> {
    let mut keys: Vec<Key<'_>> = Vec::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        let advice = "write it as in a .pub file: type, base64, comment, and options before them";
        let key = Key::parse(line)
            .ok_or_else(|| ProviderError::Refused(format!("keys[{at}] is no line of authorized_keys; {advice}")))?;
        if keys.iter().any(|other| other.is_same_key(&key)) {
            return Err(ProviderError::Refused(format!("keys[{at}] is the same key as one before it; leave one out")));
        }
        keys.push(key);
    }
    Ok(keys)
}

/// The file with these keys, each once; and what differs.
fn with_keys(before: &str, keys: &[Key<'_>], exclusive: bool) -> (String, Vec<What>) {
    let mut lines: Vec<String> = Vec::new();
    let mut changes = Vec::new();
    let mut others = 0;
    let mut seen = vec![false; keys.len()];
    for line in before.lines() {
        let found = Key::parse(line);
        let place = found.and_then(|found| keys.iter().position(|key| key.is_same_key(&found)));
        match (found, place.and_then(|at| Some((keys.get(at)?, seen.get_mut(at)?)))) {
            // sshd takes the first line, and with it its options.
            (Some(_), Some((_, seen))) if *seen => others += 1,
            (Some(found), Some((key, seen))) => {
                *seen = true;
                if found == *key {
                    lines.push(line.to_owned());
                } else {
                    lines.push(key.line());
                    changes.push(What::Changed(key.to_string()));
                }
            }
            (Some(found), None) if exclusive => changes.push(What::Removed(found.to_string())),
            (None, _) if exclusive => others += 1,
            _ => lines.push(line.to_owned()),
        }
    }
    for (key, _) in keys.iter().zip(seen).filter(|(_, seen)| !seen) {
        lines.push(key.line());
        changes.push(What::Added(key.to_string()));
    }
    changes.extend((others > 0).then_some(What::LinesRemoved(others)));
    (text(&lines), changes)
}

/// The file without these keys, and what differs.
fn without_keys(before: &str, keys: &[Key<'_>]) -> (String, Vec<What>) {
    let mut lines: Vec<String> = Vec::new();
    let mut changes = Vec::new();
    for line in before.lines() {
        match Key::parse(line) {
            Some(found) if keys.iter().any(|key| key.is_same_key(&found)) => {
                changes.push(What::Removed(found.to_string()));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    (text(&lines), changes)
}

fn text(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests;
