//! `drover-agent apply -f` as a person without a cluster calls it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it goes wrong")]

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use common::{agent, catalog, file, resource};

/// A folder as a cluster is fed from: a NodeConfig, its data, and something else.
fn manifests(folder: &Path, content: &str) {
    let owner = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let access = format!("owner: \"{owner}\", group: \"{group}\"");
    let config = format!(
        "apiVersion: drover.dev/v1alpha1\nkind: NodeConfig\nmetadata: {{name: base}}\nspec:\n  dataFrom:\n\
         \x20 - configMapRef: {{name: herd}}\n  - secretRef: {{name: door}}\n  resources:\n\
         \x20 - {{name: motd, file: {{path: /motd, template: \"{{{{ data.owner }}}} {content}\\n\", {access}}}}}\n\
         \x20 - {{name: key, file: {{path: /key, template: \"{{{{ data.key }}}}\", mode: \"0600\", {access}}}}}\n"
    );
    fs::create_dir_all(folder.join("data")).unwrap();
    fs::write(folder.join("base.yaml"), config).unwrap();
    fs::write(
        folder.join("data/all.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: herd}\ndata: {owner: us}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {name: door}\nstringData: {key: hunter2}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
    )
    .unwrap();
}

fn apply(root: &Path, folder: &Path, flags: &[&str]) -> Output {
    let mut command: Command = agent("apply", root);
    command.arg("-f").arg(folder).args(flags).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_folder_of_manifests_makes_a_machine_and_a_dry_run_shows_the_difference() {
    let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    manifests(folder.path(), "v1");
    let first = apply(root.path(), folder.path(), &[]);
    assert_eq!(first.status.code(), Some(2), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(fs::read_to_string(root.path().join("motd")).unwrap(), "us v1\n");
    assert_eq!(fs::read_to_string(root.path().join("key")).unwrap(), "hunter2");
    assert_eq!(apply(root.path(), folder.path(), &[]).status.code(), Some(0));

    manifests(folder.path(), "v2");
    fs::write(root.path().join("key"), "changed by hand").unwrap();
    let dry = apply(root.path(), folder.path(), &["--noop"]);
    assert_eq!(dry.status.code(), Some(2));
    let shown = stdout(&dry);
    assert!(shown.contains("-us v1\n+us v2\n"), "{shown}");
    assert!(shown.contains("[not shown: it may hold a secret]"), "{shown}");
    assert_eq!(fs::read_to_string(root.path().join("motd")).unwrap(), "us v1\n", "a dry run changes nothing");

    let second = apply(root.path(), folder.path(), &[]);
    assert!(stdout(&second).contains("1 changed, 1 corrected"), "{}", stdout(&second));
    for output in [first, dry, second] {
        let all = stdout(&output) + &String::from_utf8_lossy(&output.stderr);
        assert!(!all.contains("hunter2") && !all.contains("by hand"), "{all}");
    }
}

#[test]
fn a_resource_is_explained_and_what_was_replaced_can_be_read() {
    let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    manifests(folder.path(), "v1");
    let explain = |flags: &[&str]| agent("apply", root.path()).args(flags).output().unwrap();
    let nothing = explain(&["--explain", "motd"]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("this machine has no catalog yet"), "{nothing:?}");
    let files = folder.path().to_str().unwrap();
    let from_files = stdout(&explain(&["--explain", "key", "-f", files]));
    assert!(from_files.starts_with("file base/key\n  from: NodeConfig base, revision base-"), "{from_files}");
    assert!(from_files.contains("reads: data.key of Secret door") && !from_files.contains("hunter2"), "{from_files}");
    assert!(fs::read_dir(root.path()).unwrap().next().is_none(), "to explain leaves no trace");
    let unknown = explain(&["--explain", "mottd", "-f", files]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean `motd`?"), "{unknown:?}");

    let backups = |flags: &[&str]| agent("backups", root.path()).args(flags).output().unwrap();
    assert!(stdout(&backups(&[])).starts_with("no copies"));
    apply(root.path(), folder.path(), &[]);
    assert_eq!(stdout(&explain(&["--explain", "base/key"])), from_files, "what is kept is the same catalog");
    manifests(folder.path(), "v2");
    apply(root.path(), folder.path(), &[]);
    let list = stdout(&backups(&["/motd"]));
    let digest = list.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).unwrap();
    assert_eq!(stdout(&backups(&["--show", digest])), "us v1\n");
    assert_eq!(backups(&["/none"]).status.code(), Some(1));
}

#[test]
fn what_cannot_be_used_says_what_to_do() {
    let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let error = |flags: &[&str]| {
        let output = apply(root.path(), folder.path(), flags);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(error(&[]).contains("there is no NodeConfig"), "{}", error(&[]));
    manifests(folder.path(), "v1");
    fs::remove_dir_all(folder.path().join("data")).unwrap();
    assert!(
        error(&[]).contains("dataFrom names ConfigMap herd, which is not there among what was named"),
        "{}",
        error(&[])
    );
    let config = folder.path().join("base.yaml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("spec:\n", "spec:\n  hostSelector: {matchLabels: {site: b}}\n")).unwrap();
    assert!(error(&["--label", "site=a"]).contains("no NodeConfig selects this machine"), "{}", error(&[]));
}

#[test]
fn a_machine_of_a_master_is_left_alone() {
    let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    manifests(folder.path(), "v1");
    let theirs = folder.path().join("catalog.json");
    let catalog = catalog(7, vec![resource("motd", file("/motd", "theirs"), &[])]);
    fs::write(&theirs, serde_json::to_vec(&catalog).unwrap()).unwrap();
    let applied = agent("apply", root.path()).arg("--catalog").arg(&theirs).output().unwrap();
    assert_eq!(applied.status.code(), Some(2));
    let refused = apply(root.path(), &folder.path().join("base.yaml"), &[]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("a master keeps this machine (Host node-1, generation 7)"), "{why}");
    assert_eq!(fs::read_to_string(root.path().join("motd")).unwrap(), "theirs");
}
