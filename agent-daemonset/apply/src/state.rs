//! The folder on the machine in which the agent remembers things across runs, crashes and reboots.
//!
//! Only root may look into it, and each file in it is replaced at once, so a kill at any moment leaves the old one or
//! the new one. What is remembered is the business of whoever writes it: [`Pending`] here, the agent for its own.

mod applied;
mod backups;
mod digests;
mod pending;

use std::{io, os::fd::OwnedFd, path::Path};

pub use applied::Applied;
pub(crate) use backups::LARGEST as LARGEST_BACKUP;
pub use backups::{Backup, Backups};
pub(crate) use digests::Digests;
pub use pending::Pending;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tracing::warn;

use crate::host::{Access, HostError, Tree};

/// A folder of small files, inside a machine's root.
#[derive(Debug)]
pub struct StateDir {
    tree: Tree,
    folder: String,
}

impl StateDir {
    /// The folder at an absolute path of the machine below `root`. It is made when something is first written.
    pub fn new(root: &Path, folder: &str) -> Result<Self, StateError> {
        let folder = folder.trim_end_matches('/');
        if !folder.starts_with('/') {
            return Err(StateError::NotAbsolute { folder: folder.to_owned() });
        }
        Ok(Self { tree: Tree::open(root)?, folder: folder.to_owned() })
    }

    /// A file's content. `None` where there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.tree.read_file(&self.path(name))?)
    }

    /// A file's content, as JSON. `None` where there is none.
    pub fn read_json<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StateError> {
        let Some(text) = self.read(name)? else { return Ok(None) };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| StateError::Damaged { name, source: io::Error::from(error) })
    }

    /// Writes a value as JSON; see [`StateDir::write`].
    pub fn write_json<T: Serialize>(&self, name: &'static str, value: &T) -> Result<(), StateError> {
        let text =
            serde_json::to_vec(value).map_err(|error| StateError::Damaged { name, source: io::Error::from(error) })?;
        self.write(name, &text)
    }

    /// The copies of what was replaced.
    pub fn backups(&self) -> Backups<'_> {
        Backups::new(self)
    }

    /// Writes a file that only root can read; it is on disk when this returns.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        self.make_folder()?;
        Ok(self.tree.write_file(&self.path(name), content, own(0o600))?)
    }

    /// Whether a file is there.
    fn has(&self, name: &str) -> Result<bool, StateError> {
        Ok(self.tree.entry(&self.path(name))?.is_some())
    }

    /// The names in a folder within this one.
    fn list(&self, folder: &str) -> Result<Vec<String>, StateError> {
        Ok(self.tree.list_directory(&self.path(folder))?.unwrap_or_default())
    }

    /// Makes a folder within this one, and removes what a killed run left half-written in it.
    fn make_subfolder(&self, name: &str) -> Result<(), StateError> {
        self.make_folder()?;
        let folder = self.path(name);
        match self.tree.entry(&folder)? {
            Some(entry) if entry.access == own(0o700) => {}
            Some(_) => self.tree.set_directory_access(&folder, own(0o700))?,
            None => self.tree.make_directory(&folder, own(0o700))?,
        }
        Ok(self.tree.remove_leftovers(&folder)?)
    }

    /// Removes a file. None there is fine.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        Ok(self.tree.remove_file(&self.path(name))?)
    }

    /// Keeps other runs away from this machine until the lock is dropped, or this process ends. `None` when another run
    /// has it. What a killed run left half-written in the folder is removed.
    pub fn try_lock(&self) -> Result<Option<RunLock>, StateError> {
        self.make_folder()?;
        let Some(lock) = self.tree.try_lock(&self.folder)? else { return Ok(None) };
        if let Err(error) = self.tree.remove_leftovers(&self.folder) {
            warn!(%error, "could not tidy up after an earlier run");
        }
        Ok(Some(RunLock(lock)))
    }

    fn make_folder(&self) -> Result<(), StateError> {
        match self.tree.entry(&self.folder)? {
            Some(entry) if entry.access == own(0o700) => {}
            Some(_) => self.tree.set_directory_access(&self.folder, own(0o700))?,
            None => {
                for (end, _) in self.folder.match_indices('/').skip(1) {
                    let parent = self.folder.get(..end).unwrap_or_default();
                    if self.tree.entry(parent)?.is_none() {
                        self.tree.make_directory(parent, own(0o755))?;
                    }
                }
                self.tree.make_directory(&self.folder, own(0o700))?;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}

/// The right to be the only run on a machine.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "the lock lasts as long as the folder is open")] OwnedFd);

/// Access for the user that the agent runs as.
fn own(mode: u32) -> Access {
    Access { mode, user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() }
}

/// Why something could not be remembered.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file system refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The folder's path is relative.
    #[error("the state folder {folder:?} must be an absolute path of the machine")]
    NotAbsolute {
        /// The path.
        folder: String,
    },
    /// A file does not hold what was written there.
    #[error(
        "could not understand {name} in the state folder: {source}; remove it and restart by hand what its changes notify"
    )]
    Damaged {
        /// The file.
        name: &'static str,
        /// What is wrong with it.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn only_its_owner_can_look_into_it() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/var/lib/drover").unwrap();
        assert_eq!(state.read("catalog.json").unwrap(), None);
        state.write("catalog.json", b"moo").unwrap();
        assert_eq!(state.read("catalog.json").unwrap().unwrap(), b"moo");
        assert_eq!(mode(&root.path().join("var/lib/drover")), 0o700);
        assert_eq!(mode(&root.path().join("var/lib/drover/catalog.json")), 0o600);
        state.remove("catalog.json").unwrap();
        assert_eq!(state.read("catalog.json").unwrap(), None);
    }

    #[test]
    fn one_run_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/state").unwrap();
        let lock = state.try_lock().unwrap().unwrap();
        assert!(state.try_lock().unwrap().is_none());
        drop(lock);
        assert!(state.try_lock().unwrap().is_some());
    }

    #[test]
    fn what_a_killed_run_left_half_written_is_removed_by_the_next() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/state").unwrap();
        state.write("kept", b"moo").unwrap();
        let leftover = root.path().join("state/.drover-1-0.tmp");
        std::fs::write(&leftover, "m").unwrap();
        let lock = state.try_lock().unwrap();
        assert!(lock.is_some() && !leftover.exists());
        assert_eq!(state.read("kept").unwrap().unwrap(), b"moo");
    }

    #[test]
    fn a_folder_that_others_can_read_is_closed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("state")).unwrap();
        StateDir::new(root.path(), "/state/").unwrap().write("x", b"").unwrap();
        assert_eq!(mode(&root.path().join("state")), 0o700);
    }

    #[test]
    fn an_absolute_link_on_the_way_stays_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("disk/lib")).unwrap();
        // A link in a folder that its group can write, as some umasks make it, is not followed.
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/disk", root.path().join("var")).unwrap();
        StateDir::new(root.path(), "/var/lib/drover").unwrap().write("x", b"moo").unwrap();
        assert_eq!(std::fs::read(root.path().join("disk/lib/drover/x")).unwrap(), b"moo");
    }
}
