//! An archive and a download on a folder that stands for a machine, from the catalog to the files. Their owner is root,
//! so this needs root; without it the test says that it is skipped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it goes wrong")]

mod common;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use common::{agent, catalog, resource};
use drover_catalog::{ArchiveSpec, Digest, DownloadSpec, Part};

fn apply(root: &Path, generation: i64, parts: Vec<Part>) -> String {
    let names = ["one", "two"];
    let resources = names.iter().zip(parts).map(|(name, part)| resource(name, part, &[])).collect();
    let mut child =
        agent("apply", root).args(["--catalog", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&catalog(generation, resources)).unwrap()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn an_archive_is_unpacked_repaired_and_replaced() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: this needs root");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    fs::create_dir_all(at("opt/tool")).unwrap();
    let tar = |version: &str, files: &[&str]| {
        let folder = at(&format!("tool-{version}"));
        for file in files {
            fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
            fs::write(folder.join(file), version).unwrap();
        }
        let archive = at(&format!("tool-{version}.tar.gz"));
        let mut tar = Command::new("tar");
        tar.arg("-czf").arg(&archive).arg("-C").arg(root.path()).arg(format!("tool-{version}"));
        assert!(tar.status().unwrap().success());
        Digest::of(&fs::read(archive).unwrap())
    };
    let parts = |version: &str, sha256: &Digest| {
        let (url, sha256) = (format!("file:///tool-{version}.tar.gz"), sha256.clone());
        let (owner, group, timeout_seconds) = ("0".to_owned(), "0".to_owned(), 60);
        let download = DownloadSpec {
            url: url.clone(),
            sha256: sha256.clone(),
            path: "/opt/tool.tar.gz".into(),
            mode: 0o640,
            owner: owner.clone(),
            group: group.clone(),
            timeout_seconds,
        };
        let (name, into) = ("tool".to_owned(), "/opt/tool".to_owned());
        let archive = ArchiveSpec { name, url, sha256, into, strip_components: 1, owner, group, timeout_seconds };
        vec![Part::Download(download), Part::Archive(archive)]
    };
    let (first, second) = (tar("1", &["bin/tool", "share/old/doc"]), tar("2", &["bin/tool", "share/new"]));
    let said = apply(root.path(), 1, parts("1", &first));
    assert!(said.contains("base/one  fetched\n") && said.contains("base/two  unpacked\n"), "{said}");
    assert_eq!(fs::read_to_string(at("opt/tool/bin/tool")).unwrap(), "1");
    assert!(apply(root.path(), 1, parts("1", &first)).starts_with("0 changed, 2 unchanged"));
    fs::remove_file(at("opt/tool/bin/tool")).unwrap();
    let said = apply(root.path(), 1, parts("1", &first));
    assert!(said.contains("base/two  unpacked anew: bin/tool is missing or changed"), "{said}");
    let said = apply(root.path(), 2, parts("2", &second));
    assert!(said.contains(&format!("base/two  unpacked anew, {} -> {}", first.short(12), second.short(12))), "{said}");
    assert_eq!(fs::read_to_string(at("opt/tool/bin/tool")).unwrap(), "2");
    assert!(at("opt/tool/share/new").exists() && !at("opt/tool/share/old").exists());
    // The stamp, and nothing of the archive itself.
    let mut names: Vec<_> =
        fs::read_dir(at("opt/tool")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!((names.len(), &names[1..]), (3, &["bin".to_owned(), "share".to_owned()][..]), "{names:?}");
    let wrong = apply(root.path(), 3, parts("1", &Digest::of(b"another")));
    assert!(wrong.contains("FAILED    base/one  could not fetch file:///tool-1.tar.gz: its SHA-256 is"), "{wrong}");
    assert_eq!(fs::read_to_string(at("opt/tool/bin/tool")).unwrap(), "2");
}
