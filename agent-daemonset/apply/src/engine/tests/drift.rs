//! A new intent, drift, and resources that never come to rest.

use drover_catalog::DriftMode;

use super::*;

const ROOT: Access = Access { mode: 0o644, user: 0, group: 0 };

/// One file that must be so, with a drift mode.
fn motd(content: &str, drift: DriftMode) -> Catalog {
    let mut catalog = catalog(vec![("motd", file("/motd", content), &[], &[])]);
    catalog.resources[0].drift = drift;
    catalog
}

impl Machine {
    /// Somebody else changes a file.
    fn tamper(self, content: &str) -> Self {
        let Self { host, root } = self;
        Self { host: host.file("/motd", content, ROOT), root }
    }

    /// How the one resource ended, and whether it was drift, and whether it flaps.
    fn ended(&self, catalog: &Catalog) -> (ResourceStatus, bool, bool) {
        let result = self.run(Mode::Apply, catalog).unwrap();
        let [report] = result.resources.as_slice() else { panic!("{result:?}") };
        (report.status, report.corrective, report.flapping)
    }
}

#[test]
fn a_new_intent_is_no_drift_and_a_foreign_change_is() {
    use ResourceStatus::{Changed, Unchanged};
    let machine = Machine::new();
    let v1 = motd("v1", DriftMode::Correct);
    assert_eq!(machine.ended(&v1), (Changed, false, false));
    assert_eq!(machine.ended(&v1), (Unchanged, false, false));
    assert_eq!(machine.ended(&motd("v2", DriftMode::Correct)), (Changed, false, false));
    let machine = machine.tamper("foreign");
    assert_eq!(machine.ended(&motd("v2", DriftMode::Correct)), (Changed, true, false));
    // A foreign change and a new intent at once: the intent counts.
    let machine = machine.tamper("foreign");
    assert_eq!(machine.ended(&v1), (Changed, false, false));
}

#[test]
fn drift_is_reported_or_ignored_where_that_is_wanted_but_a_new_intent_is_carried_out() {
    use ResourceStatus::{Changed, Pending, Unchanged};
    for (mode, status) in [(DriftMode::Report, Pending), (DriftMode::Ignore, Unchanged)] {
        let machine = Machine::new();
        assert_eq!(machine.ended(&motd("v1", mode)).0, Changed);
        let machine = machine.tamper("foreign");
        machine.host.log();
        assert_eq!(machine.ended(&motd("v1", mode)).0, status, "{mode:?}");
        assert_eq!(machine.host.log(), "", "nothing was touched");
        assert_eq!(machine.ended(&motd("v2", mode)).0, Changed, "{mode:?}");
    }
}

#[test]
fn a_service_that_ignores_drift_restarts_all_the_same() {
    let mut web_ = web("v1");
    web_.resources[1].drift = DriftMode::Ignore;
    let machine = Machine::new();
    machine.run(Mode::Apply, &web_).unwrap();
    let mut web_ = web("v2");
    web_.resources[1].drift = DriftMode::Ignore;
    machine.run(Mode::Apply, &web_).unwrap();
    assert_eq!(machine.host.count("restart nginx.service"), 2);
}

#[test]
fn what_is_corrected_in_run_after_run_flaps_until_it_rests() {
    let v1 = motd("v1", DriftMode::Correct);
    let mut machine = Machine::new();
    let mut flapping = Vec::new();
    for _ in 0..5 {
        flapping.push(machine.ended(&v1).2);
        machine = machine.tamper("foreign");
    }
    assert_eq!(flapping, [false, false, false, true, true]);
    let machine = machine.tamper("v1");
    assert_eq!(machine.ended(&v1), (ResourceStatus::Unchanged, false, false));
}

#[test]
fn a_sensitive_resource_has_no_values_in_its_events_no_difference_and_no_copy() {
    let shown = motd("public", DriftMode::Correct);
    let mut hidden = motd("hunter2", DriftMode::Correct);
    hidden.resources[0].sensitive = true;
    let run = |machine: &Machine, catalog: &Catalog| {
        let state = machine.state();
        let run = Run { host: &machine.host, state: &state, mode: Mode::Apply, differences: true, stop: &|| false };
        block_on(run.apply(catalog)).unwrap()
    };
    let machine = Machine::new();
    let result = run(&machine, &hidden);
    assert!(!format!("{result:?}").contains("hunter2"), "{result:?}");
    assert!(result.resources[0].events.iter().all(|event| event.previous.is_none() && event.desired.is_none()));
    // What is replaced now was a secret, whatever replaces it: the same resource, or another one.
    let mut renamed = shown.clone();
    renamed.resources[0].id = id("renamed");
    for shown in [shown, renamed] {
        run(&machine, &hidden);
        let result = run(&machine, &shown);
        assert_eq!(result.resources[0].status, ResourceStatus::Changed);
        assert!(!format!("{result:?}").contains("hunter2"), "{result:?}");
        assert_eq!(machine.state().backups().list().unwrap(), []);
    }
}

#[test]
fn what_a_program_prints_about_a_secret_is_not_repeated() {
    let failing = |sensitive, secret_names| {
        let Machine { host, root } = Machine::new();
        let machine = Machine { host: host.command("sh", 3, "", "hunter2"), root };
        let spec = CommandSpec { argv: vec!["sh".into()], creates: Some("/never".into()), ..CommandSpec::default() };
        let mut catalog = catalog(vec![("a", Part::Command(spec), &[], &[])]);
        (catalog.resources[0].sensitive, catalog.resources[0].secret_names) = (sensitive, secret_names);
        machine.run(Mode::Apply, &catalog).unwrap().resources.remove(0).message
    };
    assert_eq!(failing(false, false), "sh exited with 3: hunter2");
    assert_eq!(failing(true, false), "sh exited with 3; what it printed is not shown: it may hold a secret");
    assert_eq!(failing(true, true), "details are not shown: a secret is, or was, in its fields");
}
