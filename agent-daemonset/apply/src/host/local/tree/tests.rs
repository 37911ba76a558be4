use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use rustix::fs::XattrFlags;

use super::*;

/// A label that anybody may set.
const LABEL: &str = "user.drover-label";

fn tree() -> (tempfile::TempDir, Tree) {
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    fs::create_dir(&etc).unwrap();
    fs::set_permissions(&etc, Permissions::from_mode(0o755)).unwrap();
    let tree = Tree { label: LABEL, ..Tree::open(root.path()).unwrap() };
    (root, tree)
}

fn mine(mode: u32) -> Access {
    Access { mode, user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() }
}

/// With a label on `/etc/labelled`.
fn labelled(root: &Path) {
    let path = root.join("etc/labelled");
    fs::write(&path, "old").unwrap();
    // Ext4, xfs, btrfs and (since Linux 6.6) tmpfs can do this.
    rustix::fs::setxattr(&path, LABEL, b"etc_t\0", XattrFlags::empty()).unwrap();
}

fn label_of(root: &Path, path: &str) -> Option<Vec<u8>> {
    let mut label = vec![0; 100];
    let length = rustix::fs::getxattr(root.join(path), LABEL, &mut label).ok()?;
    label.truncate(length);
    Some(label)
}

#[test]
fn a_file_takes_over_the_label_of_the_one_that_it_replaces() {
    let (root, tree) = tree();
    fs::create_dir_all(root.path().join("sys/fs/selinux")).unwrap();
    fs::write(root.path().join("sys/fs/selinux/enforce"), "1").unwrap();
    labelled(root.path());
    fs::write(root.path().join("etc/bare"), "old").unwrap();
    for path in ["/etc/labelled", "/etc/bare"] {
        assert!(!tree.needs_label(path));
        tree.write_file(path, b"new", mine(0o600)).unwrap();
    }
    assert_eq!(label_of(root.path(), "etc/labelled").unwrap(), b"etc_t\0");
    assert_eq!(label_of(root.path(), "etc/bare"), None);

    assert!(tree.needs_label("/etc/new"));
    tree.stage_file("/etc/new", b"new", mine(0o600), Some(b"new_t\0")).unwrap().place().unwrap();
    assert_eq!(label_of(root.path(), "etc/new").unwrap(), b"new_t\0");
}

#[test]
fn without_selinux_no_label_is_looked_at() {
    let (root, tree) = tree();
    labelled(root.path());
    assert!(!tree.needs_label("/etc/new"));
    tree.write_file("/etc/labelled", b"new", mine(0o600)).unwrap();
    assert_eq!(label_of(root.path(), "etc/labelled"), None);
}

#[test]
fn a_hard_link_keeps_the_old_content_and_access() {
    let (root, tree) = tree();
    fs::write(root.path().join("etc/shadow"), "secret").unwrap();
    fs::set_permissions(root.path().join("etc/shadow"), Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(root.path().join("etc/shadow"), root.path().join("etc/motd")).unwrap();
    tree.write_file("/etc/motd", b"moo", mine(0o644)).unwrap();
    let shadow = root.path().join("etc/shadow");
    assert_eq!(fs::read(&shadow).unwrap(), b"secret");
    assert_eq!(shadow.metadata().unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn an_entry_and_its_content_are_of_one_file() {
    let (root, tree) = tree();
    fs::write(root.path().join("etc/motd"), "moo").unwrap();
    symlink("motd", root.path().join("etc/link")).unwrap();
    let read = |path| tree.read_entry(path, 3).unwrap().map(|(entry, content)| (entry.kind, content));
    assert_eq!(read("/etc/motd"), Some((EntryKind::File, b"moo".to_vec())));
    assert_eq!(read("/etc/link"), Some((EntryKind::SymbolicLink, Vec::new())));
    assert_eq!(read("/etc"), Some((EntryKind::Directory, Vec::new())));
    assert_eq!(read("/etc/none"), None);
    assert_eq!(read("/none/none"), None);
}

#[test]
fn a_hard_link_is_told_from_a_file_of_its_own() {
    let (root, tree) = tree();
    fs::write(root.path().join("etc/shadow"), "secret").unwrap();
    let shared = |path| tree.read_entry(path, 100).unwrap().unwrap().0.has_other_names;
    assert!(!shared("/etc/shadow"));
    fs::hard_link(root.path().join("etc/shadow"), root.path().join("etc/link")).unwrap();
    assert!(shared("/etc/shadow") && shared("/etc/link"));
    // A directory has a link of its own inside.
    assert!(!shared("/etc"));
}

#[test]
fn a_file_without_end_is_not_read() {
    let (root, tree) = tree();
    let large = |name: &str, bytes: u64| {
        fs::File::create(root.path().join("etc").join(name)).unwrap().set_len(bytes).unwrap();
    };
    large("fits", 16 << 20);
    large("above", (16 << 20) + 1);
    large("status", 64 << 20);
    large("endless", 64 << 30);
    let read = |path| match tree.read_entry(path, 16 << 20) {
        Ok(found) => found.map_or("none".to_owned(), |(_, content)| content.len().to_string()),
        Err(error) => error.to_string(),
    };
    let refused = |path: &str, limit: u32| {
        format!("{path} is larger than {limit} MiB, which no configuration file is; see what it is, and move it away")
    };
    assert_eq!(read("/etc/fits"), (16 << 20).to_string());
    assert_eq!(read("/etc/above"), refused("/etc/above", 16));
    assert_eq!(read("/etc/endless"), refused("/etc/endless", 16));
    assert_eq!(tree.read_file("/etc/status").unwrap().unwrap().len(), 64 << 20);
    assert_eq!(tree.read_file("/etc/endless").unwrap_err().to_string(), refused("/etc/endless", 64));
    // What says that it has no size, and does not end.
    let own = Tree::open(Path::new("/")).unwrap();
    let mountinfo = own.read_entry("/proc/self/mountinfo", 1);
    assert!(matches!(mountinfo, Err(HostError::TooLarge { limit: 1, .. })), "{mountinfo:?}");
}

#[test]
fn a_directory_goes_when_it_is_empty_or_with_all_that_is_in_it() {
    let (root, tree) = tree();
    let precious = root.path().join("etc/precious");
    fs::write(&precious, "keep").unwrap();
    let inside = root.path().join("srv/a/b");
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("file"), "").unwrap();
    fs::write(inside.join(std::ffi::OsStr::new("caf\u{e9}")), "").unwrap();
    symlink(root.path().join("etc"), inside.join("link")).unwrap();
    fs::write(inside.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"latin\xe9")), "").unwrap();
    assert_eq!(tree.count_tree("/srv", 10_000).unwrap(), 7);
    assert!(tree.count_tree("/srv", 2).unwrap() > 2);
    assert_eq!(tree.count_tree("/none", 2).unwrap(), 0);
    let error = tree.remove_directory("/srv").unwrap_err().to_string();
    assert!(error.starts_with("could not remove") && error.contains("not empty"), "{error}");
    tree.remove_tree("/srv").unwrap();
    assert!(!root.path().join("srv").exists());
    assert_eq!(fs::read(&precious).unwrap(), b"keep");
    tree.remove_tree("/srv").unwrap();
    tree.remove_directory("/none/srv").unwrap();
    fs::create_dir(root.path().join("srv")).unwrap();
    tree.remove_directory("/srv").unwrap();
    assert!(!root.path().join("srv").exists());
}

#[test]
fn what_is_mounted_in_a_directory_is_never_entered() {
    // Every machine has a kernel's file system there; to look is all that this test does.
    let error = Tree::open(Path::new("/")).unwrap().count_tree("/proc", 10_000).unwrap_err().to_string();
    assert!(error.contains("another file system is mounted in there"), "{error}");
}

#[test]
fn a_half_made_link_is_a_leftover_too() {
    let (root, tree) = tree();
    symlink("nowhere", root.path().join("etc/.drover-1-2.tmp")).unwrap();
    tree.remove_leftovers("/etc").unwrap();
    assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 0);
}
