//! What takes bytes from outside, for the fuzz targets and for nobody else.

use std::{
    fs::{self, File},
    io::{Seek as _, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use drover_catalog::Edit;

use crate::providers;

/// What an edit makes of a text; `None` where nothing changes, or where it is refused.
pub fn edit(text: &str, edit: &Edit) -> Option<String> {
    providers::edit::edit(text, edit).ok().flatten()
}

/// Unpacks an archive into a new folder of the system's folder for temporary files, and removes it again. Returns how many
/// files it had.
///
/// # Errors
/// Why it was refused; or that something of it is outside the folder, or that a link in it points out of it. The last
/// two are what a target looks for: they begin with `ESCAPE`.
pub fn unpack(archive: &[u8]) -> Result<usize, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("drover-fuzz-{}-{number}", std::process::id()));
    let result = unpack_into(&folder, archive);
    fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
    result
}

fn unpack_into(folder: &Path, archive: &[u8]) -> Result<usize, String> {
    let failed = |error: std::io::Error| error.to_string();
    let into = folder.join("outer/into");
    fs::create_dir_all(&into).map_err(failed)?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join("archive"))
        .map_err(failed)?;
    file.write_all(archive).and_then(|()| file.rewind()).map_err(failed)?;
    let directory = OwnedFd::from(File::open(&into).map_err(failed)?);
    let unpacked = crate::host::unpack_bytes(file, directory);
    let beside =
        fs::read_dir(folder.join("outer")).map_err(failed)?.count() + fs::read_dir(folder).map_err(failed)?.count();
    if beside != 3 {
        return Err("ESCAPE: something is beside the folder".to_owned());
    }
    links_stay(&into, &fs::canonicalize(&into).map_err(failed)?)?;
    unpacked.map(|files| files.len())
}

fn links_stay(folder: &Path, into: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path: PathBuf = entry.map_err(failed)?.path();
        let kind = fs::symlink_metadata(&path).map_err(failed)?.file_type();
        if kind.is_dir() {
            links_stay(&path, into)?;
        } else if kind.is_symlink() && fs::canonicalize(&path).is_ok_and(|end| !end.starts_with(into)) {
            return Err(format!("ESCAPE: {} leads out of the folder", path.display()));
        }
    }
    Ok(())
}
