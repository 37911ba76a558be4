//! Gates, hooks and Rollouts that wait for each other: one story each.

use drover_crds::{RolloutPhase, condition};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    super::{
        decide::decide,
        gate::{GateAnswer, GateEvidence, asked_of_run},
        hook::JobView,
        request::Request,
        snapshot::RolloutView,
    },
    world::{Luck, World, drained},
};
use crate::metadata::name;

fn with(extra: &Value) -> Value {
    let mut spec = drained();
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    spec
}

/// Jobs end: those of these templates fail, the others succeed.
fn end_jobs(world: &mut World, bad: &[&str]) {
    for (name, job) in &mut world.jobs {
        if job.state == JobView::Running {
            let fails = bad.iter().any(|bad| name.contains(bad));
            job.state = if fails { JobView::Failed("BackoffLimitExceeded".into()) } else { JobView::Succeeded };
        }
    }
}

/// Lets time pass; says whether the phase was reached.
fn passes(world: &mut World, phase: RolloutPhase, bad: &[&str]) -> bool {
    for _ in 0..200 {
        world.settle(0);
        if world.status().phase == Some(phase) {
            return true;
        }
        world.agents();
        end_jobs(world, bad);
        world.now += SignedDuration::from_secs(5);
    }
    false
}

fn evidence(answer: GateAnswer) -> Vec<GateEvidence> {
    vec![GateEvidence::of(answer)]
}

fn message(world: &World) -> String {
    world.status().message.unwrap()
}

fn assigned(world: &World) -> usize {
    world.hosts.iter().filter(|host| !host.status.as_ref().unwrap().assigned.is_empty()).count()
}

const BATCH: &str = r#"{"gates": {"batch": [{"name": "errors", "object": {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "expression": "true"}}]}}"#;

fn batch_gate() -> Value {
    serde_json::from_str(BATCH).unwrap()
}

#[test]
fn a_preflight_gate_that_does_not_pass_fails_nothing_and_nothing_moves() {
    let gate = json!({"name": "quorum", "http": {"url": "http://x/"}, "timeoutSeconds": 10, "failureLimit": 0});
    let mut world = World::new(2, with(&json!({"gates": {"preflight": [gate]}})));
    for answer in [GateAnswer::None, GateAnswer::Failed("503".into()), GateAnswer::Inconclusive("silent".into())] {
        world.run_gates = evidence(answer);
        assert!(!passes(&mut world, RolloutPhase::Complete, &[]));
        assert!(message(&world).contains("gate quorum"), "{}", message(&world));
        assert_eq!((assigned(&world), world.status().in_flight.len()), (0, 0));
        assert_eq!(world.status().display.unwrap().blocked.as_deref(), Some("Gate"));
        assert_eq!(world.status().run.unwrap().stopped, None);
    }
    world.run_gates = evidence(GateAnswer::Passed);
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
}

#[test]
fn a_batch_gate_that_fails_stops_the_run_as_its_policy_says() {
    for (policy, phase, message) in [
        ("Pause", RolloutPhase::Failed, "gate errors did not pass within 120 s: 7 errors"),
        ("Rollback", RolloutPhase::RolledBack, "gate errors did not pass within 120 s: 7 errors"),
    ] {
        let mut spec = with(&batch_gate());
        spec["strategy"]["failure"] = json!({"onExceeded": policy});
        let mut world = World::new(3, spec);
        world.run_gates = evidence(GateAnswer::Failed("7 errors".into()));
        for host in &mut world.hosts {
            let status = host.status.as_mut().unwrap();
            let before = drover_crds::Assignment { node_config: "base".into(), revision: "base-0".into() };
            (status.assigned, status.assigned_generation) = (vec![before], 1);
        }
        let before = world.nodes.clone();
        assert!(passes(&mut world, phase, &[]), "{:?}", world.status());
        assert!(self::message(&world).contains(message), "{}", self::message(&world));
        let has = |revision: &str| {
            let all = world.hosts.iter().map(|host| host.status.as_ref().unwrap().assigned[0].revision == revision);
            all.filter(|has| *has).count()
        };
        assert_eq!(has("base-1"), usize::from(policy == "Pause"), "the canary alone was changed");
        world.assert_given_back(&before);
    }
}

#[test]
fn a_batch_gate_without_an_answer_waits_for_a_person_and_goes_on_when_it_passes() {
    let mut world = World::new(3, with(&batch_gate()));
    for answer in [GateAnswer::None, GateAnswer::Inconclusive("NaN".into())] {
        world.run_gates = evidence(answer);
        assert!(!passes(&mut world, RolloutPhase::Complete, &[]));
        assert_eq!(assigned(&world), 1, "no evidence is not health");
        let status = world.status();
        let ready = condition::find(&status.conditions, condition::READY).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "GateInconclusive"));
        assert_eq!(status.run.unwrap().stopped, None);
    }
    world.run_gates = evidence(GateAnswer::Passed);
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
}

#[test]
fn a_run_that_is_tried_again_after_the_last_batchs_gate_failed_asks_it_again() {
    let mut world = World::new(1, with(&batch_gate()));
    world.run_gates = evidence(GateAnswer::Failed("7 errors".into()));
    assert!(passes(&mut world, RolloutPhase::Failed, &[]));
    assert_eq!(world.status().counts.unwrap().updated, 1);
    world.rollouts[0].metadata.generation = Some(2);
    world.settle(0);
    assert_eq!(world.status().run.unwrap().number, 2);
    assert!(passes(&mut world, RolloutPhase::Failed, &[]), "{:?}", world.status());
    world.rollouts[0].metadata.generation = Some(3);
    world.run_gates = evidence(GateAnswer::Passed);
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
}

#[test]
fn a_batch_soaks_before_its_gates_are_asked() {
    let mut spec = with(&batch_gate());
    spec["strategy"]["batches"] = json!([{"size": 1, "soakSeconds": 300}]);
    let mut world = World::new(1, spec);
    // What was seen before it had soaked does not count: it is not asked.
    world.run_gates = evidence(GateAnswer::Failed("7 errors".into()));
    while world.status().stage.is_none_or(|stage| stage.step < drover_crds::StageStep::AfterBatch) {
        world.settle(0);
        world.agents();
        world.now += SignedDuration::from_secs(5);
    }
    let asked = |world: &World, seconds| {
        asked_of_run(&world.rollouts[0], world.status().stage.unwrap().since.0 + SignedDuration::from_secs(seconds))
            .map(|asked| (asked.gates.len(), asked.place))
    };
    assert_eq!(asked(&world, 299), None);
    assert_eq!(asked(&world, 300), Some((1, "0r-base/1/AfterBatch/0".into())));
    world.now += SignedDuration::from_secs(310);
    world.settle(0);
    assert!(message(&world).contains("gate errors: 7 errors"), "its time counts from then on: {}", message(&world));
}

#[test]
fn a_gate_that_decides_nothing_is_told_of_and_delays_nothing() {
    let dry = json!({"name": "latency", "dryRun": true, "http": {"url": "http://x/"}});
    let host = json!({"name": "smart", "dryRun": true, "http": {"port": 80}});
    let gates = json!({"gates": {"batch": [dry], "host": [host]}});
    let mut world = World::new(2, with(&gates));
    world.run_gates = evidence(GateAnswer::Failed("503".into()));
    world.luck.insert("node-1".into(), Luck::GateFails);
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
    let told = world.status().dry_run_gates;
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].batch, told[0].answer.as_str()), (Some(1), "inconclusive: gate latency: 503"));
    let host = world.hosts[0].status.as_ref().unwrap();
    let verified = condition::find(&host.conditions, "Verified").unwrap();
    assert_eq!((verified.status.as_str(), verified.reason.as_str()), ("True", "GatesPassed"));
    assert!(verified.message.contains("dry run of gate smart: "), "{verified:?}");
}

const PLACES: [&str; 6] = ["beforeRun", "beforeBatch", "beforeHost", "afterHost", "afterBatch", "afterRun"];

/// A hook at each place, each of a template of its place's name.
fn hooks(on_failure: &str) -> Value {
    let hook = |place: &str| {
        let name = place.to_lowercase();
        json!([{"name": name, "jobTemplateRef": {"name": place}, "onFailure": on_failure}])
    };
    json!({"hooks": PLACES.map(|place| (place.to_owned(), hook(place))).into_iter().collect::<serde_json::Map<_, _>>()})
}

fn with_hooks(hosts: usize, on_failure: &str) -> World {
    let mut world = World::new(hosts, with(&hooks(on_failure)));
    world.templates.extend(PLACES);
    world
}

#[test]
fn hooks_are_run_in_their_order_each_once_and_jobs_that_are_done_with_go() {
    let mut world = with_hooks(2, "Fail");
    let before = world.nodes.clone();
    assert!(passes(&mut world, RolloutPhase::Complete, &[]), "{:?}", world.status());
    let made: Vec<_> = world.made.iter().map(|(job, host)| (job.as_str(), host.as_deref())).collect();
    let machine = |host| [("beforeHost", Some(host)), ("afterHost", Some(host))];
    let batch = |host| [&[("beforeBatch", None)][..], &machine(host), &[("afterBatch", None)]].concat();
    let expected = [&[("beforeRun", None)][..], &batch("node-1"), &batch("node-2"), &[("afterRun", None)]].concat();
    assert_eq!(made, expected);
    world.assert_given_back(&before);
    assert!(world.jobs.values().all(|job| !job.of_host), "{:?}", world.jobs);

    // The next run makes its own, and removes those of the one before.
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    world.settle(0);
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
    assert_eq!(world.made.len(), 2 * expected.len());
    assert!(world.jobs.values().all(|job| job.run == Some(2)), "{:?}", world.jobs);
}

#[test]
fn a_hook_before_the_run_that_fails_stops_it_before_anything_moved() {
    let mut world = with_hooks(2, "Fail");
    assert!(passes(&mut world, RolloutPhase::Failed, &["beforerun"]), "{:?}", world.status());
    assert_eq!((assigned(&world), world.made.len()), (0, 1));
    let told = message(&world);
    assert!(
        told.contains("hook beforerun (beforeRun) failed: BackoffLimitExceeded; see kubectl logs job/base-"),
        "{told}"
    );
    // Tried again, it is run again: it is another run.
    world.rollouts[0].metadata.generation = Some(2);
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
}

#[test]
fn a_hook_that_fails_fails_its_machine_or_stops_the_run_unless_that_is_ignored() {
    // How many machines were changed when it stopped, and how many failed.
    for (place, changed, failed) in
        [("beforeBatch", 0, 0), ("beforeHost", 0, 1), ("afterHost", 1, 1), ("afterBatch", 1, 0)]
    {
        let mut world = with_hooks(2, "Fail");
        let before = world.nodes.clone();
        let name = place.to_lowercase();
        assert!(passes(&mut world, RolloutPhase::Failed, &[&name]), "{place}: {:?}", world.status());
        let told = message(&world);
        assert!(told.contains(&format!("hook {name} ({place}) failed")), "{told}");
        assert_eq!((assigned(&world), world.status().counts.unwrap().failed), (changed, failed), "{place}");
        world.assert_given_back(&before);

        let mut world = with_hooks(2, "Ignore");
        assert!(passes(&mut world, RolloutPhase::Complete, &[&name]), "{place}: {:?}", world.status());
    }
}

#[test]
fn a_template_that_is_missing_is_waited_for_by_name() {
    let mut world = with_hooks(1, "Fail");
    world.templates.remove("beforeRun");
    assert!(!passes(&mut world, RolloutPhase::Complete, &[]));
    assert!(
        message(&world).contains("hook beforerun (beforeRun): there is no CronJob beforeRun"),
        "{}",
        message(&world)
    );
    world.templates.insert("beforeRun");
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
    assert_eq!(assigned(&world), 1);

    // A machine is not held for ever.
    let mut world = with_hooks(1, "Fail");
    world.templates.remove("afterHost");
    let before = world.nodes.clone();
    assert!(passes(&mut world, RolloutPhase::Failed, &[]), "{:?}", world.status());
    world.assert_given_back(&before);
}

#[test]
fn a_job_that_is_a_gate_is_made_once_and_its_end_is_the_answer() {
    let job = json!({"name": "smoke", "job": {"templateRef": {"name": "smoke"}}});
    let gates = json!({"gates": {"batch": [job], "host": [job]}});
    let mut world = World::new(2, with(&gates));
    world.templates.insert("smoke");
    assert!(passes(&mut world, RolloutPhase::Complete, &[]), "{:?}", world.status());
    let hosts: Vec<_> = world.made.iter().map(|(_, host)| host.as_deref()).collect();
    assert_eq!(hosts, [Some("node-1"), None, Some("node-2"), None]);
    let mut world = World::new(2, with(&gates));
    world.templates.insert("smoke");
    assert!(passes(&mut world, RolloutPhase::Failed, &["smoke"]));
    assert!(message(&world).contains("gate smoke failed: BackoffLimitExceeded"), "{}", message(&world));
    assert_eq!(assigned(&world), 1);
}

/// The agents run what the claims ask for, and tell this.
fn run_commands(world: &mut World, code: Option<i32>) -> usize {
    let mut ran = 0;
    for host in &mut world.hosts {
        let status = host.status.as_mut().unwrap();
        let Some(claim) = &status.claim else { continue };
        let told = |command: &drover_crds::ClaimCommand| drover_crds::CommandReport {
            token: command.token.clone(),
            code,
            message: Some("a line".into()),
        };
        ran += claim.commands.len();
        status.active.as_mut().unwrap().commands = claim.commands.iter().map(told).collect();
    }
    ran
}

#[test]
fn a_command_is_asked_for_while_its_machine_is_verified_and_its_end_is_the_answer() {
    let gate = json!({"command": {"argv": ["/usr/sbin/nginx", "-t"]}, "timeoutSeconds": 60});
    for (code, phase, why) in [
        (Some(Some(0)), RolloutPhase::Complete, "2 of 2 updated"),
        (Some(Some(3)), RolloutPhase::Failed, "gate command /usr/sbin/nginx exited with 3: a line"),
        (Some(None), RolloutPhase::Failed, "gate command /usr/sbin/nginx did not end by itself: a line"),
        (
            None,
            RolloutPhase::Failed,
            "Inconclusive: gate command /usr/sbin/nginx did not pass within 60 s: no answer yet",
        ),
    ] {
        let mut world = World::new(2, with(&json!({"gates": {"host": [gate, gate]}})));
        let mut ran = 0;
        for _ in 0..100 {
            world.settle(0);
            world.agents();
            let asked = world.claimed().iter().any(|host| {
                let claim = host.status.as_ref().unwrap().claim.as_ref().unwrap();
                assert_eq!(claim.commands.is_empty(), claim.step != drover_crds::ClaimStep::Verify);
                !claim.commands.is_empty()
            });
            if let Some(code) = code.filter(|_| asked) {
                ran += run_commands(&mut world, code);
            }
            world.now += SignedDuration::from_secs(5);
        }
        assert_eq!(world.status().phase, Some(phase), "{:?}", world.status());
        assert!(message(&world).contains(why), "{}", message(&world));
        assert_eq!(
            ran,
            usize::from(code.is_some()) + usize::from(phase == RolloutPhase::Complete),
            "one for each hold"
        );
    }
}

#[test]
fn a_paused_rollout_makes_no_job_and_says_that_it_is_paused() {
    let mut world = with_hooks(1, "Fail");
    world.rollouts[0].spec.paused = Some(true);
    assert!(passes(&mut world, RolloutPhase::Paused, &[]), "{:?}", world.status());
    assert!(!passes(&mut world, RolloutPhase::Complete, &[]));
    assert!(world.made.is_empty());
    world.rollouts[0].spec.paused = None;
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
}

#[test]
fn no_job_is_made_twice_whatever_request_is_the_last_before_a_crash() {
    let run = |crash: Option<usize>| {
        let mut world = with_hooks(2, "Fail");
        for _ in 0..300 {
            let mut snapshot = world.snapshot(0);
            if let Some(request) = decide(&snapshot, world.now).request {
                let again = request.clone();
                let deletes = matches!(again, Request::DeleteJob { .. });
                world.carry_out(0, request, &mut snapshot);
                if crash == Some(world.writes) && !deletes {
                    // The answer was lost, and somebody who still has the old snapshot makes the request again.
                    world.carry_out(0, again, &mut snapshot);
                }
            } else {
                world.agents();
                end_jobs(&mut world, &[]);
                world.now += SignedDuration::from_secs(5);
            }
        }
        assert_eq!(world.status().phase, Some(RolloutPhase::Complete), "crash at {crash:?}");
        (world.made, world.writes)
    };
    let (made, writes) = run(None);
    assert!(writes > 30 && made.len() == 10, "{writes} writes, {made:?}");
    for crash in 1..=writes {
        assert_eq!(run(Some(crash)).0, made, "crash at {crash}");
    }
}

#[test]
fn a_rollout_begins_when_those_before_it_are_complete_and_up_to_date() {
    let mut world = World::new(1, with(&json!({"dependsOn": [{"name": "database"}, {"name": "cache"}]})));
    let done = RolloutView {
        depends_on: vec![],
        phase: Some(RolloutPhase::Complete),
        is_observed: true,
        revision: Some("db-2".into()),
        wanted: Some("db-2".into()),
    };
    world.other_rollouts.insert("cache".into(), done.clone());
    for (view, why) in [
        (None, "there is none of this name"),
        (Some(RolloutView { wanted: None, ..done.clone() }), "its NodeConfig has no revision yet"),
        (Some(RolloutView { revision: None, ..done.clone() }), "it has not begun db-2 yet"),
        (Some(RolloutView { revision: Some("db-1".into()), ..done.clone() }), "it has not begun db-2 yet"),
        (Some(RolloutView { is_observed: false, ..done.clone() }), "its last change was not looked at yet"),
        (Some(RolloutView { phase: Some(RolloutPhase::Progressing), ..done.clone() }), "it is Progressing with db-2"),
        (Some(RolloutView { phase: Some(RolloutPhase::RolledBack), ..done.clone() }), "it is RolledBack with db-2"),
    ] {
        match view {
            Some(view) => world.other_rollouts.insert("database".into(), view),
            None => world.other_rollouts.remove("database"),
        };
        assert!(!passes(&mut world, RolloutPhase::Complete, &[]));
        let told = message(&world);
        assert!(told.contains(&format!("waits for Rollout database: {why}")), "{told}");
        assert_eq!(assigned(&world), 0);
    }
    world.other_rollouts.insert("database".into(), done);
    assert!(passes(&mut world, RolloutPhase::Complete, &[]));
    assert_eq!(name(&world.hosts[0].metadata), "node-1");
}

#[test]
fn rollouts_that_wait_for_each_other_are_stalled_and_the_circle_is_named() {
    let waits_for = |names: &[&str]| RolloutView {
        depends_on: names.iter().map(|name| (*name).to_owned()).collect(),
        ..RolloutView::default()
    };
    for (database, cache, path) in [
        (&["base"][..], &[][..], Some("base → database → base")),
        (&["cache"], &["base"], Some("base → database → cache → base")),
        (&["cache"], &["database"], Some("base → database → cache → database")),
        (&["cache", "cache"], &[], None),
    ] {
        let mut world = World::new(1, with(&json!({"dependsOn": [{"name": "database"}]})));
        world.other_rollouts.insert("database".into(), waits_for(database));
        world.other_rollouts.insert("cache".into(), waits_for(cache));
        world.settle(0);
        let stalled = condition::is_true(&world.status().conditions, condition::STALLED);
        let told = message(&world);
        assert_eq!(stalled, path.is_some(), "{told}");
        assert!(path.is_none_or(|path| told.ends_with(path)), "{told}");
    }
}

/// An operator that stopped before one of its requests wakes up when everything is done, and its request arrives.
#[test]
fn no_job_runs_twice_when_an_old_request_arrives_late() {
    let run = |late: Option<usize>| {
        let mut world = with_hooks(2, "Fail");
        let mut held = None;
        let mut is_late = false;
        for round in 0..400 {
            let mut snapshot = world.snapshot(0);
            match decide(&snapshot, world.now).request {
                Some(request) if late == Some(world.writes) && held.is_none() => held = Some((request, snapshot)),
                Some(request) => drop(world.carry_out(0, request, &mut snapshot)),
                None => {
                    world.agents();
                    end_jobs(&mut world, &[]);
                    world.now += SignedDuration::from_secs(5);
                }
            }
            let jobs = |request: &Request| matches!(request, Request::CreateJob(_) | Request::StartJob { .. });
            if round == 300
                && let Some((request, snapshot)) = &mut held
                && jobs(request)
            {
                is_late = true;
                world.carry_out(0, request.clone(), snapshot);
            }
        }
        assert_eq!(world.status().phase, Some(RolloutPhase::Complete), "late: {late:?}");
        let left = world.jobs.values().any(|job| matches!(job.state, JobView::Made { .. }));
        assert!(!left, "what was made too late is removed: {:?}", world.jobs);
        (world.made, world.writes, is_late)
    };
    let (made, writes, _) = run(None);
    let mut tried = 0;
    for late in 0..writes {
        let (now_made, _, is_late) = run(Some(late));
        assert_eq!(now_made, made, "late: {late}");
        tried += usize::from(is_late);
    }
    assert!(tried >= 2 * made.len(), "{tried}");
}
