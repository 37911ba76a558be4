//! Notifications at the end of a run, and what makes a change take effect.

use drover_catalog::{Finish, Resource};

use super::*;

/// Two files; the service, which comes between them, hears of both at the end.
fn sites(content: &str) -> Catalog {
    let mut catalog = catalog(vec![
        ("a", file("/a", content), &[], &[]),
        ("nginx", nginx(), &[], &[]),
        ("b", file("/b", content), &[], &[]),
    ]);
    catalog.resources[0].notify_at_end = vec![id("nginx")];
    catalog.resources[2].notify_at_end = vec![id("nginx")];
    catalog
}

/// A certificate that takes effect by a command.
fn certificate(content: &str) -> Catalog {
    let finish = vec![Finish::Command { argv: vec!["update-ca-certificates".into()], timeout_seconds: 9 }];
    let mut catalog = catalog(vec![("ca", file("/ca.crt", content), &[], &[])]);
    catalog.resources[0] = Resource { finish, ..catalog.resources[0].clone() };
    catalog
}

#[test]
fn a_service_restarts_once_after_the_last_change() {
    let machine = Machine::new();
    machine.check(&sites("v1"), &["a Changed: created", "nginx Changed: restarted", "b Changed: created"]);
    assert_eq!(machine.host.log(), "write /a\nwrite /b\nrestart nginx.service");
    machine.check(&sites("v1"), &["a Unchanged", "nginx Unchanged", "b Unchanged"]);
    assert!(machine.owes_nothing());
}

#[test]
fn a_service_that_starts_after_the_change_does_not_restart() {
    let host = MemoryHost::new().unit("nginx.service", "inactive", "enabled");
    let machine = Machine { host, ..Machine::new() };
    let mut only_before = sites("v1");
    only_before.resources.remove(2);
    machine.check(&only_before, &["a Changed: created", "nginx Changed: started"]);
    assert_eq!(machine.host.count("restart nginx.service"), 0);
    assert!(machine.owes_nothing());
}

#[test]
fn a_failed_change_tells_at_the_end_of_the_run_in_which_it_succeeds() {
    let machine = Machine::new();
    machine.host.break_act("write /b");
    machine.host.break_act("write /a");
    machine.check(&sites("v1"), &["a Failed: could not write /a", "nginx Unchanged", "b Failed: could not write /b"]);
    assert!(!machine.owes_nothing());
    machine.host.repair();
    machine.check(&sites("v1"), &["a Changed: created", "nginx Changed: restarted", "b Changed: created"]);
    assert!(machine.owes_nothing());
}

#[test]
fn a_kill_at_any_moment_loses_neither_the_end_nor_the_effect() {
    let mut both = sites("v1");
    both.resources.extend(certificate("v1").resources);
    let acts = ["write /a", "write /b", "write /ca.crt", "run update-ca-certificates", "restart nginx.service"];
    for when in (0..acts.len()).flat_map(|point| [Kill::Before(point), Kill::After(point)]) {
        let machine = Machine::new();
        machine.host.kill(when);
        catch_unwind(AssertUnwindSafe(|| machine.run(Mode::Apply, &both))).expect_err("not killed");
        machine.host.repair();
        machine.run(Mode::Apply, &both).unwrap();
        assert!(acts.iter().all(|act| machine.host.count(act) >= 1), "{when:?}: {}", machine.host.log());
        assert!(machine.owes_nothing(), "{when:?}");
        let log = machine.host.log();
        let last = |act: &str| log.lines().collect::<Vec<_>>().iter().rposition(|line| *line == act);
        assert!(last("write /b") < last("restart nginx.service"), "{when:?}: {log}");
        assert!(last("write /ca.crt") < last("run update-ca-certificates"), "{when:?}: {log}");
        machine.run(Mode::Apply, &both).unwrap();
        assert_eq!(machine.host.log(), "", "{when:?}: all is quiet");
    }
}

#[test]
fn what_makes_a_change_take_effect_is_tried_again_until_it_succeeds() {
    let machine = Machine::new();
    machine.host.break_act("run update-ca-certificates");
    machine.check(&certificate("v1"), &["ca Failed: could not run update-ca-certificates"]);
    machine.host.repair();
    machine.check(&certificate("v1"), &["ca Changed: ran update-ca-certificates"]);
    machine.check(&certificate("v1"), &["ca Unchanged"]);
    assert!(machine.owes_nothing());
}

#[tokio::test(start_paused = true)]
async fn who_refreshes_the_lists_of_packages_is_waited_for() {
    let mut repository = certificate("v1");
    let argv = ["apt-get", "update"].map(str::to_owned).into();
    repository.resources[0].finish = vec![Finish::Command { argv, timeout_seconds: 9 }];
    let locked = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)";
    let host = MemoryHost::new().command_first("apt-get", 100, locked).command_first("apt-get", 100, locked);
    let machine = Machine { host, ..Machine::new() };
    let (began, state) = (tokio::time::Instant::now(), machine.state());
    let run = Run { host: &machine.host, state: &state, mode: Mode::Apply, differences: false, stop: &|| false };
    let result = run.apply(&repository).await.unwrap();
    assert_eq!(result.resources[0].message, "created; ran apt-get");
    assert_eq!((began.elapsed().as_secs(), machine.host.count("run apt-get")), (10, 3));
}

/// A certificate whose command fails, a service that hears of it, and what tells the service in another way.
#[test]
fn a_word_is_kept_until_its_change_takes_effect() {
    // Whether the certificate tells at the end; whether another file does; how the service is at first.
    for (at_end, other_at_end, service) in [
        (false, None, "active"),
        (false, Some(false), "active"),
        (false, Some(true), "active"),
        (true, None, "active"),
        (true, Some(false), "active"),
        (true, Some(true), "active"),
        // It starts, which makes all words needless but the one that is not yet true.
        (true, None, "inactive"),
    ] {
        let row = format!("{at_end} {other_at_end:?} {service}");
        let tell = |resource: &mut Resource, at_end| {
            let told = if at_end { &mut resource.notify_at_end } else { &mut resource.notify };
            told.push(id("nginx"));
        };
        let mut all = catalog(vec![("b", file("/b", "v1"), &[], &[]), ("nginx", nginx(), &[], &[])]);
        all.resources.splice(0..0, certificate("v1").resources);
        tell(&mut all.resources[0], at_end);
        if let Some(at_end) = other_at_end {
            tell(&mut all.resources[1], at_end);
        }
        let host = MemoryHost::new().unit("nginx.service", service, "enabled");
        let machine = Machine { host, ..Machine::new() };
        machine.host.break_act("run update-ca-certificates");
        machine.run(Mode::Apply, &all).unwrap();
        let pending = Pending::load(&machine.state()).map(|pending| format!("{pending:?}")).unwrap();
        assert!(pending.contains("nginx"), "{row}: {pending}");
        let restarts = usize::from(other_at_end.is_some());
        assert_eq!(machine.host.count("restart nginx.service"), restarts, "{row}");
        machine.host.repair();
        machine.host.log();
        machine.check(&all, &["ca Changed: ran update-ca-certificates", "b Unchanged", "nginx Changed: restarted"]);
        assert_eq!(machine.host.log(), "run update-ca-certificates\nrestart nginx.service", "{row}");
        assert!(machine.owes_nothing(), "{row}");
    }
}

#[test]
fn what_takes_effect_late_tells_those_who_were_added_meanwhile() {
    let mut later = certificate("v1");
    later.resources.extend(catalog(vec![("nginx", nginx(), &[], &[])]).resources);
    later.resources[0].notify = vec![id("nginx")];
    let machine = Machine::new();
    machine.host.break_act("run update-ca-certificates");
    machine.run(Mode::Apply, &certificate("v1")).unwrap();
    machine.host.repair();
    machine.check(&later, &["ca Changed: ran update-ca-certificates", "nginx Changed: restarted"]);
    assert!(machine.owes_nothing());
}
