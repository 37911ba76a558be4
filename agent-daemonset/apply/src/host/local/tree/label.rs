//! `SELinux` labels, which are extended attributes (see xattr(7)) named `security.selinux`.
//!
//! A file that takes the place of another gets that one's label. What a label of a new file must be is the machine's own
//! policy, which its program `matchpathcon` reads; without it, the kernel's default stays: the folder's.
//!
//! None of this was ever seen on a machine that runs `SELinux`: the tests copy an attribute of another name.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, XattrFlags},
    io::Errno,
};

/// The attribute.
pub(super) const ATTRIBUTE: &str = "security.selinux";

/// It is there where the running kernel enforces or watches an `SELinux` policy.
pub(super) const SWITCH: &str = "/sys/fs/selinux/enforce";

/// Labels are far shorter; the kernel allows no attribute to be longer.
const LONGEST: usize = 64 * 1024;

/// The label of a file. `None` where it has none.
pub(super) fn get(folder: &OwnedFd, name: &str, attribute: &str) -> Result<Option<Vec<u8>>, Errno> {
    // A pipe without a writer would block the open.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => file,
        // A symbolic link's own label says nothing about a file.
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut label = vec![0; LONGEST];
    match rustix::fs::fgetxattr(&file, attribute, &mut label) {
        Ok(length) => {
            label.truncate(length);
            Ok(Some(label))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sets a file's label. A file system without labels is fine: policies give all its files one.
pub(super) fn set(file: impl AsFd, attribute: &str, label: &[u8]) -> Result<(), Errno> {
    match rustix::fs::fsetxattr(file, attribute, label, XattrFlags::empty()) {
        Err(Errno::NOTSUP) => Ok(()),
        other => other,
    }
}

/// The label in what `matchpathcon -n PATH` prints; see matchpathcon(8).
pub(crate) fn parse(printed: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(printed).ok()?.trim();
    // The kernel wants the NUL that C strings end with.
    (text.contains(':') && !text.contains('\n')).then(|| [text.as_bytes(), b"\0"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_or_the_words_for_none() {
        for (printed, label) in [
            ("system_u:object_r:etc_t:s0\n", Some(&b"system_u:object_r:etc_t:s0\0"[..])),
            ("<<none>>\n", None),
            ("", None),
        ] {
            assert_eq!(parse(printed.as_bytes()).as_deref(), label, "{printed:?}");
        }
    }
}
