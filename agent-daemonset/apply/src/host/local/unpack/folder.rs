//! Puts entries into a folder. No path is followed through a symbolic link (`openat2` with `RESOLVE_NO_SYMLINKS`), nor
//! out of the folder, whatever somebody else does in it meanwhile.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process,
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
};

use super::path::Inside;

/// The folder, and who owns what is put there.
pub(super) struct Folder {
    root: OwnedFd,
    user: u32,
    group: u32,
    /// A new file until it has its place; the next run removes what a killed one left.
    temporary: String,
    /// The folder that was written to last: most entries are beside the one before.
    last: Option<(Vec<String>, OwnedFd)>,
}

impl Folder {
    pub(super) fn new(root: OwnedFd, user: u32, group: u32) -> Self {
        let temporary = format!(".drover-{}-unpack.tmp", process::id());
        Self { root, user, group, temporary, last: None }
    }

    /// Makes a directory, unless it is there; then its owner and mode stay as they are.
    pub(super) fn directory(&mut self, inside: &Inside, mode: u32) -> io::Result<()> {
        let (user, group) = (self.user, self.group);
        let parent = self.parent(&inside.folders)?;
        make(parent, &inside.name, mode, user, group)
    }

    /// A new, empty file that has no place yet.
    pub(super) fn begin_file(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(&self.root, &self.temporary, flags, Mode::RUSR | Mode::WUSR);
        let fd = match create() {
            // Of a killed process that had our number: the run's lock is ours, so nobody is writing it.
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&self.root, &self.temporary, AtFlags::empty())?;
                create()?
            }
            other => other?,
        };
        Ok(File::from(fd))
    }

    /// Puts the new file where it shall be, in place of whatever file or symbolic link is there.
    pub(super) fn place_file(&mut self, file: File, inside: &Inside, mode: u32) -> io::Result<()> {
        own(&file, mode, self.user, self.group)?;
        drop(file);
        self.place(inside)
    }

    /// Makes a symbolic link in place of whatever file or symbolic link is there.
    pub(super) fn symlink(&mut self, inside: &Inside, target: &str) -> io::Result<()> {
        self.clear()?;
        rustix::fs::symlinkat(target, &self.root, &self.temporary)?;
        own_link(self.root.as_fd(), &self.temporary, self.user, self.group)?;
        self.place(inside)
    }

    /// Makes a hard link to another entry.
    pub(super) fn hard_link(&mut self, inside: &Inside, target: &Inside) -> io::Result<()> {
        if inside == target {
            return Ok(());
        }
        self.clear()?;
        let root = self.root.try_clone()?;
        let temporary = self.temporary.clone();
        let from = self.parent(&target.folders)?;
        // Without AT_SYMLINK_FOLLOW it links the link itself; see linkat(2).
        rustix::fs::linkat(from, &target.name, &root, &temporary, AtFlags::empty())?;
        self.place(inside)?;
        // Between two names of one file, rename(2) does nothing.
        self.clear()
    }

    /// Removes a file or a link, and the folders that are empty without it. Nothing there is fine, and so is something
    /// else than a file.
    pub(super) fn remove(&mut self, inside: &Inside) -> io::Result<()> {
        self.last = None;
        let mut folders = inside.folders.as_slice();
        let Some(parent) = self.existing(folders)? else { return Ok(()) };
        match rustix::fs::unlinkat(&parent, &inside.name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        while let [above @ .., name] = folders {
            let Some(parent) = self.existing(above)? else { return Ok(()) };
            if rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
                return Ok(());
            }
            folders = above;
        }
        Ok(())
    }

    /// A folder that is there. `None` where it is not, or only through a symbolic link.
    fn existing(&self, folders: &[String]) -> io::Result<Option<OwnedFd>> {
        if folders.is_empty() {
            return Ok(Some(self.root.try_clone()?));
        }
        match beneath(self.root.as_fd(), &folders.join("/")) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Everything that was put into the folder is on disk when this returns.
    pub(super) fn bring_to_disk(&self) -> io::Result<()> {
        // One call for the whole file system: a call for each of many small files takes minutes.
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    fn place(&mut self, inside: &Inside) -> io::Result<()> {
        let root = self.root.try_clone()?;
        let temporary = self.temporary.clone();
        let parent = self.parent(&inside.folders)?;
        Ok(rustix::fs::renameat(&root, &temporary, parent, &inside.name)?)
    }

    fn clear(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.root, &self.temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The folder that these names lead to; what is missing is made.
    fn parent(&mut self, folders: &[String]) -> io::Result<BorrowedFd<'_>> {
        if folders.is_empty() {
            return Ok(self.root.as_fd());
        }
        let at_hand = self.last.take().filter(|(last, _)| last == folders);
        let fd = match at_hand {
            Some((_, fd)) => fd,
            None => self.open(folders)?,
        };
        let (_, fd) = &*self.last.insert((folders.to_vec(), fd));
        Ok(fd.as_fd())
    }

    fn open(&self, folders: &[String]) -> io::Result<OwnedFd> {
        match beneath(self.root.as_fd(), &folders.join("/")) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(explain),
        }
        let mut folder = self.root.try_clone()?;
        for name in folders {
            make(folder.as_fd(), name, 0o755, self.user, self.group)?;
            folder = beneath(folder.as_fd(), name).map_err(explain)?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What went wrong matters more than a leftover, which the next run removes.
        let _ = self.clear();
    }
}

fn beneath(folder: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        // A rename elsewhere in the tree; see openat2(2).
        match rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn explain(errno: Errno) -> io::Error {
    match errno {
        Errno::LOOP => io::Error::other("there is a symbolic link on its way, and none is followed"),
        Errno::NOTDIR => io::Error::other("there is a file where it needs a directory; move it away"),
        errno => errno.into(),
    }
}

/// Makes a directory, unless there is one.
fn make(parent: BorrowedFd<'_>, name: &str, mode: u32, user: u32, group: u32) -> io::Result<()> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => own(beneath(parent, name).map_err(explain)?, mode, user, group),
        Err(Errno::EXIST) => beneath(parent, name).map(drop).map_err(explain),
        Err(errno) => Err(errno.into()),
    }
}

/// Gives a new symbolic link to its owner. Its name is no secret: who may write to the folder can have put another file
/// of that name there, which then stays whose it is.
pub(super) fn own_link(folder: BorrowedFd<'_>, name: &str, user: u32, group: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&link)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink || stat.st_nlink != 1 {
        return Err(io::Error::other("somebody puts other files in the place of what is unpacked"));
    }
    let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    Ok(rustix::fs::chownat(link, "", user, group, AtFlags::EMPTY_PATH)?)
}

fn own(fd: impl std::os::fd::AsFd, mode: u32, user: u32, group: u32) -> io::Result<()> {
    rustix::fs::fchown(&fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
}
