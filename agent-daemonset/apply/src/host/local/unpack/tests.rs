use std::{
    fs,
    io::Write as _,
    os::fd::AsFd as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use super::*;

/// An entry of a tar that a test makes: header fields as they are, also those that no archiver writes.
#[derive(Clone, Copy)]
enum Made<'a> {
    File(&'a str, u32, &'a str),
    Directory(&'a str),
    Symlink(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Of(&'a str, tar::EntryType),
}

use Made::{Directory, File as Regular, Hard, Of, Symlink};

fn tar_of(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let (name, kind, mode, content, target) = match *entry {
            Regular(name, mode, content) => (name, tar::EntryType::Regular, mode, content, ""),
            Directory(name) => (name, tar::EntryType::Directory, 0o777, "", ""),
            Symlink(name, target) => (name, tar::EntryType::Symlink, 0o777, "", target),
            Hard(name, target) => (name, tar::EntryType::Link, 0o644, "", target),
            Of(name, kind) => (name, kind, 0o644, "", ""),
        };
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        // Past the checks of the library, which would refuse what an attacker writes.
        let raw = header.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("into")).unwrap();
        fs::create_dir(root.path().join("outside")).unwrap();
        Self { root }
    }

    fn folder(&self) -> std::path::PathBuf {
        self.root.path().join("into")
    }

    fn unpack(&self, archive: &[u8], strip: u32, replaces: &[String]) -> Result<Vec<(String, u64)>, UnpackError> {
        self.unpack_within(archive, strip, replaces, LIMITS)
    }

    fn unpack_within(
        &self,
        archive: &[u8],
        strip: u32,
        replaces: &[String],
        limits: Limits,
    ) -> Result<Vec<(String, u64)>, UnpackError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(archive).unwrap();
        let into = OwnedFd::from(File::open(self.folder()).unwrap());
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        unpack_file(Archive { file, strip, replaces }, Folder::new(into, user, group), limits, &AtomicBool::new(false))
    }

    /// What is in the folder, a line each.
    fn tree(&self) -> String {
        fn look(folder: &Path, into: &Path, lines: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(into).unwrap().display().to_string();
                let metadata = fs::symlink_metadata(&path).unwrap();
                if metadata.is_symlink() {
                    lines.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
                    continue;
                }
                let mode = metadata.permissions().mode() & 0o7777;
                if metadata.is_dir() {
                    lines.push(format!("{name}/ {mode:o}"));
                    look(&path, into, lines);
                } else {
                    lines.push(format!("{name} {mode:o} {}", fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut lines = Vec::new();
        look(&self.folder(), &self.folder(), &mut lines);
        lines.sort();
        lines.join("\n")
    }

    /// Nothing but the two folders, and nothing in the second.
    fn nothing_is_outside(&self) {
        assert_eq!(fs::read_dir(self.root.path()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(self.root.path().join("outside")).unwrap().count(), 0);
    }
}

const TOOL: [Made<'_>; 5] = [
    Directory("tool-1/"),
    Regular("tool-1/bin/tool", 0o6777, "moo"),
    Symlink("tool-1/bin/t", "tool"),
    Symlink("tool-1/lib", "./bin"),
    Hard("tool-1/copy", "tool-1/bin/tool"),
];

#[test]
fn files_directories_and_links_are_unpacked_without_their_dangerous_bits() {
    let place = Place::new();
    let unpacked = place.unpack(&tar_of(&TOOL), 1, &[]).unwrap();
    assert_eq!(place.tree(), "bin/ 755\nbin/t -> tool\nbin/tool 755 moo\ncopy 755 moo\nlib -> ./bin");
    let expected = [("bin/t", 4), ("bin/tool", 3), ("copy", 3), ("lib", 5)];
    assert_eq!(unpacked, expected.map(|(path, size)| (path.to_owned(), size)));
    for (path, size) in &unpacked {
        assert_eq!(fs::symlink_metadata(place.folder().join(path)).unwrap().size(), *size);
    }
    // Again, over what is there.
    place.unpack(&tar_of(&TOOL), 1, &[]).unwrap();
    let private = place.unpack(&tar_of(&[Regular("f", 0, "")]), 0, &[]);
    assert!(private.is_ok() && place.tree().contains("\nf 600 "), "{}", place.tree());
}

#[test]
fn every_format_is_told_by_its_first_bytes() {
    let tar = tar_of(&TOOL);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let programs = [("xz", vec!["--compress", "--stdout"]), ("zstd", vec!["--quiet", "--stdout"])];
    let compressed = programs.into_iter().filter_map(|(program, arguments)| {
        let input = tempfile::NamedTempFile::new().unwrap();
        fs::write(input.path(), &tar).unwrap();
        let output = std::process::Command::new(program).args(arguments).arg(input.path()).output();
        if output.is_err() {
            println!("skipped: this machine has no {program}");
        }
        output.ok().map(|output| output.stdout)
    });
    for archive in [tar.clone(), gzip.finish().unwrap()].into_iter().chain(compressed) {
        let place = Place::new();
        place.unpack(&archive, 1, &[]).unwrap();
        assert!(place.tree().starts_with("bin/ 755\nbin/t -> tool\nbin/tool 755 moo\n"), "{}", place.tree());
    }
    let said = |bytes: &[u8]| Place::new().unpack(bytes, 0, &[]).unwrap_err().to_string();
    assert_eq!(said(b"BZh9"), "bzip2 is not supported; use gzip, xz, zstd or zip");
    assert_eq!(said(b"#!/bin/sh"), "it is no tar, tar.gz, tar.xz, tar.zst or zip");
    assert!(said(&gzip_of(b"no tar")).starts_with("could not read it:"));
    assert!(said(&tar[..700]).starts_with("could not read it:"));
}

fn gzip_of(content: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn a_zip_is_unpacked_by_the_same_rules() {
    let zip_of = |entries: &[(&str, u32, &str)]| {
        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, mode, content) in entries {
            let options = zip::write::SimpleFileOptions::default().unix_permissions(mode & 0o7777);
            if *mode & 0o170_000 == 0o120_000 {
                writer.add_symlink(*name, *content, options).unwrap();
            } else {
                writer.start_file(*name, options).unwrap();
                writer.write_all(content.as_bytes()).unwrap();
            }
        }
        writer.finish().unwrap().into_inner()
    };
    let place = Place::new();
    place.unpack(&zip_of(&[("t-1/bin/tool", 0o755, "moo"), ("t-1/t", 0o120_777, "bin/tool")]), 1, &[]).unwrap();
    assert_eq!(place.tree(), "bin/ 755\nbin/tool 755 moo\nt -> bin/tool");
    for bad in [("../outside/f", 0o644, ""), ("/f", 0o644, ""), ("l", 0o120_777, "/etc")] {
        let place = Place::new();
        assert!(matches!(place.unpack(&zip_of(&[bad]), 0, &[]), Err(UnpackError::Entry { .. })), "{bad:?}");
        place.nothing_is_outside();
    }
}

#[test]
fn nothing_leaves_the_folder() {
    let check = |entries: &[Made<'_>], expected: &str| {
        let place = Place::new();
        let said = place.unpack(&tar_of(entries), 0, &[]).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
        place.nothing_is_outside();
        assert!(!place.tree().contains(".drover-"), "{}", place.tree());
    };
    check(&[Regular("/etc/f", 0o644, "")], "/etc/f has an absolute path");
    check(&[Regular("../outside/f", 0o644, "")], "has .. in its path");
    check(&[Regular("a/../../outside/f", 0o644, "")], "has .. in its path");
    check(&[Symlink("l", "../outside"), Regular("l/f", 0o644, "")], "l is a symbolic link that points out");
    check(&[Symlink("l", "/etc"), Regular("l/f", 0o644, "")], "l is a symbolic link that points out");
    check(&[Symlink("l", "d"), Directory("d"), Regular("l/f", 0o644, "")], "l/f: there is a symbolic link on its way");
    check(&[Symlink("l", "."), Regular("l/f", 0o644, "")], "there is a symbolic link on its way");
    check(&[Symlink("l", "."), Directory("l")], "there is a symbolic link on its way");
    check(&[Hard("h", "../outside/f")], "has .. in its path");
    check(&[Hard("h", "/etc/passwd")], "has an absolute path");
    check(&[Hard("h", "missing")], "h is a hard link to a file that the archive does not have");
    check(&[Of("null", tar::EntryType::Char)], "null is a device");
    check(&[Of("disk", tar::EntryType::Block)], "disk is a device");
    check(&[Of("pipe", tar::EntryType::Fifo)], "pipe is a device");
    check(&[Regular(".drover-archive-0", 0o644, "")], "for the agent's own files");
}

#[test]
fn a_link_that_was_there_before_is_not_followed_either() {
    let place = Place::new();
    symlink("../outside", place.folder().join("bin")).unwrap();
    let said = place.unpack(&tar_of(&TOOL), 1, &[]).unwrap_err().to_string();
    assert!(said.contains("there is a symbolic link on its way"), "{said}");
    place.nothing_is_outside();
    // The last part is replaced.
    let place = Place::new();
    symlink("../outside/f", place.folder().join("f")).unwrap();
    place.unpack(&tar_of(&[Regular("f", 0o644, "moo")]), 0, &[]).unwrap();
    assert_eq!(place.tree(), "f 644 moo");
    place.nothing_is_outside();
}

#[test]
fn an_archive_that_unpacks_to_too_much_is_refused() {
    let within = |archive: &[u8], entries, bytes| {
        let place = Place::new();
        let said = place.unpack_within(archive, 0, &[], Limits { entries, bytes }).unwrap_err().to_string();
        assert!(!place.tree().contains(".drover-"), "{}", place.tree());
        said
    };
    let many: Vec<Made<'_>> = (0..11).map(|_| Directory("d")).collect();
    assert_eq!(within(&tar_of(&many), 10, 1 << 30), "it has more than 10 entries, which is the limit");
    let big = "0".repeat(3 << 20);
    let bomb = gzip_of(&tar_of(&[Regular("big", 0o644, &big)]));
    assert!(bomb.len() < 10_000);
    assert_eq!(within(&bomb, 10, 2 << 20), "it unpacks to more than 2 MiB, which is the limit");
    // A name of many MiB would be kept in memory as a whole.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_path("././@LongLink").unwrap();
    header.set_size(3 << 20);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, big.as_bytes()).unwrap();
    let said = within(&gzip_of(&builder.into_inner().unwrap()), 10, 1 << 30);
    assert!(said.contains("headers of one of its entries"), "{said}");
}

#[test]
fn what_an_older_archive_had_goes_and_never_anything_outside() {
    let place = Place::new();
    let old = place.unpack(&tar_of(&[Regular("a", 0o644, ""), Regular("d/e/b", 0o644, "")]), 0, &[]).unwrap();
    fs::write(place.root.path().join("outside/f"), "").unwrap();
    symlink("../outside", place.folder().join("l")).unwrap();
    fs::create_dir(place.folder().join("mine")).unwrap();
    let further = ["l/f", "../outside/f", "/etc/hostname", "mine", "missing/x"].map(str::to_owned);
    let replaces: Vec<String> = old.into_iter().map(|(path, _)| path).chain(further).collect();
    place.unpack(&tar_of(&[Regular("a", 0o644, "new")]), 0, &replaces).unwrap();
    assert_eq!(place.tree(), "a 644 new\nl -> ../outside\nmine/ 755");
    assert!(place.root.path().join("outside/f").exists());
}

#[test]
fn it_ends_when_it_is_told_to() {
    let place = Place::new();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&tar_of(&TOOL)).unwrap();
    let folder = Folder::new(OwnedFd::from(File::open(place.folder()).unwrap()), 0, 0);
    let result = unpack_file(Archive { file, strip: 0, replaces: &[] }, folder, LIMITS, &AtomicBool::new(true));
    assert!(matches!(result, Err(UnpackError::Stopped)));
    assert_eq!(place.tree(), "");
}

#[test]
fn the_entrance_for_fuzzing_unpacks_and_tidies_up() {
    assert_eq!(crate::fuzzing::unpack(&tar_of(&[Regular("a", 0o644, "")])), Ok(1));
    assert!(crate::fuzzing::unpack(b"").is_err());
    assert!(!crate::fuzzing::unpack(&tar_of(&[Regular("../a", 0o644, "")])).unwrap_err().starts_with("ESCAPE"));
}

#[test]
fn a_changed_archive_is_not_unpacked() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("into")).unwrap();
    fs::write(root.path().join("a.tar"), tar_of(&TOOL)).unwrap();
    let tree = Tree::open(root.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let unpack = |sha256: &Digest| {
        let unpack =
            Unpack { archive: "/a.tar", sha256, into: "/into", strip_components: 0, user, group, replaces: &[] };
        runtime.block_on(super::unpack(&tree, &unpack))
    };
    let said = unpack(&Digest::of(b"")).unwrap_err().to_string();
    assert_eq!(said, "could not unpack /a.tar: somebody has changed it since it was fetched");
    assert_eq!(unpack(&Digest::of(&tar_of(&TOOL))).unwrap().len(), 4);
}

#[test]
fn only_a_new_link_is_given_away() {
    let place = Place::new();
    let folder = place.folder();
    symlink("target", folder.join("new")).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    symlink("target", folder.join("old")).unwrap();
    fs::hard_link(folder.join("old"), folder.join("again")).unwrap();
    let root = File::open(&folder).unwrap();
    // Root can give to somebody else, all others to themselves.
    let me = rustix::process::geteuid().as_raw();
    let (user, group) = if me == 0 { (7, 7) } else { (me, rustix::process::getegid().as_raw()) };
    for (name, given) in [("new", true), ("file", false), ("old", false), ("again", false), ("none", false)] {
        let result = folder::own_link(root.as_fd(), name, user, group);
        assert_eq!(result.is_ok(), given, "{name}: {result:?}");
        let owner = fs::symlink_metadata(folder.join(name)).map_or(me, |found| found.uid());
        assert_eq!(owner, if given { user } else { me }, "{name}");
    }
}
