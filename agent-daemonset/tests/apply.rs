//! `drover-agent apply`, `facts` and `run-in-root` as a person or an SSH Job calls them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it goes wrong")]

mod common;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use common::{agent, catalog, exec, file, resource};
use drover_catalog::{Catalog, Facts, Outcome, Report};

/// Applies a catalog that comes by standard input.
fn apply(root: &Path, catalog: &Catalog, flags: &[&str]) -> Output {
    let mut child = agent("apply", root)
        .args(["--catalog", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(catalog).unwrap()).unwrap();
    child.wait_with_output().unwrap()
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), stdout, "{stderr}");
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn the_exit_code_tells_whether_something_changed() {
    let root = tempfile::tempdir().unwrap();
    let motd = catalog(1, vec![resource("motd", file("/motd", "moo\n"), &[])]);
    let changed = " base/motd  created\n1 changed, 0 unchanged, 0 deferred, 0 failed, 0 skipped";
    let difference = "created\n--- /dev/null\n+++ /motd\n@@ -0,0 +1 @@\n+moo";
    let would = changed.replace("1 changed", "1 would change").replace("created", difference);
    check(&apply(root.path(), &motd, &["--noop"]), 2, &format!("would be {would}"));
    assert!(fs::read_dir(root.path()).unwrap().next().is_none(), "a dry run leaves no trace");
    check(&apply(root.path(), &motd, &[]), 2, &format!("changed  {changed}"));
    assert_eq!(fs::read_to_string(root.path().join("motd")).unwrap(), "moo\n");
    check(&apply(root.path(), &motd, &[]), 0, "0 changed, 1 unchanged, 0 deferred, 0 failed, 0 skipped");
    let failing = catalog(2, vec![resource("deep", file("/no/such/folder", ""), &[])]);
    assert_eq!(apply(root.path(), &failing, &[]).status.code(), Some(1));
}

#[test]
fn the_report_can_be_read_by_a_program() {
    let root = tempfile::tempdir().unwrap();
    let motd = catalog(1, vec![resource("motd", file("/motd", "moo"), &[])]);
    let output = apply(root.path(), &motd, &["--output", "json"]);
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report.outcome, report.catalog, report.resources.len()), (Outcome::Converged, motd.digest, 1));
}

#[test]
fn a_step_back_and_a_forgery_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let at = |generation| catalog(generation, vec![resource("motd", file("/motd", &generation.to_string()), &[])]);
    apply(root.path(), &at(5), &[]);
    let output = apply(root.path(), &at(4), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("this host is at 5 already"), "{output:?}");
    let forged = Catalog { generation: 6, ..at(5) };
    let output = apply(root.path(), &forged, &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("digest does not fit"), "{output:?}");
    assert_eq!(fs::read_to_string(root.path().join("motd")).unwrap(), "5");
}

#[test]
fn a_wrong_command_line_is_not_taken_for_a_change() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(agent("apply", root.path()).arg("--nonsense").output().unwrap().status.code(), Some(64));
    assert_eq!(agent("apply", root.path()).arg("--help").output().unwrap().status.code(), Some(0));
    let missing = agent("apply", root.path()).args(["--catalog", "/no/such"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn facts_are_json() {
    let output = agent("facts", Path::new("/")).output().unwrap();
    let facts: Facts = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts.kernel, "Linux");
}

#[test]
fn one_fact_is_printed_by_its_path_and_custom_ones_are_beside_them() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("etc/drover/facts.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(root.path().join("etc/hostname"), "image.example.org").unwrap();
    fs::write(folder.join("site.json"), r#"{"rack": {"row": 3}}"#).unwrap();
    fs::write(folder.join("broken.json"), "no").unwrap();
    let ask = |arguments: &[&str]| {
        let output = agent("facts", root.path()).args(arguments).output().unwrap();
        let (out, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code().unwrap(), out, log)
    };
    for (arguments, code, printed) in [
        (&["networking.domain"][..], 0, "example.org\n"),
        (&["custom.rack.row"], 0, "3\n"),
        (&["networking.domian"], 1, ""),
        // Nothing runs in a folder, so nothing changes by itself.
        (&["--volatile", "system_uptime"], 1, ""),
    ] {
        let (found, out, log) = ask(arguments);
        assert_eq!((found, out.as_str()), (code, printed), "{arguments:?}: {log}");
        assert!(log.contains("facts.d/broken.json gives no facts"), "{log}");
    }
    let (_, _, log) = ask(&["networking.domian"]);
    assert!(log.contains("networking.domian is not known; networking has: domain, fqdn"), "{log}");
    let volatile = agent("facts", Path::new("/")).args(["--volatile", "system_uptime.seconds"]).output().unwrap();
    assert!(String::from_utf8(volatile.stdout).unwrap().trim().parse::<u64>().unwrap() > 0);
    assert!(!root.path().join("var").exists(), "only what programs say is remembered");
}

#[test]
fn a_program_says_facts_inside_the_root_and_is_remembered() {
    use std::os::unix::fs::PermissionsExt as _;
    let root = root_with_a_shell();
    let program = root.path().join("etc/drover/facts.d/role");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::write(&program, "#!/bin/sh\necho x >> /asked\necho role=web\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let ask = |arguments: &[&str]| {
        let output = agent("facts", root.path()).arg("custom.role").args(arguments).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let times = || fs::read_to_string(root.path().join("asked")).unwrap().lines().count();
    let (out, log) = ask(&[]);
    if log.contains("needs root") {
        return assert_eq!(out, "", "without the right to enter the folder there is a warning and no fact");
    }
    assert_eq!((out.as_str(), times()), ("web\n", 1), "{log}");
    assert_eq!((ask(&[]).0.as_str(), times()), ("web\n", 1));
    assert_eq!((ask(&["--refresh"]).0.as_str(), times()), ("web\n", 2));
    fs::write(&program, "#!/bin/sh\necho x >> /asked\necho role=db\n").unwrap();
    assert_eq!((ask(&[]).0.as_str(), times()), ("db\n", 3));
    assert_eq!((ask(&["--facts-ttl", "0"]).0.as_str(), times()), ("db\n", 4));
}

/// A folder with a shell in it, and the libraries that the shell needs.
fn root_with_a_shell() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let libraries = Command::new("ldd").arg("/bin/sh").output().unwrap();
    let libraries = String::from_utf8(libraries.stdout).unwrap();
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/sh"]) {
        let copy = root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(path, copy).unwrap();
    }
    root
}

#[test]
fn a_command_runs_inside_the_root_and_its_failure_shows_no_secret() {
    let root = root_with_a_shell();
    let script = "echo $TOKEN > /here; echo oops >&2; exit 3";
    let marks = catalog(1, vec![resource("mark", exec(&["sh", "-c", script], false), &[])]);
    let counts = "0 changed, 0 unchanged, 0 deferred, 1 failed, 0 skipped";
    if rustix::process::geteuid().is_root() {
        check(&apply(root.path(), &marks, &[]), 1, &format!("FAILED    base/mark  sh exited with 3: oops\n{counts}"));
        assert_eq!(fs::read_to_string(root.path().join("here")).unwrap(), "hunter2\n");
    } else {
        let output = apply(root.path(), &marks, &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains("needs root"), "{output:?}");
    }
    assert!(!Path::new("/here").exists());
}

#[test]
fn a_program_that_the_folder_does_not_have_is_not_looked_for_outside() {
    let root = tempfile::tempdir().unwrap();
    let marks = catalog(1, vec![resource("mark", exec(&["touch", "/here"], false), &[])]);
    let table = String::from_utf8(apply(root.path(), &marks, &[]).stdout).unwrap();
    let why = if rustix::process::geteuid().is_root() { "no program touch" } else { "needs root" };
    assert!(table.contains(why), "{table}");
    assert!(!Path::new("/here").exists());
}
