//! Files below a root folder, and never outside it, nor anywhere that a user of the machine would like to lead us.
//!
//! - How a path becomes an open folder is the business of [`resolve`]: symbolic links are followed only where nobody but
//!   root can have put them.
//! - All that happens after that is relative to the open folder, so it does not matter what the path means by then.
//! - A file is replaced and never written into ([`staged`]), so a hard link elsewhere keeps its content, and whoever has
//!   the old file open has the old file.

mod label;
mod remove;
mod resolve;
mod staged;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    path::Path,
    sync::OnceLock,
};

use resolve::{Refusal, if_there, refused};
use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat},
    io::Errno,
};
use staged::{Staged, set_access};

use super::{super::EntryKind, Access, Entry, FileVersion, HostError, failed};

pub(super) use label::parse as parse_label;

/// How much is read of a file that the machine itself writes, in bytes: dpkg's database can have some ten MiB.
const LARGEST: u64 = 64 << 20;

/// A file system tree, seen from its root folder.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// The extended attribute that a file takes over from the one that it replaces.
    label: &'static str,
    labels_files: OnceLock<bool>,
}

impl Tree {
    /// The tree below a folder.
    pub(crate) fn open(root: &Path) -> Result<Self, HostError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty()).map_err(failed("open", &root.to_string_lossy()))?;
        Ok(Self { root, label: label::ATTRIBUTE, labels_files: OnceLock::new() })
    }

    /// See [`Host::entry`](super::Host::entry).
    pub(crate) fn entry(&self, path: &str) -> Result<Option<Entry>, HostError> {
        Ok(self.stat(path)?.map(|stat| entry(&stat)))
    }

    /// See [`Host::file_version`](super::Host::file_version).
    pub(crate) fn file_version(&self, path: &str) -> Result<Option<FileVersion>, HostError> {
        Ok(self.stat(path)?.map(|stat| FileVersion {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }))
    }

    /// A symbolic link is not followed. `None` where nothing is.
    fn stat(&self, path: &str) -> Result<Option<Stat>, HostError> {
        let stat = self.parent(path).and_then(|(parent, name)| Ok(stat(&parent, name)?));
        if_there(stat).map_err(refused("look at", path))
    }

    /// See [`Host::read_entry`](super::Host::read_entry).
    pub(crate) fn read_entry(&self, path: &str, at_most: u64) -> Result<Option<(Entry, Vec<u8>)>, HostError> {
        let opened = self.parent(path).and_then(|(parent, name)| {
            // What is no file must not be opened: a tape rewinds. If one comes now, it does not block at least.
            let found = entry(&stat(&parent, name)?);
            if found.kind != EntryKind::File {
                return Ok((found, None));
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            Ok((entry(&rustix::fs::fstat(&fd)?), Some(fd)))
        });
        Ok(match if_there(opened).map_err(refused("read", path))? {
            None => None,
            Some((found, Some(fd))) if found.kind == EntryKind::File => {
                Some((found, read_all(File::from(fd), path, at_most)?))
            }
            Some((found, _)) => Some((found, Vec::new())),
        })
    }

    /// See [`Host::read_file`](super::Host::read_file).
    pub(crate) fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.open_file(path)?.map(|file| read_all(file, path, LARGEST)).transpose()
    }

    /// A regular file, for reading. `None` where nothing is.
    pub(super) fn open_file(&self, path: &str) -> Result<Option<File>, HostError> {
        // A pipe without a writer would block the open.
        let opened = if_there(self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK)).map_err(refused("read", path))?;
        let Some(fd) = opened else { return Ok(None) };
        match rustix::fs::fstat(&fd).map(|stat| entry(&stat).kind).map_err(failed("look at", path))? {
            EntryKind::File => Ok(Some(File::from(fd))),
            EntryKind::Directory => Err(failed("read", path)(Errno::ISDIR)),
            EntryKind::SymbolicLink | EntryKind::Special => Err(failed("read", path)(Errno::INVAL)),
        }
    }

    /// A directory, for work below it.
    pub(super) fn open_directory(&self, path: &str) -> Result<OwnedFd, HostError> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(refused("open", path))
    }

    /// See [`Host::read_link`](super::Host::read_link).
    pub(crate) fn read_link(&self, path: &str) -> Result<Option<String>, HostError> {
        let target =
            self.parent(path).and_then(|(parent, name)| Ok(rustix::fs::readlinkat(&parent, name, Vec::new())?));
        match if_there(target) {
            Ok(target) => Ok(target.map(|target| target.to_string_lossy().into_owned())),
            Err(Refusal::System(Errno::INVAL)) => Ok(None),
            Err(refusal) => Err(refused("look at", path)(refusal)),
        }
    }

    /// See [`Host::list_directory`](super::Host::list_directory).
    pub(crate) fn list_directory(&self, path: &str) -> Result<Option<Vec<String>>, HostError> {
        let Some(folder) = self.folder(path)? else { return Ok(None) };
        let mut names = Vec::new();
        for found in Dir::read_from(&folder).map_err(failed("look into", path))? {
            let found = found.map_err(failed("look into", path))?;
            let name = found.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(Some(names))
    }

    /// See [`Host::write_file`](super::Host::write_file).
    pub(crate) fn write_file(&self, path: &str, content: &[u8], access: Access) -> Result<(), HostError> {
        self.stage_file(path, content, access, None)?.place()
    }

    /// Writes a file beside the place where it shall be. It is gone when the result is dropped. `label` is the `SELinux`
    /// label of a file that takes no other's place.
    pub(crate) fn stage_file<'a>(
        &self,
        path: &'a str,
        content: &[u8],
        access: Access,
        label: Option<&[u8]>,
    ) -> Result<Staged<'a>, HostError> {
        let staged = self.stage(path)?;
        if let Some(label) = label {
            staged.set_label(self.label, label)?;
        }
        staged.file()?.write_all(content).map_err(|source| HostError::Path {
            action: "write",
            path: path.into(),
            source,
        })?;
        staged.seal(access)?;
        Ok(staged)
    }

    /// The same, for a file that is written bit by bit: see [`Staged::file`] and [`Staged::seal`].
    pub(super) fn stage<'a>(&self, path: &'a str) -> Result<Staged<'a>, HostError> {
        let (parent, name) = self.parent(path).map_err(refused("write", path))?;
        let label = match stat(&parent, name).map(|stat| entry(&stat).kind) {
            Ok(EntryKind::Directory) => return Err(wrong_kind(path, "a directory", "a file")),
            Ok(EntryKind::Special) => return Err(wrong_kind(path, "a device, a socket or a pipe", "a file")),
            Ok(EntryKind::File) if self.labels_files() => {
                label::get(&parent, name, self.label).map_err(failed("read the SELinux label of", path))?
            }
            Ok(EntryKind::File | EntryKind::SymbolicLink) | Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed("look at", path)(errno)),
        };
        let staged = Staged::new(path, parent, name)?;
        if let Some(label) = label {
            staged.set_label(self.label, &label)?;
        }
        Ok(staged)
    }

    /// Whether a file that is written to a path needs a label by the machine's policy: `SELinux` is on, and no file is there.
    pub(crate) fn needs_label(&self, path: &str) -> bool {
        self.labels_files() && self.entry(path).is_ok_and(|found| found.is_none())
    }

    fn labels_files(&self) -> bool {
        *self.labels_files.get_or_init(|| self.entry(label::SWITCH).is_ok_and(|found| found.is_some()))
    }

    /// See [`Host::write_link`](super::Host::write_link).
    pub(crate) fn write_link(&self, path: &str, target: &str) -> Result<(), HostError> {
        let (parent, name) = self.parent(path).map_err(refused("write", path))?;
        if stat(&parent, name).is_ok_and(|stat| entry(&stat).kind == EntryKind::Directory) {
            return Err(wrong_kind(path, "a directory", "a symbolic link"));
        }
        let temporary = staged::next_name();
        rustix::fs::symlinkat(target, &parent, &temporary).map_err(failed("make a temporary link beside", path))?;
        if let Err(errno) = rustix::fs::renameat(&parent, &temporary, &parent, name) {
            let _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::empty());
            return Err(failed("replace", path)(errno));
        }
        rustix::fs::fsync(&parent).map_err(failed("bring to disk", path))
    }

    /// Writes into an existing file, for the files of the kernel that cannot be replaced.
    pub(crate) fn write_in_place(&self, path: &str, content: &[u8]) -> Result<(), HostError> {
        let fd = self.resolve(path, OFlags::WRONLY).map_err(refused("write", path))?;
        File::from(fd).write_all(content).map_err(|source| HostError::Path {
            action: "write",
            path: path.into(),
            source,
        })
    }

    /// See [`Host::remove_file`](super::Host::remove_file).
    pub(crate) fn remove_file(&self, path: &str) -> Result<(), HostError> {
        self.remove(path, |parent, name| match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => Err(wrong_kind(path, "a directory", "nothing")),
            other => other.map_err(failed("remove", path)),
        })
    }

    /// See [`Host::remove_directory`](super::Host::remove_directory).
    pub(crate) fn remove_directory(&self, path: &str) -> Result<(), HostError> {
        self.remove(path, |parent, name| {
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed("remove", path))
        })
    }

    /// See [`Host::remove_tree`](super::Host::remove_tree).
    pub(crate) fn remove_tree(&self, path: &str) -> Result<(), HostError> {
        self.remove(path, |parent, name| remove::all(parent, name).map_err(failed("remove all of", path)))
    }

    fn remove(&self, path: &str, how: impl Fn(&OwnedFd, &str) -> Result<(), HostError>) -> Result<(), HostError> {
        let Some((parent, name)) = if_there(self.parent(path)).map_err(refused("remove", path))? else { return Ok(()) };
        match stat(&parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("look at", path)(errno)),
            Ok(_) => how(&parent, name)?,
        }
        rustix::fs::fsync(&parent).map_err(failed("bring to disk", path))
    }

    /// See [`Host::count_tree`](super::Host::count_tree).
    pub(crate) fn count_tree(&self, path: &str, at_most: usize) -> Result<usize, HostError> {
        let count = self.parent(path).and_then(|(parent, name)| Ok(remove::count(&parent, name, at_most)?));
        Ok(if_there(count).map_err(refused("look through", path))?.unwrap_or(0))
    }

    /// See [`Host::make_directory`](super::Host::make_directory). Nobody else gets in before the owner is right.
    pub(crate) fn make_directory(&self, path: &str, access: Access) -> Result<(), HostError> {
        let (parent, name) = self.parent(path).map_err(refused("make", path))?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(failed("make", path))?;
        give_directory(&parent, name, access).map_err(failed("set owner and mode of", path))?;
        rustix::fs::fsync(&parent).map_err(failed("bring to disk", path))
    }

    /// See [`Host::set_directory_access`](super::Host::set_directory_access).
    pub(crate) fn set_directory_access(&self, path: &str, access: Access) -> Result<(), HostError> {
        let (parent, name) = self.parent(path).map_err(refused("open", path))?;
        give_directory(&parent, name, access).map_err(failed("set owner and mode of", path))
    }

    /// See [`Host::remove_leftovers`](super::Host::remove_leftovers).
    pub(crate) fn remove_leftovers(&self, path: &str) -> Result<(), HostError> {
        let Some(folder) = self.folder(path)? else { return Ok(()) };
        staged::remove_leftovers(&folder).map_err(failed("remove a leftover in", path))
    }

    /// Locks a folder for as long as the result is open. `None` when another process has it locked.
    pub(crate) fn try_lock(&self, folder: &str) -> Result<Option<OwnedFd>, HostError> {
        let fd = self.open_directory(folder)?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(fd)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(failed("lock", folder)(errno)),
        }
    }

    /// Whether a program is there: a regular file that somebody may execute.
    pub(crate) fn is_program(&self, path: &str) -> bool {
        self.resolve(path, OFlags::PATH)
            .and_then(|fd| Ok(rustix::fs::fstat(fd)?))
            .is_ok_and(|stat| entry(&stat).kind == EntryKind::File && stat.st_mode & 0o111 != 0)
    }

    /// `None` where no directory is.
    fn folder(&self, path: &str) -> Result<Option<OwnedFd>, HostError> {
        if_there(self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)).map_err(refused("look into", path))
    }

    /// The folder that a path's last part is in, and that last part.
    fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Refusal> {
        let (parent, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
        if name.is_empty() || name == "." || name == ".." {
            return Err(Errno::INVAL.into());
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        Ok((self.resolve(parent, OFlags::RDONLY | OFlags::DIRECTORY)?, name))
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Refusal> {
        resolve::open(&self.root, path, flags)
    }
}

/// All of a file, unless it has more than so many bytes: a user can make a file of any size that takes no room on disk.
fn read_all(file: File, path: &str, at_most: u64) -> Result<Vec<u8>, HostError> {
    let failed = |source| HostError::Path { action: "read", path: path.into(), source };
    // The kernel's own files have a size of 0.
    let size = file.metadata().map_err(failed)?.len();
    let mut content = Vec::new();
    if size <= at_most {
        content.reserve(usize::try_from(size).unwrap_or_default());
        file.take(at_most.saturating_add(1)).read_to_end(&mut content).map_err(failed)?;
    }
    if size > at_most || content.len() as u64 > at_most {
        return Err(HostError::TooLarge { path: path.into(), limit: at_most });
    }
    Ok(content)
}

fn give_directory(parent: &OwnedFd, name: &str, access: Access) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    set_access(rustix::fs::openat(parent, name, flags, Mode::empty())?, access)
}

fn stat(folder: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn entry(stat: &Stat) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::SymbolicLink,
        _ => EntryKind::Special,
    };
    Entry {
        kind,
        access: Access { mode: stat.st_mode & 0o7777, user: stat.st_uid, group: stat.st_gid },
        size: u64::try_from(stat.st_size).unwrap_or(0),
        has_other_names: kind == EntryKind::File && stat.st_nlink > 1,
    }
}

fn wrong_kind(path: &str, found: &'static str, wanted: &'static str) -> HostError {
    HostError::WrongKind { path: path.into(), found, wanted }
}

#[cfg(test)]
mod tests;
