//! Files, directories, links and edits of one catalog, on a folder that stands for a machine.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use drover_apply::{LocalHost, Mode, Run, StateDir};
use drover_catalog::{
    Catalog, Digest, DirectorySpec, Edit, EditSpec, FileSpec, HostIdentity, Part, Place, Presence, Resource,
    ResourceId, ResourceStatus, RevisionRef, Sensitive, SensitiveBytes, SymlinkSpec,
};
use futures::executor::block_on;

fn me() -> (String, String) {
    (rustix::process::geteuid().as_raw().to_string(), rustix::process::getegid().as_raw().to_string())
}

fn catalog() -> Catalog {
    let (owner, group) = me();
    let motd = FileSpec {
        path: "/etc/motd".into(),
        content: Some(SensitiveBytes::new("new\n")),
        mode: 0o644,
        owner: owner.clone(),
        group: group.clone(),
        validate: None,
    };
    let keys = FileSpec { path: "/etc/key".into(), mode: 0o600, ..motd.clone() };
    let conf_d = DirectorySpec {
        path: "/etc/conf.d".into(),
        state: Presence::Present,
        mode: 0o755,
        owner,
        group,
        purge: true,
        keep: vec!["ours-*".into()],
    };
    let localtime = SymlinkSpec { path: "/etc/localtime".into(), target: Some("/usr/UTC".into()), force: true };
    let edit = |edit| Part::Edit(EditSpec { path: "/etc/app.ini".into(), edit, create: None, validate: None });
    let setting = Edit::Ini {
        state: Presence::Present,
        section: "log".into(),
        key: "level".into(),
        value: Sensitive::new("debug"),
        separator: " = ".into(),
    };
    let line = Edit::Line {
        state: Presence::Present,
        line: Sensitive::new("# by drover"),
        matching: None,
        place: Place::Beginning,
    };
    let parts = [
        ("motd", Part::File(motd)),
        ("key", Part::File(keys)),
        ("conf.d", Part::Directory(conf_d)),
        ("localtime", Part::Symlink(localtime)),
        ("level", edit(setting)),
        ("header", edit(line)),
    ];
    let resource = |(name, part)| Resource::new(ResourceId::new("base", name), "test", vec![part]);
    Catalog {
        host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
        generation: 1,
        revisions: vec![RevisionRef { node_config: "base".into(), revision: "base-1".into() }],
        interval_seconds: 3600,
        resources: parts.map(resource).into(),
        reboot: None,
        commands: vec![],
        digest: Digest::of(b""),
    }
    .seal()
    .unwrap()
}

fn run(root: &Path, mode: Mode) -> Vec<(String, ResourceStatus, String)> {
    let host = LocalHost::open(root, false).unwrap();
    let state = StateDir::new(root, "/state").unwrap();
    let run = Run { host: &host, state: &state, mode, differences: false, stop: &|| false };
    let result = block_on(run.apply(&catalog())).unwrap();
    result.resources.into_iter().map(|said| (said.id.as_str().to_owned(), said.status, said.message)).collect()
}

#[test]
fn a_machine_becomes_what_is_wanted_once() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for folder in ["etc", "etc/conf.d", "etc/conf.d/old"] {
        fs::create_dir(at(folder)).unwrap();
        fs::set_permissions(at(folder), Permissions::from_mode(0o755)).unwrap();
    }
    for (path, content, mode) in [
        ("etc/motd", "old\n", 0o644),
        ("etc/key", "secret\n", 0o600),
        ("etc/conf.d/ours-a", "", 0o644),
        ("etc/conf.d/old/file", "", 0o644),
        ("etc/localtime", "UTC\n", 0o644),
        ("etc/app.ini", "[log]\r\nlevel=info\r\n", 0o640),
        ("etc/precious", "keep", 0o644),
    ] {
        fs::write(at(path), content).unwrap();
        fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
    }
    symlink("../../precious", at("etc/conf.d/old/link")).unwrap();

    let expected = [
        ("base/motd", "content replaced"),
        ("base/key", "content replaced"),
        ("base/conf.d", "purged 3 entries: old"),
        ("base/localtime", "replaced a file"),
        ("base/level", "setting [log] level set"),
        ("base/header", "line set"),
    ];
    for (mode, status) in [(Mode::Noop, ResourceStatus::Pending), (Mode::Apply, ResourceStatus::Changed)] {
        let expected = expected.map(|(id, message)| (id.to_owned(), status, message.to_owned()));
        assert_eq!(run(root.path(), mode), expected);
    }
    assert_eq!(fs::read_to_string(at("etc/motd")).unwrap(), "new\n");
    assert_eq!(fs::read_link(at("etc/localtime")).unwrap(), Path::new("/usr/UTC"));
    assert_eq!(fs::read_to_string(at("etc/app.ini")).unwrap(), "# by drover\r\n[log]\r\nlevel=debug\r\n");
    assert_eq!(at("etc/app.ini").metadata().unwrap().mode() & 0o7777, 0o640);
    assert!(at("etc/conf.d/ours-a").exists() && !at("etc/conf.d/old").exists());
    assert_eq!(fs::read_to_string(at("etc/precious")).unwrap(), "keep");
    for (id, status, message) in run(root.path(), Mode::Apply) {
        assert_eq!((status, message.as_str()), (ResourceStatus::Unchanged, ""), "{id}, the second time");
    }

    // What only some could read is not kept.
    let state = StateDir::new(root.path(), "/state").unwrap();
    let kept = state.backups().list().unwrap();
    let found: Vec<_> = kept
        .iter()
        .map(|backup| (backup.path.as_str(), state.backups().read(backup.digest.as_str()).unwrap().unwrap()))
        .collect();
    assert_eq!(found, [("/etc/motd", b"old\n".to_vec()), ("/etc/localtime", b"UTC\n".to_vec())]);
}
