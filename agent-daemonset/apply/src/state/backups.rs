//! Copies of what was replaced.
//!
//! `backups/` in the state folder holds each content once, in a file named by its SHA-256, and `index.jsonl`, which says
//! what was where: one JSON object a line, oldest first. The index is replaced as a whole after a content was added and before
//! any is removed, so a kill at any moment leaves at most a content that it does not name; the next copy removes that.
//!
//! Only root can read any of it, and the engine keeps nothing that is, or was, a secret.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use drover_catalog::Digest;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::{StateDir, StateError};

/// A larger content is not kept, in bytes.
pub(crate) const LARGEST: u64 = 10 << 20;
/// All contents together are no larger, in bytes.
const MOST_BYTES: u64 = 100 << 20;
/// There are no more entries.
const MOST_ENTRIES: usize = 2_000;

const FOLDER: &str = "backups";
const INDEX: &str = "backups/index.jsonl";

/// A copy of what was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Where it was.
    pub path: String,
    /// Its SHA-256, by which [`Backups::read`] finds it.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// When it was last replaced, in seconds since 1970.
    pub replaced_at: u64,
}

/// The copies that a machine keeps: at most 2,000, of 100 MiB in all. The oldest make room for new ones.
#[derive(Debug)]
pub struct Backups<'a> {
    state: &'a StateDir,
}

impl<'a> Backups<'a> {
    pub(super) fn new(state: &'a StateDir) -> Self {
        Self { state }
    }

    /// Keeps a copy of a file that is about to be replaced or removed, unless it is larger than 10 MiB.
    pub(crate) fn keep(&self, path: &str, content: &[u8]) -> Result<(), StateError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.keep_at(path, content, now)
    }

    fn keep_at(&self, path: &str, content: &[u8], now: u64) -> Result<(), StateError> {
        let bytes = content.len() as u64;
        if bytes > LARGEST {
            debug!(path, bytes, "too large to keep a copy of");
            return Ok(());
        }
        self.state.make_subfolder(FOLDER)?;
        let backup = Backup { path: path.to_owned(), digest: Digest::of(content), bytes, replaced_at: now };
        let file = format!("{FOLDER}/{}", backup.digest);
        if !self.state.has(&file)? {
            self.state.write(&file, content)?;
        }
        let backups = with(self.list()?, backup);
        let mut index = Vec::new();
        for backup in &backups {
            serde_json::to_writer(&mut index, backup)
                .map_err(|error| StateError::Damaged { name: INDEX, source: error.into() })?;
            index.push(b'\n');
        }
        self.state.write(INDEX, &index)?;
        self.remove_others(&backups)
    }

    /// All copies, the one that was replaced last at the end.
    pub fn list(&self) -> Result<Vec<Backup>, StateError> {
        let index = self.state.read(INDEX)?.unwrap_or_default();
        let lines = index.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines
            .filter_map(|line| {
                // One that cannot be read is no reason to lose the others.
                let backup = serde_json::from_slice(line);
                backup.inspect_err(|error| warn!(%error, "a line of the index of backups is damaged")).ok()
            })
            .filter(|backup: &Backup| is_digest(backup.digest.as_str()))
            .collect())
    }

    /// A copy, by the 64 hexadecimal digits of its SHA-256. `None` where there is none, or where it is damaged.
    pub fn read(&self, digest: &str) -> Result<Option<Vec<u8>>, StateError> {
        if !is_digest(digest) {
            return Ok(None);
        }
        let content = self.state.read(&format!("{FOLDER}/{digest}"))?;
        Ok(content.filter(|content| Digest::of(content).as_str() == digest))
    }

    fn remove_others(&self, backups: &[Backup]) -> Result<(), StateError> {
        let named: BTreeSet<&str> = backups.iter().map(|backup| backup.digest.as_str()).collect();
        for name in self.state.list(FOLDER)? {
            if is_digest(&name) && !named.contains(name.as_str()) {
                self.state.remove(&format!("{FOLDER}/{name}"))?;
            }
        }
        Ok(())
    }
}

/// Adds a copy, in place of an equal one, and leaves out the oldest that there is no room for.
fn with(mut backups: Vec<Backup>, new: Backup) -> Vec<Backup> {
    backups.retain(|old| (&old.path, &old.digest) != (&new.path, &new.digest));
    backups.push(new);
    let mut digests = BTreeSet::new();
    let mut bytes = 0;
    let newest = backups.iter().rev().take(MOST_ENTRIES).take_while(|backup| {
        // Each content is there once, however many files had it.
        if digests.insert(&backup.digest) {
            bytes += backup.bytes;
        }
        bytes <= MOST_BYTES
    });
    let fits = newest.count();
    backups.split_off(backups.len() - fits)
}

fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/state").unwrap();
        (root, state)
    }

    fn backup(path: &str, content: &str, bytes: u64, replaced_at: u64) -> Backup {
        Backup { path: path.into(), digest: Digest::of(content.as_bytes()), bytes, replaced_at }
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_was_replaced_can_be_read_again_by_root_alone() {
        let (root, state) = state();
        let backups = state.backups();
        assert_eq!(backups.list().unwrap(), []);
        backups.keep_at("/etc/motd", b"old", 1).unwrap();
        backups.keep_at("/etc/issue", b"old", 2).unwrap();
        backups.keep_at("/etc/motd", b"older", 3).unwrap();
        let expected =
            [backup("/etc/motd", "old", 3, 1), backup("/etc/issue", "old", 3, 2), backup("/etc/motd", "older", 5, 3)];
        assert_eq!(backups.list().unwrap(), expected);
        // The same once more is the same with a new time.
        backups.keep_at("/etc/motd", b"old", 4).unwrap();
        assert_eq!(backups.list().unwrap().last().unwrap(), &backup("/etc/motd", "old", 3, 4));
        assert_eq!(backups.list().unwrap().len(), 3);
        let digest = Digest::of(b"old");
        assert_eq!(backups.read(digest.as_str()).unwrap().unwrap(), b"old");
        assert_eq!(backups.read(Digest::of(b"none").as_str()).unwrap(), None);
        assert_eq!(backups.read("../catalog.json").unwrap(), None);
        let folder = root.path().join("state/backups");
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join(digest.as_str())), 0o600);
        assert_eq!(mode(&folder.join("index.jsonl")), 0o600);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut backups = Vec::new();
        for n in 0..MOST_ENTRIES as u64 + 3 {
            backups = with(backups, backup("/a", &n.to_string(), 1, n));
        }
        assert_eq!((backups.len(), backups[0].replaced_at), (MOST_ENTRIES, 3));
        // By bytes: eleven of the largest are too many, however many files had the same content.
        let mut backups = Vec::new();
        for n in 0..11 {
            backups = with(backups, backup("/a", &n.to_string(), LARGEST, n));
            backups = with(backups, backup("/b", &n.to_string(), LARGEST, n));
        }
        assert_eq!((backups.len(), backups[0].replaced_at), (20, 1));
    }

    #[test]
    fn contents_that_the_index_does_not_name_go() {
        let (root, state) = state();
        let backups = state.backups();
        backups.keep_at("/a", b"one", 1).unwrap();
        let folder = root.path().join("state/backups");
        // As a kill between the content and the index leaves it.
        let lost = Digest::of(b"lost");
        fs::write(folder.join(lost.as_str()), "lost").unwrap();
        fs::write(folder.join(".drover-1-1.tmp"), "half").unwrap();
        fs::write(folder.join("notes"), "an administrator's").unwrap();
        backups.keep_at("/a", b"two", 2).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let mut expected =
            [Digest::of(b"one").to_string(), Digest::of(b"two").to_string(), "index.jsonl".into(), "notes".into()];
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_damaged_line_or_content_harms_no_other() {
        let (root, state) = state();
        let backups = state.backups();
        backups.keep_at("/a", b"one", 1).unwrap();
        backups.keep_at("/b", b"two", 2).unwrap();
        let index = root.path().join("state/backups/index.jsonl");
        let text = fs::read_to_string(&index).unwrap();
        fs::write(
            &index,
            format!("{{\"path\n{text}{{\"path\":\"/x\",\"digest\":\"../x\",\"bytes\":1,\"replaced_at\":1}}\n"),
        )
        .unwrap();
        assert_eq!(backups.list().unwrap().len(), 2);
        let one = Digest::of(b"one");
        fs::write(root.path().join("state/backups").join(one.as_str()), "not one").unwrap();
        assert_eq!(backups.read(one.as_str()).unwrap(), None);
        assert_eq!(backups.read(Digest::of(b"two").as_str()).unwrap().unwrap(), b"two");
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let (root, state) = state();
        let size = usize::try_from(LARGEST).unwrap();
        state.backups().keep_at("/a", &vec![0; size + 1], 1).unwrap();
        assert!(!root.path().join("state").exists());
        state.backups().keep_at("/a", &vec![0; size], 1).unwrap();
        assert_eq!(state.backups().list().unwrap().len(), 1);
    }
}
