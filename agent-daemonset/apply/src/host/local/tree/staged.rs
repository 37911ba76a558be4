//! New files, written beside the place where they shall be and put there at once.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Gid, Mode, OFlags, Uid},
    io::Errno,
};

use super::{Access, HostError, failed, label};

/// What a half-written file is named: `.drover-<process>-<number>.tmp`.
const TEMPORARY_PREFIX: &str = ".drover-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A name that no other file in a folder has.
pub(super) fn next_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{TEMPORARY_PREFIX}{}-{number}{TEMPORARY_SUFFIX}", process::id())
}

/// Removes what killed processes left half-written in a folder. What a living process writes is locked by it, and stays.
pub(super) fn remove_leftovers(folder: &OwnedFd) -> Result<(), Errno> {
    for found in Dir::read_from(folder)? {
        let found = found?;
        let Ok(name) = found.file_name().to_str() else { continue };
        if name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX) && is_abandoned(folder, name) {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// A link has nobody who writes it: it is made at once, and renamed right away.
fn is_abandoned(folder: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(errno) => errno == Errno::LOOP,
    }
}

/// A new file beside the place where it shall be.
pub(crate) struct Staged<'a> {
    target: &'a str,
    name: &'a str,
    parent: OwnedFd,
    temporary: Temporary,
    placed: bool,
}

impl<'a> Staged<'a> {
    /// Makes it, empty; nobody but its maker may look into it yet.
    pub(super) fn new(target: &'a str, parent: OwnedFd, name: &'a str) -> Result<Self, HostError> {
        let temporary = Temporary::create(&parent).map_err(failed("make a temporary file beside", target))?;
        Ok(Self { target, name, parent, temporary, placed: false })
    }

    /// Gives it its `SELinux` label.
    pub(super) fn set_label(&self, attribute: &str, label: &[u8]) -> Result<(), HostError> {
        label::set(&self.temporary.fd, attribute, label).map_err(failed("set the SELinux label of", self.target))
    }

    /// The new file, for writing.
    pub(crate) fn file(&self) -> Result<File, HostError> {
        let file = self.temporary.fd.try_clone().map(File::from);
        file.map_err(|source| HostError::Path { action: "write", path: self.target.into(), source })
    }

    /// Gives it its owner and mode, and brings it to disk. Content comes first: until this, only root can read it.
    pub(crate) fn seal(&self, access: Access) -> Result<(), HostError> {
        set_access(&self.temporary.fd, access).map_err(failed("set owner and mode of", self.target))?;
        rustix::fs::fsync(&self.temporary.fd).map_err(failed("bring to disk", self.target))
    }

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
    fn create(folder: &OwnedFd) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = next_name();
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
}

/// Owner first: a change of owner clears set-user-ID.
pub(super) fn set_access(fd: impl AsFd, access: Access) -> Result<(), Errno> {
    let fd = fd.as_fd();
    rustix::fs::fchown(fd, Some(Uid::from_raw(access.user)), Some(Gid::from_raw(access.group)))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(access.mode))
}
