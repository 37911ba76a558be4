//! From a path to an open file, below a root folder, along symbolic links that can be trusted and no others.
//!
//! Most paths have no symbolic link on the way, and the kernel resolves those in one call (`openat2` with
//! `RESOLVE_NO_SYMLINKS`, see openat2(2)). Where it says that there is one, the path is walked part by part. A link is
//! followed only when nobody but root can have put it there:
//!
//! - the link belongs to root, and
//! - so does each folder from the root down to it, and none of those can be written by its group or by others. The sticky
//!   bit of `/tmp` does not help: anybody may add a link there.
//!
//! The folders above count too. Below a folder of hers, a user can mount a file system of her own (FUSE) that shows
//! whatever owner she likes, or rename a folder of root's together with the links in it.
//!
//! An agent that does not run as root trusts its own user as well.

use std::{
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use super::HostError;

/// How often a lookup is tried again that lost against a rename elsewhere in the tree.
const LOOKUP_TRIES: u32 = 32;

/// As many symbolic links may be on the way as the kernel itself follows, see `path_resolution(7)`.
const MOST_LINKS: u32 = 40;

/// Why a path does not lead to an open file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The system's answer.
    System(Errno),
    /// A symbolic link that others may have put there.
    Untrusted {
        /// Where it is.
        link: OsString,
        /// Who could have.
        why: String,
    },
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// Wraps a refusal with what was attempted.
pub(super) fn refused(action: &'static str, path: &str) -> impl FnOnce(Refusal) -> HostError {
    move |refusal| match refusal {
        Refusal::System(errno) => super::failed(action, path)(errno),
        Refusal::Untrusted { link, why } => {
            HostError::UntrustedLink { action, path: path.into(), link: link.into(), why }
        }
    }
}

/// `None` where there is nothing.
pub(super) fn if_there<T>(result: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Refusal::System(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Opens what is at a path below the root. `..` and absolute links never lead out of it.
pub(super) fn open(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Refusal> {
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, OsStr::new(path), flags, within) {
        Err(Errno::LOOP) => walk(root, path, flags),
        result => Ok(result?),
    }
}

/// A folder on the way.
struct Folder {
    name: OsString,
    fd: OwnedFd,
    /// Why others than the trusted may have changed what is in it.
    exposed: Option<String>,
}

fn walk(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Refusal> {
    let top = openat2(root, OsStr::new("."), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())?;
    let exposed = exposure(&rustix::fs::fstat(&top)?, OsStr::new("/"));
    let mut way = vec![Folder { name: OsString::new(), fd: top, exposed }];
    let mut to_go: Vec<OsString> = Vec::new();
    put_before(&mut to_go, path.as_bytes());
    let mut links = 0;
    while let Some(name) = to_go.pop() {
        // There is always the root: it is never popped.
        let Some(here) = way.last() else { break };
        if name == ".." {
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let found =
            rustix::fs::openat(&here.fd, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                if let Some(why) = distrust(&stat, here) {
                    return Err(Refusal::Untrusted { link: joined(&way, &name), why });
                }
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                if target.as_bytes().starts_with(b"/") {
                    way.truncate(1);
                }
                put_before(&mut to_go, target.as_bytes());
            }
            // If a link has taken its place just now, the kernel says so.
            _ if to_go.is_empty() => {
                let here_only = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                return Ok(openat2(&here.fd, &name, flags, here_only)?);
            }
            FileType::Directory => {
                let exposed = here.exposed.clone().or_else(|| exposure(&stat, &joined(&way, &name)));
                way.push(Folder { name, fd: found, exposed });
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    let end = way.last().ok_or(Errno::NOENT)?;
    Ok(openat2(&end.fd, OsStr::new("."), flags, ResolveFlags::empty())?)
}

/// The parts of a path, so that the next one is popped first.
fn put_before(to_go: &mut Vec<OsString>, path: &[u8]) {
    let parts = path.split(|byte| *byte == b'/').rev().filter(|part| !part.is_empty() && *part != b".");
    to_go.extend(parts.map(|part| OsString::from_vec(part.to_vec())));
}

fn joined(way: &[Folder], name: &OsStr) -> OsString {
    let names = way.iter().skip(1).map(|folder| folder.name.as_os_str()).chain([name]);
    names.fold(OsString::new(), |mut path, name| {
        path.push("/");
        path.push(name);
        path
    })
}

/// Why a link must not be followed.
fn distrust(link: &Stat, folder: &Folder) -> Option<String> {
    if !is_trusted(link.st_uid) {
        return Some(format!("it belongs to user {}", link.st_uid));
    }
    folder.exposed.clone()
}

/// Why others may have changed what is in a folder.
fn exposure(folder: &Stat, path: &OsStr) -> Option<String> {
    let path = path.display();
    if !is_trusted(folder.st_uid) {
        return Some(format!("{path} on the way to it belongs to user {}", folder.st_uid));
    }
    let open_to = match folder.st_mode & 0o022 {
        0 => return None,
        0o020 => "its group",
        _ => "everybody",
    };
    Some(format!("{path} on the way to it can be written by {open_to}"))
}

fn is_trusted(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

fn openat2(folder: &OwnedFd, path: &OsStr, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(folder, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < LOOKUP_TRIES => tries += 1,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        io::Read as _,
        os::unix::fs::{PermissionsExt as _, symlink},
        path::Path,
    };

    use super::*;

    /// `/home/u` is everybody's to write; everything else is ours alone, whatever the umask.
    fn root() -> (tempfile::TempDir, OwnedFd) {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        for (folder, mode) in [
            ("etc", 0o755),
            ("usr", 0o755),
            ("usr/lib", 0o755),
            ("home", 0o755),
            ("home/u", 0o777),
            ("home/u/own", 0o755),
        ] {
            fs::create_dir(root.path().join(folder)).unwrap();
            fs::set_permissions(root.path().join(folder), Permissions::from_mode(mode)).unwrap();
        }
        fs::write(root.path().join("etc/motd"), "moo").unwrap();
        fs::write(root.path().join("usr/lib/libc"), "libc").unwrap();
        let fd = rustix::fs::open(root.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (root, fd)
    }

    #[track_caller]
    fn check(root: &OwnedFd, path: &str, expected: Result<&str, &str>) {
        let read = open(root, path, OFlags::RDONLY).map(|fd| {
            let mut text = String::new();
            fs::File::from(fd).read_to_string(&mut text).unwrap();
            text
        });
        match (read, expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{path}"),
            (Err(refusal), Err(expected)) => {
                assert_eq!(refused("read", path)(refusal).to_string(), expected, "{path}");
            }
            (read, _) => panic!("{path}: {read:?}, not {expected:?}"),
        }
    }

    #[test]
    fn links_of_root_in_folders_of_root_are_followed_and_stay_inside() {
        let (dir, root) = root();
        let link = |target: &str, at: &str| symlink(target, dir.path().join(at)).unwrap();
        link("usr/lib", "lib");
        link("/etc/motd", "etc/absolute");
        link("../../../../../etc/./motd", "etc/climbs");
        link("/lib/../lib/libc", "usr/lib/through");
        link("loop", "loop");
        for (path, content) in [
            ("/etc/motd", "moo"),
            ("/lib/libc", "libc"),
            ("/etc/absolute", "moo"),
            ("/etc/climbs", "moo"),
            ("/lib/through", "libc"),
            ("/lib/../../../etc/motd", "moo"),
        ] {
            check(&root, path, Ok(content));
        }
        check(&root, "/loop", Err("could not read /loop: Too many levels of symbolic links (os error 40)"));
        assert_eq!(open(&root, "/lib/none", OFlags::RDONLY).unwrap_err(), Refusal::System(Errno::NOENT));
        assert_eq!(open(&root, "/lib/libc/x", OFlags::RDONLY).unwrap_err(), Refusal::System(Errno::NOTDIR));
        open(&root, "/lib/..", OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    }

    #[test]
    fn as_many_links_as_the_kernel_follows() {
        let (dir, root) = root();
        symlink("/etc/motd", dir.path().join("link1")).unwrap();
        for n in 2..=41 {
            symlink(format!("link{}", n - 1), dir.path().join(format!("link{n}"))).unwrap();
        }
        check(&root, "/link40", Ok("moo"));
        check(&root, "/link41", Err("could not read /link41: Too many levels of symbolic links (os error 40)"));
    }

    #[test]
    fn a_link_that_others_may_have_put_there_is_named_with_the_reason() {
        let (dir, root) = root();
        let advice =
            "name the place that it leads to, or let only root own and write the link and the folders above it";
        symlink("/etc", dir.path().join("home/u/link")).unwrap();
        symlink("/etc", dir.path().join("home/u/own/link")).unwrap();
        symlink("/home/u/link", dir.path().join("to-home")).unwrap();
        let found = |path: &str, link: &str| {
            format!(
                "could not read {path}: {link} is a symbolic link that is not trusted, because /home/u on the way to it \
                 can be written by everybody; {advice}"
            )
        };
        check(&root, "/home/u/link/motd", Err(&found("/home/u/link/motd", "/home/u/link")));
        check(&root, "/home/u/own/link/motd", Err(&found("/home/u/own/link/motd", "/home/u/own/link")));
        check(&root, "/to-home/motd", Err(&found("/to-home/motd", "/home/u/link")));
        // Sticky, as /tmp is.
        let permit = |mode| fs::set_permissions(dir.path().join("home/u"), Permissions::from_mode(mode)).unwrap();
        permit(0o1777);
        check(&root, "/home/u/link/motd", Err(&found("/home/u/link/motd", "/home/u/link")));
        permit(0o775);
        let group = found("/home/u/link/motd", "/home/u/link").replace("everybody", "its group");
        check(&root, "/home/u/link/motd", Err(&group));
        permit(0o755);
        check(&root, "/home/u/link/motd", Ok("moo"));
    }

    #[test]
    fn owners_are_root_and_oneself() {
        assert!(is_trusted(0));
        assert!(is_trusted(rustix::process::geteuid().as_raw()));
        let stranger = rustix::process::geteuid().as_raw() + 1;
        assert!(!is_trusted(stranger));
        let stat = |path: &Path| rustix::fs::stat(path).unwrap();
        let mut folder = stat(Path::new("/"));
        folder.st_uid = stranger;
        let why = exposure(&folder, OsStr::new("/a")).unwrap();
        assert_eq!(why, format!("/a on the way to it belongs to user {stranger}"));
        let safe = Folder { name: "a".into(), fd: root().1, exposed: None };
        assert_eq!(distrust(&folder, &safe).unwrap(), format!("it belongs to user {stranger}"));
    }
}
