//! A user swaps a folder of hers with a symbolic link into a folder of root's, as fast as she can, while files below her
//! folder are written and removed. Nothing may ever happen behind the link.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where it goes wrong, and counts"
)]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use drover_apply::{
    Host as _, HostError, LocalHost,
    host::{Access, EntryKind},
};
use futures::executor::block_on;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
    process::{getegid, geteuid},
};

const WRITES: u32 = 200_000;

/// Nobody, on all common systems.
const USER: u32 = 65534;

/// How often what was attempted came to be, and was refused.
#[derive(Debug, Default)]
struct Count {
    done: u32,
    refused: u32,
}

impl Count {
    #[track_caller]
    fn add<T>(&mut self, result: Result<T, HostError>) {
        match result {
            Ok(_) => self.done += 1,
            Err(HostError::UntrustedLink { .. }) => self.refused += 1,
            // It was a folder when it was looked at, and a link when it was opened; or the other way round.
            Err(HostError::Path { source, .. })
                if matches!(Errno::from_io_error(&source), Some(Errno::LOOP | Errno::NOTDIR)) =>
            {
                self.refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A machine, in memory where there is such a place: each write goes to disk.
fn machine() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("swapper").tempdir_in(place).unwrap()
}

fn folder(root: &Path, path: &str, mode: u32) -> PathBuf {
    let path = root.join(path);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn nothing_ever_happens_behind_a_users_link() {
    let root = machine();
    let secret = folder(root.path(), "secret", 0o755);
    fs::write(secret.join("file"), "keep").unwrap();
    folder(root.path(), "home", 0o755);
    // What is not root's is not trusted. Where this is not root, nor is what everybody can write.
    let home = folder(root.path(), "home/u", 0o777);
    let (dir, link) = (folder(root.path(), "home/u/dir", 0o755), home.join("link"));
    symlink("/secret", &link).unwrap();
    if geteuid().is_root() {
        for path in [&home, &dir] {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        std::os::unix::fs::lchown(&link, Some(USER), Some(USER)).unwrap();
    }
    let before = (fs::metadata(&secret).unwrap().modified().unwrap(), names(&secret));

    let host = LocalHost::open(root.path(), false).unwrap();
    let access = Access { mode: 0o644, user: geteuid().as_raw(), group: getegid().as_raw() };
    let (done, began) = (AtomicBool::new(false), Instant::now());
    let (mut writes, mut others) = (Count::default(), Count::default());
    let swaps = thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        });
        // Ends the swapper also when something panics here.
        let ended = Ended(&done);
        for round in 0..WRITES {
            writes.add(block_on(host.write_file("/home/u/dir/file", b"moo", access, None)));
            if round % 16 == 0 {
                others.add(host.write_link("/home/u/dir/file", "elsewhere"));
                others.add(host.remove_file("/home/u/dir/file"));
                others.add(host.remove_tree("/home/u/dir/file"));
                let read = host.read_file("/home/u/dir/file");
                assert_ne!(
                    read.as_ref().ok().cloned().flatten().as_deref(),
                    Some(&b"keep"[..]),
                    "read behind the link"
                );
                others.add(read);
                others.add(host.remove_leftovers("/home/u/dir"));
            }
        }
        drop(ended);
        swapper.join().unwrap()
    });
    println!(
        "{WRITES} writes against {swaps} swaps in {:.1} s: {} done, {} refused; of other acts {} done, {} refused",
        began.elapsed().as_secs_f64(),
        writes.done,
        writes.refused,
        others.done,
        others.refused
    );

    let after = (fs::metadata(&secret).unwrap().modified().unwrap(), names(&secret));
    assert_eq!(after, before, "something happened behind the link");
    assert_eq!(fs::read_to_string(secret.join("file")).unwrap(), "keep");
    assert_eq!(host.entry("/secret/file").unwrap().unwrap().kind, EntryKind::File);
    // Else this has shown nothing.
    assert!(writes.done > 0 && writes.refused > 0, "{writes:?}");
    assert_eq!(writes.done + writes.refused, WRITES);
}

/// Says so when it is dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
