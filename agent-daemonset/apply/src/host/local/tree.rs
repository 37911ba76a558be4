//! Files below a root folder, and never outside it.
//!
//! Every path is resolved by the kernel (`openat2`) as a process whose root is that folder would see it: an absolute
//! symbolic link, or one with too many `..`, stays inside. Checking paths by hand could not do that, since the machine
//! may change between the check and the use.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, ResolveFlags, Stat, Uid},
    io::Errno,
};

use super::{super::EntryKind, Access, Entry, FileVersion, HostError, failed};

/// What a half-written file is named: `.drover-<process>-<number>.tmp`.
const TEMPORARY_PREFIX: &str = ".drover-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// How often a lookup is tried again that lost against a rename elsewhere in the tree.
const LOOKUP_TRIES: u32 = 32;

/// A file system tree, seen from its root folder.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// The tree below a folder.
    pub(crate) fn open(root: &Path) -> Result<Self, HostError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty()).map_err(failed("open", &root.to_string_lossy()))?;
        Ok(Self { root })
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

    fn stat(&self, path: &str) -> Result<Option<Stat>, HostError> {
        match self.parent(path).and_then(|(parent, name)| stat(&parent, name)) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(failed("look at", path)(errno)),
        }
    }

    /// See [`Host::read_file`](super::Host::read_file). A symbolic link is followed inside the tree.
    pub(crate) fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        // A pipe without a writer would block the open.
        match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => {
                let mut content = Vec::new();
                File::from(fd).read_to_end(&mut content).map_err(|source| HostError::Path {
                    action: "read",
                    path: path.into(),
                    source,
                })?;
                Ok(Some(content))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(failed("read", path)(errno)),
        }
    }

    /// See [`Host::read_link`](super::Host::read_link).
    pub(crate) fn read_link(&self, path: &str) -> Result<Option<String>, HostError> {
        let target = self.parent(path).and_then(|(parent, name)| rustix::fs::readlinkat(&parent, name, Vec::new()));
        match target {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL) => Ok(None),
            Err(errno) => Err(failed("look at", path)(errno)),
        }
    }

    /// See [`Host::list_directory`](super::Host::list_directory).
    pub(crate) fn list_directory(&self, path: &str) -> Result<Option<Vec<String>>, HostError> {
        let folder = match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(failed("look into", path)(errno)),
        };
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
        self.stage_file(path, content, access)?.place()
    }

    /// Writes a file beside the place where it shall be. It is gone when the result is dropped.
    pub(crate) fn stage_file<'a>(
        &self,
        path: &'a str,
        content: &[u8],
        access: Access,
    ) -> Result<Staged<'a>, HostError> {
        let (parent, name) = self.parent(path).map_err(failed("write", path))?;
        match stat(&parent, name).map(|stat| entry(&stat).kind) {
            Ok(EntryKind::Directory) => return Err(wrong_kind(path, "a directory", "a file")),
            Ok(EntryKind::Special) => return Err(wrong_kind(path, "a device, a socket or a pipe", "a file")),
            Ok(EntryKind::File | EntryKind::SymbolicLink) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("look at", path)(errno)),
        }
        let temporary = Temporary::create(&parent).map_err(failed("make a temporary file beside", path))?;
        let staged = Staged { target: path, name, parent, temporary, placed: false };
        staged.temporary.fill(content, access).map_err(|source| HostError::Path {
            action: "write",
            path: path.into(),
            source,
        })?;
        Ok(staged)
    }

    /// See [`Host::write_link`](super::Host::write_link).
    pub(crate) fn write_link(&self, path: &str, target: &str) -> Result<(), HostError> {
        let (parent, name) = self.parent(path).map_err(failed("write", path))?;
        if stat(&parent, name).is_ok_and(|stat| entry(&stat).kind == EntryKind::Directory) {
            return Err(wrong_kind(path, "a directory", "a symbolic link"));
        }
        let temporary = Temporary::next_name();
        rustix::fs::symlinkat(target, &parent, &temporary).map_err(failed("make a temporary link beside", path))?;
        if let Err(errno) = rustix::fs::renameat(&parent, &temporary, &parent, name) {
            let _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::empty());
            return Err(failed("replace", path)(errno));
        }
        rustix::fs::fsync(&parent).map_err(failed("bring to disk", path))
    }

    /// See [`Host::remove_tree`](super::Host::remove_tree).
    pub(crate) fn remove_tree(&self, path: &str) -> Result<(), HostError> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(failed("remove", path)(errno)),
        };
        remove_all(&parent, name, 0).map_err(failed("remove", path))?;
        rustix::fs::fsync(&parent).map_err(failed("bring to disk", path))
    }

    /// Writes into an existing file, for the files of the kernel that cannot be replaced.
    pub(crate) fn write_in_place(&self, path: &str, content: &[u8]) -> Result<(), HostError> {
        let fd = self.resolve(path, OFlags::WRONLY).map_err(failed("write", path))?;
        File::from(fd).write_all(content).map_err(|source| HostError::Path {
            action: "write",
            path: path.into(),
            source,
        })
    }

    /// See [`Host::remove_file`](super::Host::remove_file).
    pub(crate) fn remove_file(&self, path: &str) -> Result<(), HostError> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(failed("remove", path)(errno)),
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) => rustix::fs::fsync(&parent).map_err(failed("bring to disk", path)),
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Err(wrong_kind(path, "a directory", "nothing")),
            Err(errno) => Err(failed("remove", path)(errno)),
        }
    }

    /// See [`Host::make_directory`](super::Host::make_directory). Nobody else gets in before the owner is right.
    pub(crate) fn make_directory(&self, path: &str, access: Access) -> Result<(), HostError> {
        let (parent, name) = self.parent(path).map_err(failed("make", path))?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(failed("make", path))?;
        self.set_directory_access(path, access)?;
        rustix::fs::fsync(&parent).map_err(failed("bring to disk", path))
    }

    /// See [`Host::set_directory_access`](super::Host::set_directory_access).
    pub(crate) fn set_directory_access(&self, path: &str, access: Access) -> Result<(), HostError> {
        let (parent, name) = self.parent(path).map_err(failed("open", path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(failed("open", path))?;
        set_access(&folder, access).map_err(failed("set owner and mode of", path))
    }

    /// See [`Host::remove_leftovers`](super::Host::remove_leftovers). A temporary file that a living process writes is
    /// locked by it, and stays.
    pub(crate) fn remove_leftovers(&self, folder: &str) -> Result<(), HostError> {
        let folder_fd = match self.resolve(folder, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(failed("look into", folder)(errno)),
        };
        for found in Dir::read_from(&folder_fd).map_err(failed("look into", folder))? {
            let found = found.map_err(failed("look into", folder))?;
            let Ok(name) = found.file_name().to_str() else { continue };
            if name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX) && is_abandoned(&folder_fd, name)
            {
                rustix::fs::unlinkat(&folder_fd, name, AtFlags::empty())
                    .map_err(failed("remove a leftover in", folder))?;
            }
        }
        Ok(())
    }

    /// Locks a folder for as long as the result is open. `None` when another process has it locked.
    pub(crate) fn try_lock(&self, folder: &str) -> Result<Option<OwnedFd>, HostError> {
        let fd = self.resolve(folder, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed("open", folder))?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(fd)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(failed("lock", folder)(errno)),
        }
    }

    /// Whether a program is there: a regular file that somebody may execute, wherever its symbolic links lead.
    pub(crate) fn is_program(&self, path: &str) -> bool {
        self.resolve(path, OFlags::PATH)
            .and_then(rustix::fs::fstat)
            .is_ok_and(|stat| entry(&stat).kind == EntryKind::File && stat.st_mode & 0o111 != 0)
    }

    /// The folder that a path's last part is in, and that last part.
    fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
        let (parent, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
        if name.is_empty() || name == "." || name == ".." {
            return Err(Errno::INVAL);
        }
        let parent = if parent.is_empty() { "/" } else { parent };
        Ok((self.resolve(parent, OFlags::RDONLY | OFlags::DIRECTORY)?, name))
    }

    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), within) {
                Err(Errno::AGAIN | Errno::INTR) if tries < LOOKUP_TRIES => tries += 1,
                result => return result,
            }
        }
    }
}

/// How deep a tree may be that is removed; each level holds a folder open.
const DEEPEST: u32 = 256;

fn remove_all(parent: &OwnedFd, name: &str, depth: u32) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth < DEEPEST => {}
        other => return other,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for found in Dir::read_from(&folder)? {
        let found = found?;
        let name = found.file_name().to_string_lossy();
        if name != "." && name != ".." {
            remove_all(&folder, &name, depth + 1)?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// A new file beside the place where it shall be.
pub(crate) struct Staged<'a> {
    target: &'a str,
    name: &'a str,
    parent: OwnedFd,
    temporary: Temporary,
    placed: bool,
}

impl Staged<'_> {
    /// The path of the new file, as the machine sees it.
    pub(crate) fn path(&self) -> String {
        let folder = self.target.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{}", self.temporary.name)
    }

    /// Puts it where it shall be. It is on disk when this returns.
    pub(crate) fn place(mut self) -> Result<(), HostError> {
        rustix::fs::renameat(&self.parent, &self.temporary.name, &self.parent, self.name)
            .map_err(failed("replace", self.target))?;
        self.placed = true;
        rustix::fs::fsync(&self.parent).map_err(failed("bring to disk", self.target))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // What went wrong matters more than a leftover, which the next run removes.
            let _ = rustix::fs::unlinkat(&self.parent, &self.temporary.name, AtFlags::empty());
        }
    }
}

/// A file that nobody knows yet, locked while it is written.
struct Temporary {
    name: String,
    fd: OwnedFd,
}

impl Temporary {
    fn next_name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        format!("{TEMPORARY_PREFIX}{}-{number}{TEMPORARY_SUFFIX}", process::id())
    }

    fn create(folder: &OwnedFd) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = Self::next_name();
            match rustix::fs::openat(folder, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(fd) => {
                    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
                    return Ok(Self { name, fd });
                }
                // Another process of the same number, in another container.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn fill(&self, content: &[u8], access: Access) -> std::io::Result<()> {
        let mut file = File::from(self.fd.try_clone()?);
        file.write_all(content)?;
        set_access(&self.fd, access)?;
        file.sync_all()
    }
}

/// Owner first: a change of owner clears set-user-ID.
fn set_access(fd: impl AsFd, access: Access) -> Result<(), Errno> {
    let fd = fd.as_fd();
    rustix::fs::fchown(fd, Some(Uid::from_raw(access.user)), Some(Gid::from_raw(access.group)))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(access.mode))
}

fn is_abandoned(folder: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
        .and_then(|fd| rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive))
        .is_ok()
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
    }
}

fn wrong_kind(path: &str, found: &'static str, wanted: &'static str) -> HostError {
    HostError::WrongKind { path: path.into(), found, wanted }
}
