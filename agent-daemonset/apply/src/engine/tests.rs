mod at_end;
mod drift;
mod packages;

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use drover_catalog::{
    CommandSpec, Digest, DirectorySpec, Edit, EditSpec, FileSpec, HostIdentity, MountSpec, Part, Presence, Resource,
    ResourceId, SensitiveBytes, ServiceSpec, ServiceState,
};
use futures::executor::block_on;

use super::*;
use crate::host::{
    Access,
    memory::{Kill, MemoryHost},
};

fn id(name: &str) -> ResourceId {
    ResourceId::new("web", name)
}

fn file(path: &str, content: &str) -> Part {
    Part::File(FileSpec {
        path: path.into(),
        content: Some(SensitiveBytes::new(content)),
        mode: 0o644,
        owner: "root".into(),
        group: "root".into(),
        validate: None,
    })
}

fn nginx() -> Part {
    Part::Service(ServiceSpec {
        unit: "nginx.service".into(),
        state: Some(ServiceState::Running),
        enabled: None,
        masked: None,
        reload_on_notify: false,
    })
}

fn newaliases() -> Part {
    Part::Command(CommandSpec {
        argv: vec!["newaliases".into()],
        refresh_only: true,
        timeout_seconds: 9,
        ..CommandSpec::default()
    })
}

fn directory(path: &str) -> Part {
    Part::Directory(DirectorySpec {
        path: path.into(),
        state: Presence::Present,
        mode: 0o755,
        owner: "root".into(),
        group: "root".into(),
        purge: false,
        keep: vec![],
    })
}

fn catalog(rows: Vec<(&str, Part, &[&str], &[&str])>) -> Catalog {
    let ids = |names: &[&str]| names.iter().copied().map(id).collect();
    let resource = |(name, part, require, notify)| Resource {
        require: ids(require),
        notify: ids(notify),
        ..Resource::new(id(name), "part", vec![part])
    };
    Catalog {
        host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
        generation: 1,
        revisions: vec![],
        interval_seconds: 60,
        resources: rows.into_iter().map(resource).collect(),
        reboot: None,
        commands: vec![],
        digest: Digest::of(b""),
    }
}

/// A configuration file and what must hear of it.
fn web(content: &str) -> Catalog {
    catalog(vec![
        ("conf", file("/etc/nginx.conf", content), &[], &["nginx", "aliases"]),
        ("nginx", nginx(), &["conf"], &[]),
        ("aliases", newaliases(), &[], &[]),
    ])
}

struct Machine {
    host: MemoryHost,
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let host = MemoryHost::new().unit("nginx.service", "active", "enabled");
        Self { host, root: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> StateDir {
        StateDir::new(self.root.path(), "/state").unwrap()
    }

    fn run(&self, mode: Mode, catalog: &Catalog) -> Result<RunResult, RunError> {
        block_on(
            Run { host: &self.host, state: &self.state(), mode, differences: false, stop: &|| false }.apply(catalog),
        )
    }

    /// Applies a catalog, and compares the reports' lines `name status: message` with the expected ones.
    #[track_caller]
    fn check(&self, catalog: &Catalog, expected: &[&str]) {
        self.check_in(Mode::Apply, catalog, expected);
    }

    #[track_caller]
    fn check_in(&self, mode: Mode, catalog: &Catalog, expected: &[&str]) {
        let result = self.run(mode, catalog).unwrap();
        let line = |r: &ResourceReport| {
            let name = r.id.as_str().trim_start_matches("web/");
            format!("{name} {:?}: {}", r.status, r.message).trim_end_matches([' ', ':']).to_owned()
        };
        assert_eq!(result.resources.iter().map(line).collect::<Vec<_>>(), expected);
    }

    fn owes_nothing(&self) -> bool {
        Pending::load(&self.state()).unwrap().is_empty()
    }
}

#[test]
fn a_changed_file_restarts_its_service_once_and_then_all_is_quiet() {
    let machine = Machine::new();
    machine
        .check(&web("v1"), &["conf Changed: created", "nginx Changed: restarted", "aliases Changed: ran newaliases"]);
    assert_eq!(machine.host.log(), "write /etc/nginx.conf\nrestart nginx.service\nrun newaliases");
    machine.check(&web("v1"), &["conf Unchanged", "nginx Unchanged", "aliases Unchanged"]);
    assert_eq!(machine.host.log(), "");
    assert!(machine.owes_nothing());
}

#[test]
fn two_changes_restart_a_service_once() {
    let both = catalog(vec![
        ("a", file("/a", "v1"), &[], &["nginx"]),
        ("b", file("/b", "v1"), &[], &["nginx"]),
        ("nginx", nginx(), &[], &[]),
    ]);
    let machine = Machine::new();
    machine.run(Mode::Apply, &both).unwrap();
    assert_eq!(machine.host.count("restart nginx.service"), 1);
    assert!(machine.owes_nothing());
}

#[test]
fn what_requires_a_failed_one_is_skipped_and_the_others_go_on() {
    let chain = catalog(vec![
        ("a", file("/a", ""), &[], &[]),
        ("b", directory("/b"), &["a"], &[]),
        ("c", directory("/c"), &["b"], &[]),
        ("d", directory("/d"), &[], &[]),
    ]);
    let machine = Machine::new();
    machine.host.break_act("write /a");
    machine.check(
        &chain,
        &[
            "a Failed: could not write /a",
            "b Skipped: requires web/a, which failed",
            "c Skipped: requires web/b, which was skipped",
            "d Changed: created",
        ],
    );
}

/// The heart of it: wherever a run is killed, the runs after it leave the same machine, with the service restarted
/// after the file was written.
#[test]
fn a_kill_at_any_moment_loses_no_notification() {
    let acts = ["write /etc/nginx.conf", "restart nginx.service", "run newaliases"];
    for when in (0..acts.len()).flat_map(|point| [Kill::Before(point), Kill::After(point)]) {
        let machine = Machine::new();
        machine.host.kill(when);
        catch_unwind(AssertUnwindSafe(|| machine.run(Mode::Apply, &web("v1")))).expect_err("not killed");
        machine.host.repair();
        machine.run(Mode::Apply, &web("v1")).unwrap();
        // At least once each, and the last restart after the last write.
        assert!(acts.iter().all(|act| machine.host.count(act) >= 1), "{when:?}: {}", machine.host.log());
        assert!(machine.owes_nothing(), "{when:?}");
        machine.check(&web("v1"), &["conf Unchanged", "nginx Unchanged", "aliases Unchanged"]);
    }
}

#[test]
fn a_failed_restart_is_tried_again_in_the_next_run() {
    let machine = Machine::new();
    machine.host.break_act("restart nginx.service");
    machine.check(
        &web("v1"),
        &["conf Changed: created", "nginx Failed: could not restart nginx.service", "aliases Changed: ran newaliases"],
    );
    assert!(!machine.owes_nothing());
    machine.host.repair();
    machine.check(&web("v1"), &["conf Unchanged", "nginx Changed: restarted", "aliases Unchanged"]);
    assert!(machine.owes_nothing());
}

#[test]
fn a_change_that_failed_tells_others_only_when_it_succeeded() {
    let both = catalog(vec![
        ("bad", file("/bad", "v1"), &[], &["nginx"]),
        ("good", file("/good", "v1"), &[], &["nginx"]),
        ("nginx", nginx(), &[], &[]),
    ]);
    let only_bad = catalog(vec![("bad", file("/bad", "v1"), &[], &["nginx"]), ("nginx", nginx(), &[], &[])]);
    let machine = Machine::new();
    machine.host.break_act("write /bad");
    machine.check(&only_bad, &["bad Failed: could not write /bad", "nginx Unchanged"]);
    machine.check(&both, &["bad Failed: could not write /bad", "good Changed: created", "nginx Changed: restarted"]);
    assert!(!machine.owes_nothing(), "the bad one's word is kept");
    machine.host.repair();
    machine.check(&both, &["bad Changed: created", "good Unchanged", "nginx Changed: restarted"]);
    assert!(machine.owes_nothing());
}

#[test]
fn a_service_that_is_gone_from_the_catalog_is_owed_nothing() {
    let machine = Machine::new();
    machine.host.break_act("restart nginx.service");
    machine.run(Mode::Apply, &web("v1")).unwrap();
    machine.run(Mode::Apply, &catalog(vec![("conf", file("/etc/nginx.conf", "v1"), &[], &[])])).unwrap();
    assert!(machine.owes_nothing());
}

#[test]
fn noop_says_what_it_would_do_and_does_nothing() {
    let machine = Machine::new();
    let pending = ["conf Pending: created", "nginx Pending: restarted", "aliases Pending: ran newaliases"];
    machine.check_in(Mode::Noop, &web("v1"), &pending);
    assert_eq!(machine.host.log(), "");
    assert!(!machine.root.path().join("state").exists());
    machine.check(&web("v1"), &pending.map(|line| line.replace("Pending", "Changed")).each_ref().map(String::as_str));
}

#[test]
fn a_run_that_is_told_to_stop_leaves_the_rest_to_the_next() {
    let machine = Machine::new();
    let visited = Cell::new(0);
    let stop = || visited.replace(visited.get() + 1) == 1;
    let state = machine.state();
    let run = Run { host: &machine.host, state: &state, mode: Mode::Apply, differences: false, stop: &stop };
    let result = block_on(run.apply(&web("v1"))).unwrap();
    assert!(result.interrupted);
    assert_eq!(result.resources.len(), 1);
    machine.check(&web("v1"), &["conf Unchanged", "nginx Changed: restarted", "aliases Changed: ran newaliases"]);
}

#[test]
fn what_cannot_be_done_here_defers_what_requires_it() {
    let image = catalog(vec![("a", newaliases(), &[], &[]), ("b", directory("/b"), &["a"], &[])]);
    let machine = Machine::new();
    let state = machine.state();
    let mut visit = Visit {
        host: &machine.host,
        state: &state,
        mode: Mode::Apply,
        wants_differences: false,
        pending: Pending::load_for_noop(&state).unwrap(),
        applied: Applied::load(&state).unwrap(),
        ended: BTreeMap::new(),
        differences: Vec::new(),
        lists: crate::providers::package::Lists::default(),
    };
    let [a, b] = image.resources.as_slice() else { panic!() };
    visit.ended.insert(&a.id, ResourceStatus::Deferred);
    let report = block_on(visit.resource(b)).unwrap();
    assert_eq!(
        (report.status, report.message.as_str()),
        (ResourceStatus::Deferred, "requires web/a, which was deferred")
    );
}

/// A file system: in the running machine, and then in its table.
fn data() -> Catalog {
    let live = Part::Mount(MountSpec {
        path: "/data".into(),
        mounted: true,
        device: "/dev/sda1".into(),
        fstype: "ext4".into(),
        options: vec![],
    });
    let line = "/dev/sda1 /data ext4 defaults 0 0".to_owned();
    let edit = Edit::Entry { state: Presence::Present, field: 1, key: "/data".into(), line };
    let fstab = Part::Edit(EditSpec { path: "/etc/fstab".into(), edit, create: None, validate: None });
    let mut catalog = catalog(vec![("data", live, &[], &[])]);
    catalog.resources[0].parts.push(fstab);
    catalog
}

#[test]
fn what_can_not_be_mounted_is_not_in_the_table_and_what_can_not_be_mounted_yet_is() {
    let table = |host: &MemoryHost| String::from_utf8(host.read_file("/etc/fstab").unwrap().unwrap()).unwrap();
    let access = Access { mode: 0o644, user: 0, group: 0 };
    let host = || MemoryHost::new().file("/etc/fstab", "# A table\n", access);
    let machine = Machine { host: host().command("mount", 32, "", "no such device"), ..Machine::new() };
    machine.check(&data(), &["data Failed: mount exited with 32: no such device"]);
    assert_eq!(table(&machine.host), "# A table\n");
    let image = Machine { host: host().without_kernel(), ..Machine::new() };
    for _ in 0..2 {
        image.check(&data(), &["data Deferred: no kernel"]);
        assert_eq!(table(&image.host), "# A table\n/dev/sda1 /data ext4 defaults 0 0\n");
    }
}

#[test]
fn no_report_holds_content_and_none_is_too_long() {
    let secret = "hunter2";
    let root = Access { mode: 0o600, user: 1, group: 1 };
    let machine = Machine { host: MemoryHost::new().file("/etc/nginx.conf", "old-hunter2", root), ..Machine::new() };
    let long = "x".repeat(2000);
    machine.host.break_act("run newaliases");
    let host = MemoryHost::new().command("newaliases", 1, "", &long);
    let result = machine.run(Mode::Apply, &web(secret)).unwrap();
    assert!(!format!("{result:?}").contains(secret), "{result:?}");
    let machine = Machine { host, ..Machine::new() };
    let notified = catalog(vec![("conf", file("/c", ""), &[], &["aliases"]), ("aliases", newaliases(), &[], &[])]);
    let result = machine.run(Mode::Apply, &notified).unwrap();
    assert_eq!(result.resources.last().map(|r| r.message.len()), Some(1000));
}
