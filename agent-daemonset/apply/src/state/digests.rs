//! Digests of files that were read whole: one that has not changed since is not read again. A download may have
//! gigabytes, and is looked at in each run.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    time::{SystemTime, UNIX_EPOCH},
};

use drover_catalog::Digest;
use serde::{Deserialize, Serialize};

use super::{StateDir, StateError};
use crate::host::FileVersion;

const FILE: &str = "digests.json";

/// Only of a file that was left alone for so many seconds is the digest remembered. The kernel's clock for changes has
/// ticks, and what is written to mapped memory may be noted as late as it goes to disk.
const SETTLED: i64 = 60;

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The number of its file system.
    device: u64,
    version: FileVersion,
    digest: Digest,
}

/// Digests of files.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    /// By the digests of their paths: a path may be called by a secret.
    on_disk: BTreeMap<Digest, Known>,
    /// Those that were asked for in this life; the others are gone.
    current: RefCell<BTreeMap<Digest, Known>>,
}

impl Digests {
    /// What earlier runs read. Where that can not be told, files are read again.
    pub(crate) fn load(state: &StateDir) -> Self {
        let on_disk = state.read_json(FILE).ok().flatten().unwrap_or_default();
        Self { on_disk, current: RefCell::default() }
    }

    /// The digest of an open file, which is at a path.
    pub(crate) fn of(&self, path: &str, file: &File, now: SystemTime) -> io::Result<Digest> {
        let (device, version) = look_at(file)?;
        let key = Digest::of(path.as_bytes());
        let known = self.on_disk.get(&key).filter(|known| (known.device, known.version) == (device, version));
        if let Some(known) = known {
            self.current.borrow_mut().insert(key, known.clone());
            return Ok(known.digest.clone());
        }
        let digest = Digest::of_reader(file)?;
        let now = now.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
        // `None` and less than 0: the clock was set back, so it does not tell one change from another.
        let is_settled = now.is_some_and(|now| now.saturating_sub(version.changed.0) >= SETTLED);
        if is_settled && look_at(file)? == (device, version) {
            self.current.borrow_mut().insert(key, Known { device, version, digest: digest.clone() });
        }
        Ok(digest)
    }

    /// Writes down what was asked for, if it is not what is on disk already.
    pub(crate) fn keep(&self, state: &StateDir) -> Result<(), StateError> {
        let current = self.current.borrow();
        if *current == self.on_disk {
            return Ok(());
        }
        state.write_json(FILE, &*current)
    }
}

fn look_at(file: &File) -> io::Result<(u64, FileVersion)> {
    let found = file.metadata()?;
    let changed = (found.ctime(), u64::try_from(found.ctime_nsec()).unwrap_or(0));
    Ok((found.dev(), FileVersion { inode: found.ino(), size: found.size(), changed }))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, time::Duration};

    use super::*;

    struct Machine {
        root: tempfile::TempDir,
        state: StateDir,
    }

    impl Machine {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let state = StateDir::new(root.path(), "/state").unwrap();
            Self { root, state }
        }

        fn file(&self) -> PathBuf {
            self.root.path().join("tool")
        }

        /// The digest in a run that takes place so many seconds from now.
        fn ask(&self, seconds: u64) -> Digest {
            let digests = Digests::load(&self.state);
            let now = SystemTime::now() + Duration::from_secs(seconds);
            let digest = digests.of("/tool", &File::open(self.file()).unwrap(), now).unwrap();
            digests.keep(&self.state).unwrap();
            digest
        }

        /// Puts another digest in place of the one that is remembered, if one is: what says it has not read the file.
        fn mark(&self) {
            let Some(text) = self.state.read(FILE).unwrap() else { return };
            let text = String::from_utf8(text).unwrap();
            let marked = text.replace(Digest::of(b"moo").as_str(), Digest::of(b"mark").as_str());
            self.state.write(FILE, marked.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_file_is_read_again_only_when_it_has_changed() {
        let machine = Machine::new();
        fs::write(machine.file(), "moo").unwrap();
        assert_eq!(machine.ask(100), Digest::of(b"moo"));
        machine.mark();
        for _ in 0..2 {
            assert_eq!(machine.ask(100), Digest::of(b"mark"), "it was read again");
        }
        let changed = || look_at(&File::open(machine.file()).unwrap()).unwrap().1.changed;
        let same_size_and_inode = || {
            let before = changed();
            // Until the kernel's clock has ticked.
            while changed() == before {
                fs::write(machine.file(), "baa").unwrap();
            }
        };
        let another = || {
            fs::write(machine.file().with_extension("new"), "new").unwrap();
            fs::rename(machine.file().with_extension("new"), machine.file()).unwrap();
        };
        for (change, content) in [(&same_size_and_inode as &dyn Fn(), "baa"), (&another, "new")] {
            change();
            assert_eq!(machine.ask(100), Digest::of(content.as_bytes()));
        }
    }

    #[test]
    fn what_has_just_changed_may_change_again_unseen() {
        for seconds in [0, 50] {
            let machine = Machine::new();
            fs::write(machine.file(), "moo").unwrap();
            assert_eq!(machine.ask(seconds), Digest::of(b"moo"));
            machine.mark();
            assert_eq!(machine.ask(100), Digest::of(b"moo"), "it was not read again");
        }
    }

    #[test]
    fn what_is_damaged_is_no_loss_and_what_is_not_asked_for_is_forgotten() {
        let machine = Machine::new();
        fs::write(machine.file(), "moo").unwrap();
        machine.state.write(FILE, b"{\"half").unwrap();
        assert_eq!(machine.ask(100), Digest::of(b"moo"));
        assert!(Digests::load(&machine.state).on_disk.contains_key(&Digest::of(b"/tool")));
        Digests::load(&machine.state).keep(&machine.state).unwrap();
        assert!(Digests::load(&machine.state).on_disk.is_empty());
    }
}
