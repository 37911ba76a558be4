//! `drover-agent apply` on accounts, with the real tools (useradd, chpasswd, usermod…) in a small root of their own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test ends where it goes wrong")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use common::{agent, catalog, resource};
use drover_catalog::{
    AuthorizedKeysSpec, CommandSpec, GroupSpec, Part, Presence, Report, Resource, ResourceStatus, Sensitive, UserSpec,
};

const TOOLS: [&str; 15] = [
    "useradd", "usermod", "userdel", "groupadd", "groupmod", "groupdel", "chpasswd", "getent", "sh", "id", "cat", "cp",
    "wc", "test", "head",
];

const HASH: &str = "$6$saltsalt$canary0123456789";

/// Where a program is on this machine, by the search path that the agent has.
fn program(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// A root with the tools and what they need, or why there can be none.
fn root_with_tools() -> Result<tempfile::TempDir, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it needs root".to_owned());
    }
    let tools: Vec<PathBuf> = TOOLS
        .iter()
        .map(|name| program(name).ok_or_else(|| format!("this machine has no {name}")))
        .collect::<Result<_, _>>()?;
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["etc/skel", "home", "tmp", "dev", "run", "var/mail"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    for tool in tools {
        let listed = Command::new("ldd").arg(&tool).output().map_err(|error| format!("ldd: {error}"))?;
        let listed = String::from_utf8(listed.stdout).unwrap();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        for path in libraries.chain([tool]) {
            let copy = root.path().join(path.strip_prefix("/").unwrap());
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(&path, copy).unwrap();
        }
    }
    for (path, content, mode) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644),
        ("etc/group", "root:x:0:\ndocker:x:998:\nlogs:x:997:\n", 0o644),
        ("etc/shadow", "root:*:19000:0:99999:7:::\n", 0o600),
        ("etc/gshadow", "root:*::\ndocker:!::\nlogs:!::\n", 0o600),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\n", 0o644),
        ("etc/login.defs", "UID_MIN 1000\nGID_MIN 1000\nUSERGROUPS_ENAB yes\nHOME_MODE 0700\n", 0o644),
        ("etc/skel/.profile", "umask 027\n", 0o644),
    ] {
        fs::write(root.path().join(path), content).unwrap();
        fs::set_permissions(root.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    Ok(root)
}

/// A root with the tools, unless this machine cannot have one.
macro_rules! root_or_leave {
    ($name:literal) => {
        match root_with_tools() {
            Ok(root) => root,
            Err(why) => {
                eprintln!("left out: {} because {why}", $name);
                return;
            }
        }
    };
}

fn apply(root: &Path, generation: i64, resources: Vec<Resource>) -> (Report, String) {
    let file = root.join("tmp/catalog.json");
    fs::write(&file, serde_json::to_vec(&catalog(generation, resources)).unwrap()).unwrap();
    let Output { status: _, stdout, stderr } = agent("apply", root)
        .arg("--catalog")
        .arg(&file)
        .args(["--output", "json", "--log", "trace"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    fs::remove_file(&file).unwrap();
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let report = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    (report, stderr)
}

/// How each resource ended that did not stay as it was, by name.
fn told(report: &Report) -> BTreeMap<String, String> {
    let words = |status: ResourceStatus, message: &str| format!("{status:?}: {message}");
    let told = |r: &drover_catalog::ResourceReport| {
        (r.id.as_str().trim_start_matches("base/").to_owned(), words(r.status, &r.message))
    };
    report.resources.iter().map(told).collect()
}

#[track_caller]
fn check(report: &Report, expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|(name, words)| ((*name).to_owned(), (*words).to_owned())).collect();
    assert_eq!(told(report), expected);
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The line of a file that begins with a name.
fn entry(root: &Path, path: &str, name: &str) -> Option<String> {
    read(root, path).lines().find(|line| line.starts_with(&format!("{name}:"))).map(str::to_owned)
}

fn anna() -> UserSpec {
    UserSpec {
        name: "anna".into(),
        uid: Some(1500),
        groups: Some(vec!["docker".into(), "team".into()]),
        home: Some("/home/anna".into()),
        manage_home: true,
        shell: Some("/bin/sh".into()),
        comment: Some("Anna A.".into()),
        password_hash: Some(Sensitive::new(HASH)),
        ..UserSpec::default()
    }
}

fn keys(lines: &[&str]) -> Part {
    Part::AuthorizedKeys(AuthorizedKeysSpec {
        user: "anna".into(),
        state: Presence::Present,
        keys: lines.iter().copied().map(str::to_owned).collect(),
        exclusive: false,
        path: None,
    })
}

const KEY: &str = "no-pty ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMcanary anna@laptop";

/// Who it is, where it is, and what it would give a new file.
const WHOAMI: &str = "{ id -u; id -g; id -G; echo $HOME $USER $LOGNAME; umask; } > /home/anna/whoami";

fn everything() -> Vec<Resource> {
    let team = GroupSpec { name: "team".into(), gid: Some(1600), ..GroupSpec::default() };
    let whoami = CommandSpec {
        argv: ["sh", "-c", WHOAMI].map(str::to_owned).to_vec(),
        creates: Some("/home/anna/whoami".into()),
        // Root could write here, and so the guard would let it run.
        unless: Some(["test", "-w", "/etc"].map(str::to_owned).to_vec()),
        user: Some("anna".into()),
        umask: Some(0o027),
        timeout_seconds: 60,
        ..CommandSpec::default()
    };
    vec![
        resource("team", Part::Group(team), &[]),
        resource("anna", Part::User(anna()), &[]),
        resource("keys", keys(&[KEY]), &[]),
        resource("whoami", Part::Command(whoami), &[]),
    ]
}

#[test]
fn accounts_come_to_be_stay_and_are_corrected() {
    let folder = root_or_leave!("accounts_come_to_be_stay_and_are_corrected");
    let root = folder.path();
    let (report, log) = apply(root, 1, everything());
    let added = "Changed: key added: ssh-ed25519 anna@laptop";
    check(
        &report,
        &[("team", "Changed: created"), ("anna", "Changed: created"), ("keys", added), ("whoami", "Changed: ran sh")],
    );
    assert_eq!(entry(root, "etc/passwd", "anna").unwrap(), "anna:x:1500:1500:Anna A.:/home/anna:/bin/sh");
    assert_eq!(entry(root, "etc/group", "team").unwrap(), "team:x:1600:anna");
    assert_eq!(entry(root, "etc/group", "docker").unwrap(), "docker:x:998:anna");
    assert!(entry(root, "etc/shadow", "anna").unwrap().starts_with(&format!("anna:{HASH}:")));
    assert_eq!(read(root, "home/anna/.profile"), "umask 027\n");
    let mode = |path: &str| {
        let metadata = fs::metadata(root.join(path)).unwrap();
        (metadata.permissions().mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    assert_eq!(mode("home/anna"), (0o700, 1500, 1500));
    assert_eq!(mode("home/anna/.ssh"), (0o700, 1500, 1500));
    assert_eq!(mode("home/anna/.ssh/authorized_keys"), (0o600, 1500, 1500));
    assert_eq!(read(root, "home/anna/.ssh/authorized_keys"), format!("{KEY}\n"));
    let identity = "1500\n1500\n1500 998 1600\n/home/anna anna anna\n0027\n";
    assert_eq!(read(root, "home/anna/whoami"), identity);
    assert_eq!(mode("home/anna/whoami"), (0o640, 1500, 1500));
    let shown = format!("{log}{}", serde_json::to_string(&report).unwrap());
    assert!(!shown.contains("canary0123"), "{shown}");

    let (report, _) = apply(root, 1, everything());
    check(&report, &[]);
    assert_eq!(report.totals.unchanged, 4);

    // By hand: another shell and hash, out of a group, a key without its options.
    let tool = |argv: &[&str]| {
        let status = Command::new("chroot").arg(root).args(argv).status().unwrap();
        assert!(status.success(), "{argv:?}");
    };
    tool(&["/usr/sbin/usermod", "--shell=/bin/false", "--groups=team,logs", "--lock", "anna"]);
    let tampered = format!("# mine\n{}\n", KEY.replace("no-pty ", ""));
    fs::write(root.join("home/anna/.ssh/authorized_keys"), tampered).unwrap();
    let (report, _) = apply(root, 1, everything());
    let groups = "groups logs,team -> docker,logs,team";
    check(
        &report,
        &[
            ("anna", &format!("Changed: shell /bin/false -> /bin/sh; {groups}")),
            ("keys", "Changed: options or comment changed: ssh-ed25519 anna@laptop"),
        ],
    );
    assert!(report.resources.iter().all(|resource| resource.corrective), "{report:?}");
    assert_eq!(entry(root, "etc/group", "logs").unwrap(), "logs:x:997:anna", "they are not exclusive");
    assert_eq!(read(root, "home/anna/.ssh/authorized_keys"), format!("# mine\n{KEY}\n"));
    assert!(entry(root, "etc/shadow", "anna").unwrap().starts_with(&format!("anna:!{HASH}:")), "as it was");

    let (report, _) = apply(root, 1, everything());
    check(&report, &[]);
}

#[test]
fn accounts_change_and_go() {
    let folder = root_or_leave!("accounts_change_and_go");
    let root = folder.path();
    apply(root, 1, everything());
    let other = UserSpec {
        uid: Some(1501),
        group: Some("team".into()),
        groups: Some(vec!["logs".into()]),
        groups_exclusive: true,
        home: Some("/home/anna-a".into()),
        locked: Some(true),
        ..anna()
    };
    let team = GroupSpec { name: "team".into(), gid: Some(1601), ..GroupSpec::default() };
    let (report, _) =
        apply(root, 2, vec![resource("team", Part::Group(team), &[]), resource("anna", Part::User(other), &[])]);
    let changes = "uid 1500 -> 1501; group 1500 -> 1601; home /home/anna -> /home/anna-a; groups docker,team -> logs; \
                   password locked";
    check(&report, &[("team", "Changed: gid 1600 -> 1601"), ("anna", &format!("Changed: {changes}"))]);
    assert_eq!(entry(root, "etc/passwd", "anna").unwrap(), "anna:x:1501:1601:Anna A.:/home/anna-a:/bin/sh");
    assert!(!root.join("home/anna").exists());
    let profile = fs::metadata(root.join("home/anna-a/.profile")).unwrap();
    assert_eq!((profile.uid(), profile.gid()), (1501, 1601));
    assert!(entry(root, "etc/shadow", "anna").unwrap().starts_with(&format!("anna:!{HASH}:")));

    let absent = UserSpec { name: "anna".into(), state: Presence::Absent, manage_home: true, ..UserSpec::default() };
    let no_team = GroupSpec { name: "team".into(), state: Presence::Absent, ..GroupSpec::default() };
    let gone =
        || vec![resource("anna", Part::User(absent.clone()), &[]), resource("team", Part::Group(no_team.clone()), &[])];
    let (report, _) = apply(root, 3, gone());
    check(&report, &[("anna", "Changed: removed"), ("team", "Changed: removed")]);
    assert_eq!((entry(root, "etc/passwd", "anna"), entry(root, "etc/group", "team")), (None, None));
    assert!(!root.join("home/anna-a").exists());
    let (report, _) = apply(root, 3, gone());
    check(&report, &[]);
}

#[test]
fn a_command_that_cannot_become_its_user_has_not_answered() {
    let folder = root_or_leave!("a_command_that_cannot_become_its_user_has_not_answered");
    let root = folder.path();
    apply(root, 1, everything());
    fs::create_dir(root.join("closed")).unwrap();
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let guarded = CommandSpec {
        argv: ["sh", "-c", "echo > /tmp/ran"].map(str::to_owned).to_vec(),
        unless: Some(["test", "-e", "/etc"].map(str::to_owned).to_vec()),
        cwd: Some("/closed".into()),
        user: Some("anna".into()),
        timeout_seconds: 60,
        ..CommandSpec::default()
    };
    let (report, _) = apply(root, 2, vec![resource("guarded", Part::Command(guarded), &[])]);
    let why = "could not run test: could not change into /closed: Permission denied (os error 13)";
    check(&report, &[("guarded", &format!("Failed: its guard unless gave no answer: {why}"))]);
    assert!(!root.join("tmp/ran").exists());
}
