//! Somebody who reads the machine's files all the time, and must never see anything but the old state or the new one.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::machine::Found;

/// A path and what may be there.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) path: String,
    pub(crate) old: Found,
    pub(crate) new: Found,
}

/// What a reader saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How often it looked at a path.
    pub(crate) looks: u64,
    /// What it should not have seen.
    pub(crate) wrong: BTreeSet<String>,
}

/// Reads until it is told to stop, and once more.
pub(crate) fn read(root: &Path, watched: &[Watched], stop: &AtomicBool) -> Seen {
    let paths: Vec<PathBuf> = watched.iter().map(|one| root.join(one.path.trim_start_matches('/'))).collect();
    let mut seen = Seen::default();
    loop {
        let last = stop.load(Ordering::Acquire);
        for (one, path) in watched.iter().zip(&paths) {
            seen.looks += 1;
            match Found::at(path) {
                Ok(found) if found == one.old || found == one.new => {}
                Ok(found) => {
                    seen.wrong.insert(format!("a reader saw {} as {}", one.path, found.describe()));
                }
                Err(error) => {
                    seen.wrong.insert(format!("a reader could not read {}: {error}", one.path));
                }
            }
        }
        if last {
            return seen;
        }
        // The agent is to make headway on few processors too.
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_old_nor_new_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| Found::at(&root.path().join(name)).unwrap();
        for name in ["old", "new", "torn"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let see = |name: &str, old: Found| {
            let watched = [Watched { path: format!("/{name}"), old, new: at("new") }];
            read(root.path(), &watched, &AtomicBool::new(true)).wrong.len()
        };
        assert_eq!(see("old", at("old")), 0);
        assert_eq!(see("new", at("old")), 0);
        assert_eq!(see("torn", at("old")), 1);
        assert_eq!(see("missing", at("old")), 1);
        assert_eq!(see("missing", Found::Nothing), 0);
    }
}
