//! A folder that stands for a machine: made, copied, looked at.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink},
    path::Path,
};

use drover_catalog::Digest;
use rustix::fs::{Mode, OFlags};

/// What a case may not touch: the same in all of them, so that they share it.
const PROGRAMS: &str = "bin";
/// Where listeners write.
pub(crate) const LOGS: &str = "log";
/// Where the agent remembers.
pub(crate) const STATE: &str = "var/lib/drover";

/// The programs that commands of the catalog use.
const APPLETS: &[&str] = &["sh", "mkdir", "mv", "readlink", "sha256sum", "stat", "test"];

/// Appends to the log `$1` one line on what all other arguments are now. A link is what it says: what it leads to is
/// another's to tell of. What is not there is told as well, with exit code 1 of who looks; anything else ends the listener.
const RECORD: &str = "#!/bin/sh
log=/log/$1
shift
now=$(
    stat -c '%N %F %a %u:%g' \"$@\" 2>&1 || test $? = 1 || exit 1
    for path; do test -L \"$path\" || sha256sum \"$path\" 2>&1 || test $? = 1 || exit 1; done
) || exit 1
echo $now >>\"$log\"
";

/// Makes a machine on which nothing was applied yet.
pub(crate) fn make(root: &Path, busybox: &Path) -> io::Result<()> {
    for folder in [PROGRAMS, LOGS, "etc/sysctl.d", "srv", "root", "tmp", "var/lib"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let programs = root.join(PROGRAMS);
    fs::copy(busybox, programs.join("busybox"))?;
    for applet in APPLETS {
        symlink("busybox", programs.join(applet))?;
    }
    fs::write(programs.join("record"), RECORD)?;
    fs::set_permissions(programs.join("record"), fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")
}

/// Copies a machine with owners and modes.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let meta = from.symlink_metadata()?;
    if meta.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return lchown(to, Some(meta.uid()), Some(meta.gid()));
    }
    if meta.is_dir() {
        fs::create_dir(to)?;
        let shared = from.ends_with(PROGRAMS);
        for found in fs::read_dir(from)? {
            let found = found?;
            let to = to.join(found.file_name());
            if shared && found.file_type()?.is_file() {
                fs::hard_link(found.path(), to)?;
            } else {
                copy(&found.path(), &to)?;
            }
        }
    } else {
        fs::copy(from, to)?;
    }
    lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, meta.permissions())
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    File { content: Vec<u8>, mode: u32, user: u32, group: u32 },
    Directory { mode: u32, user: u32, group: u32 },
    Link(String),
    Other,
}

impl Found {
    /// A file is opened once, so that all that is said of it is of one file.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        loop {
            let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(fd) => fs::File::from(fd),
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(Self::Nothing),
                Err(rustix::io::Errno::LOOP) => match fs::read_link(path) {
                    Ok(target) => return Ok(Self::Link(target.to_string_lossy().into_owned())),
                    // It was a link just now.
                    Err(_) => continue,
                },
                Err(errno) => return Err(errno.into()),
            };
            let meta = file.metadata()?;
            let (mode, user, group) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
            return Ok(if meta.is_dir() {
                Self::Directory { mode, user, group }
            } else if meta.is_file() {
                let mut content = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
                file.read_to_end(&mut content)?;
                Self::File { content, mode, user, group }
            } else {
                Self::Other
            });
        }
    }

    /// A few words for a message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Nothing => "nothing".into(),
            Self::File { content, mode, user, group } => {
                let digest = Digest::of(content);
                format!("a file of {} bytes, {}, {mode:04o} {user}:{group}", content.len(), digest.short(8))
            }
            Self::Directory { mode, user, group } => format!("a directory, {mode:04o} {user}:{group}"),
            Self::Link(target) => format!("a link to {target}"),
            Self::Other => "a special file".into(),
        }
    }
}

/// All of a machine but its programs and its logs, by path.
pub(crate) fn manifest(root: &Path) -> io::Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    look(root, "", &mut found)?;
    Ok(found)
}

fn look(root: &Path, folder: &str, manifest: &mut BTreeMap<String, Found>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        // Which copies of replaced files are kept depends on where a run was cut off.
        if path == PROGRAMS || path == LOGS || path == format!("{STATE}/backups") {
            continue;
        }
        let found = Found::at(&root.join(&path))?;
        if matches!(found, Found::Directory { .. }) {
            look(root, &path, manifest)?;
        }
        manifest.insert(path, found);
    }
    Ok(())
}

/// How two machines differ, a line each.
pub(crate) fn differences(expected: &BTreeMap<String, Found>, found: &BTreeMap<String, Found>) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let nothing = Found::Nothing;
    let mut lines = Vec::new();
    for path in paths {
        let (expected, found) = (expected.get(path).unwrap_or(&nothing), found.get(path).unwrap_or(&nothing));
        if expected != found {
            lines.push(format!("/{path} is {}, not {}", found.describe(), expected.describe()));
        }
    }
    lines
}

/// The last line of a log; empty when there is none.
pub(crate) fn last_line(root: &Path, log: &str) -> String {
    let text = fs::read_to_string(root.join(LOGS).join(log)).unwrap_or_default();
    text.lines().last().unwrap_or_default().to_owned()
}
