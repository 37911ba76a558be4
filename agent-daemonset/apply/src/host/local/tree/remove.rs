//! Directories with all that is in them: counted, and removed.
//!
//! Symbolic links are never followed, and no other file system that is mounted inside is ever entered: the kernel
//! refuses both (`openat2` with `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_XDEV`), bind mounts of the same device included,
//! which a comparison of device numbers would miss.

use std::{ffi::CString, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// How deep a tree may be; each level holds a folder open.
const DEEPEST: u32 = 256;

/// Removes what is at a name, with all that is in it. Nothing there is fine.
pub(super) fn all(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    remove(parent, &name, 0)
}

/// How many entries [`all`] would remove; stops soon above `at_most`.
pub(super) fn count(parent: &OwnedFd, name: &str, at_most: usize) -> Result<usize, Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    let mut counted = 0;
    add(parent, &name, 0, at_most, &mut counted)?;
    Ok(counted)
}

fn remove(parent: &OwnedFd, name: &CString, depth: u32) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let folder = enter(parent, name, depth)?;
    for inside in names(&folder)? {
        remove(&folder, &inside, depth + 1)?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn add(parent: &OwnedFd, name: &CString, depth: u32, at_most: usize, counted: &mut usize) -> Result<(), Errno> {
    let kind = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    *counted += 1;
    if kind != FileType::Directory {
        return Ok(());
    }
    let folder = enter(parent, name, depth)?;
    for inside in names(&folder)? {
        if *counted > at_most {
            return Ok(());
        }
        add(&folder, &inside, depth + 1, at_most, counted)?;
    }
    Ok(())
}

fn enter(parent: &OwnedFd, name: &CString, depth: u32) -> Result<OwnedFd, Errno> {
    if depth >= DEEPEST {
        return Err(Errno::NAMETOOLONG);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), within)
}

/// All names first: what a listing shows while its entries go is the file system's own choice.
fn names(folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for found in Dir::read_from(folder)? {
        let found = found?;
        if !matches!(found.file_name().to_bytes(), b"." | b"..") {
            names.push(found.file_name().to_owned());
        }
    }
    Ok(names)
}
