//! Archives, read in Rust entry by entry, so that each can be refused before anything of it is on disk.
//!
//! What may be in an archive is what Python's `data` filter lets through (PEP 706), and a little less: directories,
//! regular files, symbolic links and hard links, all below one folder. An absolute path, a `..`, a device, a link that
//! points out of the folder: the whole archive is refused with the entry's name. Owners are the caller's,
//! set-user-ID, set-group-ID and write permission of others are dropped.
//!
//! - `path`: what an entry's name and a link's target mean (pure)
//! - `folder`: puts entries into the folder, through no symbolic link

mod folder;
mod path;

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read, Seek as _},
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use drover_catalog::Digest;

use self::{
    folder::Folder,
    path::{Inside, Refusal},
};
use super::{HostError, Tree, Unpack};

/// What an archive may hold. A small file can unpack to a huge one.
#[derive(Clone, Copy, Debug)]
struct Limits {
    entries: usize,
    bytes: u64,
}

const LIMITS: Limits = Limits { entries: 100_000, bytes: 8 << 30 };
/// What a decompressor may keep in memory, in KiB: `xz -9` needs 64 MiB.
const XZ_MEMORY: u32 = 128 << 10;
/// What one entry may need before its content begins: its headers and its name.
const HEADER_LIMIT: u64 = 1 << 20;
/// Longer targets the kernel does not take either; see symlink(2).
const TARGET_LIMIT: u64 = 4096;

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
enum UnpackError {
    #[error("{0}")]
    Format(&'static str),
    #[error("could not read it: {0}")]
    Read(#[source] io::Error),
    #[error("its entry {entry} {refusal}")]
    Entry { entry: String, refusal: Refusal },
    #[error("could not unpack its entry {entry}: {source}")]
    Write { entry: String, source: io::Error },
    #[error("could not remove {entry}, which the archive before it had: {source}")]
    Remove { entry: String, source: io::Error },
    #[error("could not bring its files to disk: {0}")]
    Sync(#[source] io::Error),
    #[error("it has more than {0} entries, which is the limit")]
    Entries(usize),
    #[error("it unpacks to more than {} MiB, which is the limit", .0 >> 20)]
    Bytes(u64),
    #[error("it was stopped")]
    Stopped,
}

/// See [`Host::unpack`](super::Host::unpack). The work is done beside the runtime's thread, which has signals to hear.
pub(super) async fn unpack(tree: &Tree, unpack: &Unpack<'_>) -> Result<Vec<(String, u64)>, HostError> {
    let Unpack { archive, sha256, into, strip_components, user, group, replaces } = *unpack;
    let failed = |why: String| HostError::Archive { archive: archive.to_owned(), why };
    let mut file = tree.open_file(archive)?.ok_or_else(|| failed("there is no such file".to_owned()))?;
    let into = tree.open_directory(into)?;
    let stop = Stop::default();
    let stopped = Arc::clone(&stop.0);
    let (sha256, replaces) = (sha256.clone(), replaces.to_vec());
    let work = move || {
        if Digest::of_reader(&mut file).map_err(UnpackError::Read)? != sha256 {
            return Err(UnpackError::Format("somebody has changed it since it was fetched"));
        }
        let archive = Archive { file, strip: strip_components, replaces: &replaces };
        unpack_file(archive, Folder::new(into, user, group), LIMITS, &stopped)
    };
    let unpacked = tokio::task::spawn_blocking(work).await;
    unpacked.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

/// Tells the work to end when the future that waits for it is dropped.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Unpacks bytes into a folder, for a fuzz target; see [`crate::fuzzing`].
pub(crate) fn unpack_bytes(archive: File, into: OwnedFd) -> Result<Vec<(String, u64)>, String> {
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let limits = Limits { entries: 1000, bytes: 16 << 20 };
    let archive = Archive { file: archive, strip: 0, replaces: &[] };
    unpack_file(archive, Folder::new(into, user, group), limits, &AtomicBool::new(false))
        .map_err(|error| error.to_string())
}

/// An archive by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Tar,
    Gzip,
    Xz,
    Zstd,
    Zip,
}

impl Format {
    /// See file(1)'s `compress` and `archive` magic.
    fn of(head: &[u8]) -> Result<Self, UnpackError> {
        Ok(match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            [b'B', b'Z', b'h', ..] => {
                return Err(UnpackError::Format("bzip2 is not supported; use gzip, xz, zstd or zip"));
            }
            _ if head.get(257..262) == Some(b"ustar") => Self::Tar,
            _ => return Err(UnpackError::Format("it is no tar, tar.gz, tar.xz, tar.zst or zip")),
        })
    }
}

/// What is unpacked.
struct Archive<'a> {
    file: File,
    strip: u32,
    replaces: &'a [String],
}

fn unpack_file(
    archive: Archive<'_>,
    folder: Folder,
    limits: Limits,
    stop: &AtomicBool,
) -> Result<Vec<(String, u64)>, UnpackError> {
    let Archive { mut file, strip, replaces } = archive;
    file.rewind().map_err(UnpackError::Read)?;
    let mut head = Vec::with_capacity(512);
    (&mut file).take(512).read_to_end(&mut head).map_err(UnpackError::Read)?;
    file.rewind().map_err(UnpackError::Read)?;
    let mut unpacking =
        Unpacking { folder, strip, limits, entries: 0, budget: Budget::new(limits.bytes), stop, unpacked: Vec::new() };
    let reader = BufReader::with_capacity(64 * 1024, file);
    match Format::of(&head)? {
        Format::Tar => unpacking.tar(reader)?,
        Format::Gzip => unpacking.tar(flate2::bufread::MultiGzDecoder::new(reader))?,
        Format::Xz => unpacking.tar(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_MEMORY))?,
        Format::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(reader)
                .map_err(|error| UnpackError::Read(io::Error::other(error)))?;
            unpacking.tar(decoder)?;
        }
        Format::Zip => unpacking.zip(reader)?,
    }
    unpacking.finish(replaces)
}

/// How many bytes may still be read: of the whole, and before the content of the next entry begins.
#[derive(Clone)]
struct Budget {
    whole: Rc<Cell<u64>>,
    header: Rc<Cell<u64>>,
}

impl Budget {
    fn new(whole: u64) -> Self {
        Self { whole: Rc::new(Cell::new(whole)), header: Rc::new(Cell::new(HEADER_LIMIT)) }
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        for budget in [&self.whole, &self.header] {
            let left = budget.get().checked_sub(bytes as u64).ok_or(io::ErrorKind::FileTooLarge)?;
            budget.set(left);
        }
        Ok(())
    }

    fn is_spent(error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::FileTooLarge
    }
}

/// A reader that fails when its budget is spent.
struct Limited<R> {
    inner: R,
    budget: Budget,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.budget.spend(length)?;
        Ok(length)
    }
}

struct Unpacking<'a> {
    folder: Folder,
    strip: u32,
    limits: Limits,
    entries: usize,
    budget: Budget,
    stop: &'a AtomicBool,
    unpacked: Vec<(String, u64)>,
}

impl Unpacking<'_> {
    fn tar(&mut self, reader: impl Read) -> Result<(), UnpackError> {
        let budget = self.budget.clone();
        let mut archive = tar::Archive::new(Limited { inner: reader, budget });
        let mut entries = archive.entries().map_err(|error| self.unreadable(error))?;
        loop {
            self.budget.header.set(HEADER_LIMIT);
            let Some(entry) = entries.next() else { return Ok(()) };
            let mut entry = entry.map_err(|error| self.unreadable(error))?;
            let name = entry.path_bytes().into_owned();
            let shown = path::shown(&name);
            let refused = |refusal| UnpackError::Entry { entry: shown.clone(), refusal };
            let Some(inside) = self.next(&name)? else {
                self.drain(&mut entry, &shown)?;
                continue;
            };
            let mode = entry.header().mode().unwrap_or(0o644);
            let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
            match entry.header().entry_type() {
                tar::EntryType::Directory => self.directory(&inside, mode, &shown)?,
                tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                    self.file(&inside, mode, &mut entry, &shown)?;
                    continue;
                }
                tar::EntryType::Symlink => self.symlink(&inside, &target, &shown)?,
                tar::EntryType::Link => {
                    let target = Inside::of(&target, self.strip).map_err(refused)?;
                    let target = target.ok_or(Refusal::LinkToNothing).map_err(refused)?;
                    self.hard_link(&inside, &target, &shown)?;
                }
                tar::EntryType::XGlobalHeader => {}
                _ => return Err(refused(Refusal::Special)),
            }
            self.drain(&mut entry, &shown)?;
        }
    }

    fn zip(&mut self, reader: BufReader<File>) -> Result<(), UnpackError> {
        let broken = |error: zip::result::ZipError| UnpackError::Read(io::Error::other(error));
        let mut archive = zip::ZipArchive::new(reader).map_err(broken)?;
        for number in 0..archive.len() {
            let entry = archive.by_index(number).map_err(broken)?;
            let name = entry.name_raw().to_vec();
            let shown = path::shown(&name);
            let Some(inside) = self.next(&name)? else { continue };
            let mode = entry.unix_mode();
            let (is_directory, is_link) = (entry.is_dir(), entry.is_symlink());
            let mut content = Limited { inner: entry, budget: self.budget.clone() };
            // S_IFMT of inode(7); zero where another system made the archive.
            let kind = mode.unwrap_or_default() & 0o170_000;
            if is_directory {
                self.directory(&inside, mode.unwrap_or(0o755), &shown)?;
            } else if is_link {
                let mut target = Vec::new();
                let read = (&mut content).take(TARGET_LIMIT).read_to_end(&mut target);
                read.map_err(|error| self.unreadable(error))?;
                self.symlink(&inside, &target, &shown)?;
            } else if kind == 0 || kind == 0o100_000 {
                self.file(&inside, mode.unwrap_or(0o644), &mut content, &shown)?;
            } else {
                return Err(UnpackError::Entry { entry: shown, refusal: Refusal::Special });
            }
        }
        Ok(())
    }

    /// Counts an entry. `None` when nothing is left of its path.
    fn next(&mut self, name: &[u8]) -> Result<Option<Inside>, UnpackError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(UnpackError::Entries(self.limits.entries));
        }
        if self.stop.load(Ordering::Relaxed) {
            return Err(UnpackError::Stopped);
        }
        self.budget.header.set(u64::MAX);
        Inside::of(name, self.strip).map_err(|refusal| UnpackError::Entry { entry: path::shown(name), refusal })
    }

    fn directory(&mut self, inside: &Inside, mode: u32, shown: &str) -> Result<(), UnpackError> {
        self.folder.directory(inside, mode & 0o755 | 0o700).map_err(|source| written(shown, source))
    }

    fn file(&mut self, inside: &Inside, mode: u32, content: &mut impl Read, shown: &str) -> Result<(), UnpackError> {
        let mut file = self.folder.begin_file().map_err(|source| written(shown, source))?;
        let size = self.copy(content, &mut file, shown)?;
        self.folder.place_file(file, inside, mode & 0o755 | 0o600).map_err(|source| written(shown, source))?;
        self.note(inside, size);
        Ok(())
    }

    fn symlink(&mut self, inside: &Inside, target: &[u8], shown: &str) -> Result<(), UnpackError> {
        let refused = |refusal| UnpackError::Entry { entry: shown.to_owned(), refusal };
        let target = inside.link_target(target).map_err(refused)?;
        self.folder.symlink(inside, target).map_err(|source| written(shown, source))?;
        self.note(inside, target.len() as u64);
        Ok(())
    }

    /// Only to a file that this very archive has put there.
    fn hard_link(&mut self, inside: &Inside, target: &Inside, shown: &str) -> Result<(), UnpackError> {
        let name = target.to_string();
        let Some(size) = self.unpacked.iter().rev().find(|(path, _)| *path == name).map(|(_, size)| *size) else {
            return Err(UnpackError::Entry { entry: shown.to_owned(), refusal: Refusal::LinkToNothing });
        };
        self.folder.hard_link(inside, target).map_err(|source| written(shown, source))?;
        self.note(inside, size);
        Ok(())
    }

    /// An archive can hold a path twice: the last one counts.
    fn note(&mut self, inside: &Inside, size: u64) {
        self.unpacked.push((inside.to_string(), size));
    }

    fn copy(&self, from: &mut impl Read, to: &mut impl io::Write, shown: &str) -> Result<u64, UnpackError> {
        let mut chunk = vec![0; 64 * 1024];
        let mut size: u64 = 0;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(UnpackError::Stopped);
            }
            match from.read(&mut chunk) {
                Ok(0) => return Ok(size),
                Ok(length) => {
                    size = size.saturating_add(length as u64);
                    // The holes of a sparse file are in no archive.
                    if size > self.limits.bytes {
                        return Err(UnpackError::Bytes(self.limits.bytes));
                    }
                    to.write_all(chunk.get(..length).unwrap_or_default()).map_err(|error| written(shown, error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
    }

    /// Reads what is left of an entry, so that all of it counts.
    fn drain(&self, entry: &mut impl Read, shown: &str) -> Result<(), UnpackError> {
        self.copy(entry, &mut io::sink(), shown).map(drop)
    }

    fn unreadable(&self, error: io::Error) -> UnpackError {
        if !Budget::is_spent(&error) {
            UnpackError::Read(error)
        } else if self.budget.header.get() < u64::MAX / 2 {
            UnpackError::Format("the headers of one of its entries are larger than 1 MiB, which is the limit")
        } else {
            UnpackError::Bytes(self.limits.bytes)
        }
    }

    /// Removes what an older archive had and this one has not.
    fn finish(self, replaces: &[String]) -> Result<Vec<(String, u64)>, UnpackError> {
        let Self { mut folder, mut unpacked, .. } = self;
        // The last one of a name is first in the reversed order, and stays.
        unpacked.reverse();
        unpacked.sort_by(|(one, _), (other, _)| one.cmp(other));
        unpacked.dedup_by(|(later, _), (first, _)| later == first);
        let goes = |old: &&String| unpacked.binary_search_by(|(path, _)| path.cmp(old)).is_err();
        for old in replaces.iter().filter(goes) {
            // What is no path below the folder was never of an archive.
            if let Ok(Some(inside)) = Inside::of(old.as_bytes(), 0) {
                folder.remove(&inside).map_err(|source| UnpackError::Remove { entry: old.clone(), source })?;
            }
        }
        folder.bring_to_disk().map_err(UnpackError::Sync)?;
        Ok(unpacked)
    }
}

fn written(entry: &str, source: io::Error) -> UnpackError {
    UnpackError::Write { entry: entry.to_owned(), source }
}

#[cfg(test)]
mod tests;
