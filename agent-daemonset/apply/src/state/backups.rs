//! Copies of what was replaced, by their content, and a list of what was where.
//!
//! The list may lag behind the copies after a crash; it never tears, and a copy that it does not name is removed with the
//! next one that is kept.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use drover_catalog::Digest;
use serde::{Deserialize, Serialize};

use super::{StateDir, StateError};

const INDEX: &str = "backups.json";
const PREFIX: &str = "backup-";

/// A larger file is not kept.
const LARGEST: usize = 10 << 20;
/// So many bytes are kept in all; the oldest go first.
const MOST_BYTES: u64 = 100 << 20;
/// So many copies are listed at most.
const MOST_ENTRIES: usize = 2000;

/// A copy of a file that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Where the file was.
    pub path: String,
    /// The SHA-256 of its content.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// When it was replaced, in seconds since 1970.
    pub replaced_at: u64,
}

/// The copies that a machine keeps.
#[derive(Clone, Copy, Debug)]
pub struct Backups<'a> {
    state: &'a StateDir,
}

impl<'a> Backups<'a> {
    pub(super) fn new(state: &'a StateDir) -> Self {
        Self { state }
    }

    /// What is kept, the oldest first.
    pub fn list(self) -> Result<Vec<Backup>, StateError> {
        Ok(self.state.read_json(INDEX)?.unwrap_or_default())
    }

    /// The content of a copy. `None` where there is none.
    pub fn read(self, digest: &Digest) -> Result<Option<Vec<u8>>, StateError> {
        self.state.read(&file(digest))
    }

    /// Keeps a copy of a file that is about to be replaced, unless it is larger than 10 MiB.
    pub(crate) fn keep(self, path: &str, content: &[u8]) -> Result<(), StateError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.keep_at(path, content, now)
    }

    fn keep_at(self, path: &str, content: &[u8], now: u64) -> Result<(), StateError> {
        if content.len() > LARGEST {
            tracing::debug!(path, bytes = content.len(), "too large for a copy of what is replaced");
            return Ok(());
        }
        let digest = Digest::of(content);
        let before = self.list()?;
        if before.last().is_some_and(|last| last.path == path && last.digest == digest) {
            return Ok(());
        }
        self.state.write(&file(&digest), content)?;
        let new = Backup { path: path.to_owned(), digest, bytes: content.len() as u64, replaced_at: now };
        let (kept, gone) = bounded(before, new);
        self.state.write_json(INDEX, &kept)?;
        let needed: BTreeSet<&Digest> = kept.iter().map(|backup| &backup.digest).collect();
        gone.iter()
            .filter(|backup| !needed.contains(&backup.digest))
            .try_for_each(|backup| self.state.remove(&file(&backup.digest)))
    }
}

fn file(digest: &Digest) -> String {
    format!("{PREFIX}{digest}")
}

/// The list with a new copy, and what must go for it: the oldest.
fn bounded(mut backups: Vec<Backup>, new: Backup) -> (Vec<Backup>, Vec<Backup>) {
    backups.push(new);
    let mut first = backups.len();
    let mut bytes = 0;
    while let Some(backup) = first.checked_sub(1).and_then(|before| backups.get(before)) {
        bytes += backup.bytes;
        if bytes > MOST_BYTES || backups.len() - first >= MOST_ENTRIES {
            break;
        }
        first -= 1;
    }
    let kept = backups.split_off(first);
    (kept, backups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(path: &str, bytes: u64) -> Backup {
        Backup { path: path.into(), digest: Digest::of(path.as_bytes()), bytes, replaced_at: 7 }
    }

    #[test]
    fn a_copy_comes_back_and_equal_content_is_kept_once() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/state").unwrap();
        let backups = state.backups();
        for (path, content) in [("/a", "v1"), ("/a", "v1"), ("/b", "v1"), ("/a", "v2")] {
            backups.keep_at(path, content.as_bytes(), 7).unwrap();
        }
        let listed: Vec<(String, u64)> =
            backups.list().unwrap().into_iter().map(|backup| (backup.path, backup.bytes)).collect();
        assert_eq!(listed, [("/a".to_owned(), 2), ("/b".to_owned(), 2), ("/a".to_owned(), 2)]);
        assert_eq!(backups.read(&Digest::of(b"v1")).unwrap().unwrap(), b"v1");
        assert_eq!(backups.read(&Digest::of(b"none")).unwrap(), None);
        let files = std::fs::read_dir(root.path().join("state")).unwrap().count();
        assert_eq!(files, 3, "two copies and the list");
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_much() {
        let many: Vec<Backup> = (0..MOST_ENTRIES).map(|number| backup(&format!("/{number}"), 1)).collect();
        let (kept, gone) = bounded(many, backup("/new", 1));
        assert_eq!((kept.len(), gone.len(), gone[0].path.as_str()), (MOST_ENTRIES, 1, "/0"));
        let (kept, gone) = bounded(vec![backup("/old", MOST_BYTES), backup("/b", 1)], backup("/new", 1));
        assert_eq!((kept.len(), gone.len()), (2, 1));
    }

    #[test]
    fn a_large_file_is_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/state").unwrap();
        state.backups().keep_at("/a", &vec![0; LARGEST + 1], 7).unwrap();
        assert_eq!(state.backups().list().unwrap(), []);
    }
}
