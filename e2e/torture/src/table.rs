//! What the agent is told to make of a machine: a row for each kind of change, and who hears of it.
//!
//! A new part of a catalog gets its rows in [`rows`]; all else follows from them: readers watch the paths, listeners
//! record them, and each case is compared with a run that nothing disturbed.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::Context as _;
use drover_catalog::{
    AuthorizedKeysSpec, Catalog, CommandSpec, Digest, DirectorySpec, Edit, EditSpec, FileSpec, Finish, HostIdentity,
    Part, Place, Presence, Resource, ResourceId, RevisionRef, Sensitive, SensitiveBytes, SymlinkSpec, SysctlSpec,
};

/// How many commands listen to changes in their turn, and at the end.
const IN_TURN: usize = 5;
const AT_END: usize = 2;

/// What a machine is like before the change.
pub(crate) enum Before {
    /// As an earlier catalog made it.
    Applied(Vec<Part>),
    /// As somebody made it by hand; nothing is there by default.
    Made(fn(&Path) -> std::io::Result<()>),
}

/// One thing that changes.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) before: Before,
    pub(crate) after: Vec<Part>,
    /// What it changes, as paths of the machine.
    pub(crate) paths: Vec<String>,
    /// Whether somebody who looks sees the old state or the new one, and nothing between.
    pub(crate) at_once: bool,
    /// Whether it has a command that makes it take effect.
    pub(crate) finished: bool,
    requires: Option<&'static str>,
}

impl Row {
    fn new(name: &'static str, before: Before, after: impl Into<Vec<Part>>) -> Self {
        let after = after.into();
        let paths = after.iter().filter_map(path_of).collect();
        let at_once = after.iter().all(|part| !matches!(part, Part::Directory(_) | Part::Command(_)));
        Self { name, before, after, paths, at_once, finished: false, requires: None }
    }

    fn finished(self) -> Self {
        Self { finished: true, ..self }
    }

    fn requires(self, name: &'static str) -> Self {
        Self { requires: Some(name), ..self }
    }

    /// It changes these paths, and not its own.
    fn changes(self, paths: &[&str]) -> Self {
        Self { paths: paths.iter().copied().map(str::to_owned).collect(), ..self }
    }
}

fn path_of(part: &Part) -> Option<String> {
    Some(match part {
        Part::File(spec) => spec.path.clone(),
        Part::Directory(spec) => spec.path.clone(),
        Part::Symlink(spec) => spec.path.clone(),
        Part::Edit(spec) => spec.path.clone(),
        Part::Download(spec) => spec.path.clone(),
        Part::Swap(spec) => spec.path.clone(),
        Part::AuthorizedKeys(spec) => spec.path.clone()?,
        Part::Sysctl(spec) => format!("/etc/sysctl.d/60-drover-{}.conf", spec.key),
        _ => return None,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "one of several that are called by pointer")]
fn nothing(_: &Path) -> std::io::Result<()> {
    Ok(())
}

const NOTHING: Before = Before::Made(nothing);

/// Text of a length, which another seed makes another text.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let letter = b'a' + u8::try_from(state >> 33 & 0xf).unwrap_or_default();
        bytes.push(if bytes.len() % 64 == 63 { b'\n' } else { letter });
    }
    bytes
}

/// A file with an access, `(mode, owner, group)`.
fn file(path: &str, content: Option<Vec<u8>>, (mode, owner, group): (u32, u32, u32)) -> FileSpec {
    FileSpec {
        path: path.into(),
        content: content.map(SensitiveBytes::new),
        mode,
        owner: owner.to_string(),
        group: group.to_string(),
        validate: None,
    }
}

const OPEN: (u32, u32, u32) = (0o644, 0, 0);

/// A file whose content changes from one length to another.
fn content(name: &'static str, path: &str, from: usize, to: usize) -> Row {
    let before = file(path, Some(text(1, from)), OPEN);
    let after = file(path, Some(text(2, to)), OPEN);
    Row::new(name, Before::Applied(vec![Part::File(before)]), [Part::File(after)])
}

/// A file whose access changes, and its content too when the seeds differ.
fn access(name: &'static str, path: &str, from: (u32, u32, u32), to: (u32, u32, u32), seed: u64) -> Row {
    let before = file(path, Some(text(1, 300)), from);
    let after = file(path, Some(text(seed, 300)), to);
    Row::new(name, Before::Applied(vec![Part::File(before)]), [Part::File(after)])
}

fn new_file(name: &'static str, path: &str, length: usize) -> Row {
    Row::new(name, NOTHING, [Part::File(file(path, Some(text(3, length)), OPEN))])
}

fn gone(name: &'static str, path: &str, length: usize) -> Row {
    let before = Before::Applied(vec![Part::File(file(path, Some(text(4, length)), OPEN))]);
    Row::new(name, before, [Part::File(file(path, None, OPEN))])
}

fn directory(path: &str, (mode, owner, group): (u32, u32, u32)) -> DirectorySpec {
    DirectorySpec {
        path: path.into(),
        state: Presence::Present,
        mode,
        owner: owner.to_string(),
        group: group.to_string(),
        purge: false,
        keep: Vec::new(),
    }
}

fn command(script: &str) -> CommandSpec {
    CommandSpec { argv: ["sh", "-c", script].map(str::to_owned).into(), timeout_seconds: 60, ..CommandSpec::default() }
}

fn edit(path: &str, edit: Edit) -> Part {
    Part::Edit(EditSpec { path: path.into(), edit, create: None, validate: None })
}

fn sysctl(value: &str) -> Part {
    Part::Sysctl(SysctlSpec { key: "vm.swappiness".into(), value: value.into(), at_boot: true })
}

fn link(path: &str, target: Option<&str>, force: bool) -> Part {
    Part::Symlink(SymlinkSpec { path: path.into(), target: target.map(str::to_owned), force })
}

/// A key as in `authorized_keys`, of no one.
fn key(name: &str) -> String {
    format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{name} {name}")
}

/// Each kind of change, at least once.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn rows() -> Vec<Row> {
    use Before::{Applied, Made};
    vec![
        content("small", "/etc/small", 40, 50).finished(),
        content("filled", "/etc/filled", 0, 20),
        content("emptied", "/etc/emptied", 20, 0),
        content("page", "/etc/page", 4095, 4096),
        content("over-a-page", "/etc/over-a-page", 4096, 4097).finished(),
        content("same-length", "/etc/same-length", 1000, 1000),
        content("shrunk", "/etc/shrunk", 70_000, 100),
        content("grown", "/etc/grown", 100, 70_000),
        content("large", "/etc/large", 300_000, 290_000),
        access("opened", "/etc/opened", (0o600, 0, 0), (0o644, 0, 0), 1),
        access("closed", "/etc/closed", (0o644, 0, 0), (0o600, 0, 0), 1).finished(),
        access("given", "/etc/given", (0o640, 0, 0), (0o640, 65534, 7), 1),
        access("taken", "/etc/taken", (0o640, 65534, 7), (0o600, 0, 0), 2),
        access("set-user-id", "/etc/set-user-id", (0o755, 0, 0), (0o4755, 0, 0), 2),
        access("secret", "/etc/secret", (0o644, 0, 0), (0o400, 7, 7), 2),
        new_file("new-small", "/etc/new-small", 10),
        new_file("new-empty", "/etc/new-empty", 0),
        new_file("new-large", "/etc/new-large", 20_000).finished(),
        gone("gone-small", "/etc/gone-small", 10),
        gone("gone-large", "/etc/gone-large", 20_000),
        Row::new(
            "gone-link",
            Made(|root| symlink("small", root.join("etc/gone-link"))),
            [Part::File(file("/etc/gone-link", None, OPEN))],
        ),
        Row::new(
            "file-for-link",
            Made(|root| symlink("small", root.join("etc/file-for-link"))),
            [Part::File(file("/etc/file-for-link", Some(text(5, 99)), OPEN))],
        ),
        Row::new(
            "drifted",
            Made(|root| fs::write(root.join("etc/drifted"), "by hand")),
            [Part::File(file("/etc/drifted", Some(text(6, 99)), OPEN))],
        ),
        Row::new(
            "validated",
            Applied(vec![Part::File(file("/etc/validated", Some(b"echo old\n".to_vec()), OPEN))]),
            [Part::File(FileSpec {
                validate: Some(["sh", "-n", "%"].map(str::to_owned).into()),
                ..file("/etc/validated", Some(b"echo new\n".to_vec()), OPEN)
            })],
        ),
        Row::new("directory-new", NOTHING, [Part::Directory(directory("/srv/new", (0o755, 0, 0)))]),
        Row::new("directory-closed", NOTHING, [Part::Directory(directory("/srv/new/closed", (0o700, 7, 7)))])
            .requires("directory-new"),
        new_file("deep", "/srv/new/closed/deep", 100).requires("directory-closed"),
        Row::new(
            "directory-given",
            Applied(vec![Part::Directory(directory("/srv/given", (0o700, 0, 0)))]),
            [Part::Directory(directory("/srv/given", (0o1777, 65534, 7)))],
        )
        .finished(),
        Row::new("sysctl", Applied(vec![sysctl("60")]), [sysctl("10")]),
        Row::new(
            "made-once",
            NOTHING,
            [Part::Command(CommandSpec { creates: Some("/srv/made".into()), ..command("mkdir /srv/made") })],
        )
        .changes(&["/srv/made"]),
        Row::new(
            "made-unless",
            NOTHING,
            [Part::Command(CommandSpec {
                unless: Some(["test", "-s", "/srv/unless"].map(str::to_owned).into()),
                ..command("echo made > /srv/unless.new; mv /srv/unless.new /srv/unless")
            })],
        )
        .changes(&["/srv/unless"]),
        Row::new(
            "several-parts",
            Applied(vec![
                Part::File(file("/etc/several-a", Some(text(7, 10)), OPEN)),
                Part::File(file("/etc/several-c", Some(text(7, 10)), OPEN)),
            ]),
            [
                Part::File(file("/etc/several-a", Some(text(8, 20)), OPEN)),
                Part::File(file("/etc/several-b", Some(text(9, 5000)), (0o640, 0, 7))),
                Part::File(file("/etc/several-c", None, OPEN)),
            ],
        )
        .finished(),
        content("again-1", "/srv/again-1", 10, 11),
        content("again-2", "/srv/again-2", 10, 5000),
        Row::new("link-new", NOTHING, [link("/etc/link-new", Some("/etc/small"), false)]),
        Row::new(
            "link-turned",
            Applied(vec![link("/etc/link-turned", Some("small"), false)]),
            [link("/etc/link-turned", Some("/etc/page"), false)],
        ),
        Row::new(
            "link-for-file",
            Made(|root| fs::write(root.join("etc/link-for-file"), "by hand")),
            [link("/etc/link-for-file", Some("small"), true)],
        ),
        Row::new(
            "line-added",
            Made(|root| fs::write(root.join("etc/line-added"), "one\ntwo\n")),
            [edit(
                "/etc/line-added",
                Edit::Line {
                    state: Presence::Present,
                    line: Sensitive::new("three"),
                    matching: None,
                    place: Place::After("^one".into()),
                },
            )],
        ),
        Row::new(
            "line-replaced",
            Made(|root| fs::write(root.join("etc/line-replaced"), "one\nPort 22\n")),
            [edit(
                "/etc/line-replaced",
                Edit::Line {
                    state: Presence::Present,
                    line: Sensitive::new("Port 2222"),
                    matching: Some("^Port ".into()),
                    place: Place::End,
                },
            )],
        )
        .finished(),
        Row::new(
            "block-changed",
            Made(|root| fs::write(root.join("etc/block-changed"), "one\n# begin\nold\n# end\ntwo\n")),
            [edit(
                "/etc/block-changed",
                Edit::Block {
                    state: Presence::Present,
                    content: Sensitive::new("new\nlines\n"),
                    begin: "# begin".into(),
                    end: "# end".into(),
                    place: Place::End,
                },
            )],
        ),
        Row::new(
            "ini-set",
            Made(|root| fs::write(root.join("etc/ini-set"), "[one]\na = 1\n[two]\na = 2\n")),
            [edit(
                "/etc/ini-set",
                Edit::Ini {
                    state: Presence::Present,
                    section: "two".into(),
                    key: "a".into(),
                    value: Sensitive::new("3"),
                    separator: " = ".into(),
                },
            )],
        ),
        Row::new(
            "entry-added",
            Made(|root| fs::write(root.join("etc/entry-added"), "proc /proc proc defaults 0 0\n")),
            [edit(
                "/etc/entry-added",
                Edit::Entry {
                    state: Presence::Present,
                    field: 1,
                    key: "/mnt".into(),
                    line: "tmpfs /mnt tmpfs noauto 0 0".into(),
                },
            )],
        ),
        Row::new(
            "keys-exclusive",
            Made(|root| fs::write(root.join("etc/keys"), format!("{}\n", key("somebody")))),
            [Part::AuthorizedKeys(AuthorizedKeysSpec {
                user: "root".into(),
                state: Presence::Present,
                keys: vec![key("cow"), key("ox")],
                exclusive: true,
                path: Some("/etc/keys".into()),
            })],
        ),
        Row::new(
            "directory-purged",
            Made(|root| {
                fs::create_dir_all(root.join("srv/purged/other/deep"))?;
                fs::write(root.join("srv/purged/stray"), "x")
            }),
            [Part::Directory(DirectorySpec { purge: true, ..directory("/srv/purged", (0o755, 0, 0)) })],
        )
        .changes(&["/srv/purged/stray", "/srv/purged/other"]),
        Row::new(
            "directory-gone",
            Made(|root| fs::create_dir_all(root.join("srv/gone/deep"))),
            [Part::Directory(DirectorySpec {
                purge: true,
                state: Presence::Absent,
                ..directory("/srv/gone", (0o755, 0, 0))
            })],
        ),
    ]
}

/// A command that listens: it appends to a log what some paths are at that moment.
pub(crate) struct Listener {
    /// The log's name.
    pub(crate) log: String,
    /// The paths.
    pub(crate) paths: Vec<String>,
}

impl Listener {
    pub(crate) fn argv(&self) -> Vec<String> {
        ["record", &self.log].into_iter().map(str::to_owned).chain(self.paths.iter().cloned()).collect()
    }
}

fn hears_in_turn(row: usize, listener: usize) -> bool {
    row % IN_TURN == listener
}

fn hears_at_end(row: usize, listener: usize) -> bool {
    row % 3 == listener
}

fn of(rows: &[Row], log: String, hears: impl Fn(usize) -> bool) -> Listener {
    let heard = rows.iter().enumerate().filter(|(place, _)| hears(*place));
    Listener { log, paths: heard.flat_map(|(_, row)| row.paths.clone()).collect() }
}

fn in_turn(rows: &[Row]) -> Vec<Listener> {
    (0..IN_TURN).map(|one| of(rows, format!("in-turn-{one}"), |row| hears_in_turn(row, one))).collect()
}

fn at_end(rows: &[Row]) -> Vec<Listener> {
    (0..AT_END).map(|one| of(rows, format!("at-end-{one}"), |row| hears_at_end(row, one))).collect()
}

fn finish(row: &Row) -> Listener {
    Listener { log: format!("finish-{}", row.name), paths: row.paths.clone() }
}

/// All who listen.
pub(crate) fn listeners(rows: &[Row]) -> Vec<Listener> {
    let finishes = rows.iter().filter(|row| row.finished).map(finish);
    in_turn(rows).into_iter().chain(at_end(rows)).chain(finishes).collect()
}

/// The catalog that the machine has, or the one that it gets.
pub(crate) fn catalog(rows: &[Row], generation: i64) -> anyhow::Result<Catalog> {
    let id = |name: &str| ResourceId::new("torture", name);
    let told = |listener: &Listener| {
        let spec =
            CommandSpec { argv: listener.argv(), refresh_only: true, timeout_seconds: 60, ..CommandSpec::default() };
        Resource::new(id(&listener.log), "exec", vec![Part::Command(spec)])
    };
    // Who is told at the end may stand anywhere.
    let mut resources: Vec<Resource> = at_end(rows).iter().map(told).collect();
    for (place, row) in rows.iter().enumerate() {
        let parts = match &row.before {
            _ if generation > 1 => row.after.clone(),
            Before::Applied(parts) => parts.clone(),
            Before::Made(_) => continue,
        };
        let ids = |listeners: &[Listener], hears: fn(usize, usize) -> bool| {
            let heard = listeners.iter().enumerate().filter(|(one, _)| hears(place, *one));
            heard.map(|(_, listener)| id(&listener.log)).collect()
        };
        let argv = finish(row).argv();
        resources.push(Resource {
            finish: row.finished.then_some(Finish::Command { argv, timeout_seconds: 60 }).into_iter().collect(),
            require: row.requires.into_iter().map(id).collect(),
            notify: ids(&in_turn(rows), hears_in_turn),
            notify_at_end: ids(&at_end(rows), hears_at_end),
            ..Resource::new(id(row.name), "torture", parts)
        });
    }
    resources.extend(in_turn(rows).iter().map(told));
    let unsealed = Catalog {
        host: HostIdentity { name: "cow".into(), uid: "u1".into() },
        generation,
        revisions: vec![RevisionRef { node_config: "torture".into(), revision: format!("torture-{generation}") }],
        interval_seconds: 3600,
        resources,
        reboot: None,
        digest: Digest::of(b""),
        commands: vec![],
    };
    unsealed.seal().context("the catalog cannot be written")
}
