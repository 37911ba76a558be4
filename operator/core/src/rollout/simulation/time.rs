//! Stories of windows, deadlines, estimates and previews.

#![allow(clippy::needless_pass_by_value, reason = "a test writes its spec in place")]

use std::time::Duration;

use drover_crds::{
    ChangeCost, HostPreview, RolloutPhase,
    condition::{self, RECONCILING, STALLED},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    super::preview,
    world::{Luck, World, drained},
};

fn at(world: &mut World, moment: &str) {
    world.now = moment.parse().unwrap();
}

fn message(world: &World) -> String {
    world.status().message.unwrap_or_default()
}

fn blocked(world: &World) -> Option<String> {
    world.status().display.and_then(|display| display.blocked)
}

/// Lets this time pass in steps, with the agents at work, and says how many machines are updated and under way after it.
fn pass(world: &mut World, time: SignedDuration, step: SignedDuration) -> (i32, i32) {
    let end = world.now + time;
    while world.now < end {
        world.settle(0);
        world.agents();
        world.now += step.min(end.duration_since(world.now));
    }
    world.settle(0);
    let counts = world.status().counts.unwrap();
    (counts.updated, counts.in_flight)
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Saturdays from two to six in Berlin, one machine at a time.
fn saturdays(schedule: Value) -> Value {
    let mut all = json!({"windows": [
        {"kind": "Allow", "schedule": "0 2 * * 6", "durationSeconds": 4 * 3600, "timeZone": "Europe/Berlin"},
    ]});
    all.as_object_mut().unwrap().extend(schedule.as_object().unwrap().clone());
    json!({"schedule": all, "gates": {"host": [{"nodeReady": {}}]}})
}

/// A world at work just before its window closes: one machine is done, one is under way, and two are left.
fn nearly_closed(schedule: Value, batches: Value) -> World {
    let mut spec = saturdays(schedule);
    spec["strategy"] = json!({"batches": batches});
    let mut world = World::new(4, spec);
    at(&mut world, "2026-11-28T04:59:50Z");
    world.luck.insert("node-2".into(), Luck::AgentSilent);
    assert_eq!(pass(&mut world, SignedDuration::from_secs(9), SECOND), (1, 1));
    at(&mut world, "2026-11-28T05:00:00Z");
    world.luck.clear();
    world
}

#[test]
fn outside_its_windows_nothing_begins_and_it_says_when_they_open() {
    let mut world = World::new(3, saturdays(json!({})));
    at(&mut world, "2026-11-27T12:00:00Z");
    assert_eq!(world.settle(0), Duration::from_secs(60));
    let says = "0 of 3 updated to base-1; outside its windows; opens 2026-11-28T02:00+01:00 Europe/Berlin";
    assert!(message(&world).starts_with(says), "{}", message(&world));
    assert_eq!(blocked(&world).as_deref(), Some("Window"));
    assert_eq!(pass(&mut world, SignedDuration::from_hours(12), SignedDuration::from_mins(7)), (0, 0));
    // It looks again at the very opening.
    at(&mut world, "2026-11-28T00:59:48Z");
    assert_eq!(world.settle(0), Duration::from_secs(12));
    at(&mut world, "2026-11-28T01:00:00Z");
    world.settle(0);
    assert_eq!(world.claimed().len(), 1);
    world.until(RolloutPhase::Complete);
}

#[test]
fn at_the_end_of_a_window_machines_are_finished_and_none_is_begun() {
    let mut world = nearly_closed(json!({"minRemainingSeconds": 0}), json!([]));
    world.settle(0);
    let says = "1 of 4 updated to base-1; finishes 1 under way; outside its windows; opens 2026-12-05T02:00+01:00 Europe/Berlin";
    assert!(message(&world).starts_with(says), "{}", message(&world));
    assert_eq!(pass(&mut world, SignedDuration::from_hours(2), MINUTE), (2, 0));
    at(&mut world, "2026-12-05T01:00:00Z");
    assert_eq!(pass(&mut world, MINUTE, SECOND), (4, 0));
    assert_eq!(world.status().run.unwrap().number, 1, "it is the same run");
}

#[test]
fn what_is_finished_after_the_window_is_the_batch_or_the_run_if_that_was_said() {
    let halves = json!([{"name": "half", "size": 2}]);
    let threes = json!([{"name": "first", "size": 3}]);
    for (on_close, batches, done) in [
        ("FinishHosts", &threes, 2),
        ("FinishBatch", &halves, 2),
        ("FinishBatch", &threes, 3),
        ("FinishRun", &halves, 4),
    ] {
        let mut world = nearly_closed(json!({"onClose": on_close, "minRemainingSeconds": 0}), batches.clone());
        assert_eq!(pass(&mut world, SignedDuration::from_hours(1), MINUTE), (done, 0), "{on_close} {batches}");
    }
    // A run of which nothing was begun waits, whatever it may finish.
    for on_close in ["FinishHosts", "FinishBatch", "FinishRun"] {
        let mut world = World::new(2, saturdays(json!({"onClose": on_close})));
        at(&mut world, "2026-11-28T05:00:00Z");
        assert_eq!(pass(&mut world, SignedDuration::from_hours(1), MINUTE), (0, 0), "{on_close}");
    }
}

#[test]
fn a_freeze_stops_what_an_end_of_a_window_does_not() {
    let mut world = nearly_closed(json!({"onClose": "FinishRun", "minRemainingSeconds": 0}), json!([]));
    let freeze =
        json!({"kind": "Deny", "from": "2026-11-28T05:00:00Z", "to": "2026-12-24T00:00:00Z", "reason": "stocktaking"});
    let schedule = world.rollouts[0].spec.schedule.as_mut().unwrap();
    schedule.windows.push(serde_json::from_value(freeze).unwrap());
    assert_eq!(pass(&mut world, SignedDuration::from_hours(1), MINUTE), (2, 0));
    let says = "2 of 4 updated to base-1; frozen until 2026-12-24T01:00+01:00 Europe/Berlin: stocktaking; \
                opens 2026-12-26T02:00+01:00 Europe/Berlin";
    assert!(message(&world).starts_with(says), "{}", message(&world));
}

#[test]
fn a_batch_that_was_finished_is_completed_outside_the_window_too() {
    let mut world = World::new(1, saturdays(json!({})));
    at(&mut world, "2026-11-28T04:59:50Z");
    world.settle(0);
    assert_eq!(world.claimed().len(), 1);
    at(&mut world, "2026-11-28T06:00:00Z");
    world.agents();
    world.settle(0);
    assert_eq!(world.status().phase, Some(RolloutPhase::Complete), "{}", message(&world));
    // And what has the revision already needs no window at all.
    world.rollouts[0].status = None;
    world.settle(0);
    assert_eq!(world.status().phase, Some(RolloutPhase::Complete), "{}", message(&world));
}

#[test]
fn a_machine_is_begun_only_if_so_much_of_the_window_is_left() {
    let mut world = World::new(2, saturdays(json!({"minRemainingSeconds": 3600})));
    at(&mut world, "2026-11-28T04:00:01Z");
    world.settle(0);
    let says = "0 of 2 updated to base-1; its window closes in less than the 60 min that a machine needs; \
                opens 2026-12-05T02:00+01:00 Europe/Berlin";
    assert!(message(&world).starts_with(says), "{}", message(&world));
    at(&mut world, "2026-12-05T04:00:00Z");
    world.settle(0);
    assert_eq!(world.claimed().len(), 1);

    // Nothing is said: what the first machine took counts, once it is done.
    let says = "its window closes in less than the 9 min that a machine needs";
    let mut world = World::new(3, saturdays(json!({})));
    at(&mut world, "2026-11-28T04:43:00Z");
    world.settle(0);
    at(&mut world, "2026-11-28T04:52:00Z");
    world.agents();
    assert_eq!(pass(&mut world, MINUTE, MINUTE), (1, 0));
    assert!(message(&world).contains(says), "{}", message(&world));
    // Of a window that is shorter than a machine takes, the first half is used.
    world.rollouts[0].spec.schedule.as_mut().unwrap().windows[0].duration_seconds = Some(600);
    at(&mut world, "2026-12-05T01:04:59Z");
    world.settle(0);
    assert_eq!(world.claimed().len(), 1);
}

#[test]
fn a_schedule_that_can_not_be_understood_is_closed_and_named() {
    let mut spec = saturdays(json!({}));
    spec["schedule"]["windows"][0]["timeZone"] = json!("Europe/Berln");
    let mut world = World::new(2, spec);
    world.settle(0);
    let says = "0 of 2 updated to base-1; no machine is begun: schedule.windows[0] can not be understood: Europe/Berln is no \
                time zone that is known; write an IANA name such as Europe/Berlin";
    assert_eq!(message(&world), says);
    let conditions = world.status().conditions;
    assert!(condition::is_true(&conditions, STALLED) && !condition::is_true(&conditions, RECONCILING));
    assert!(world.claimed().is_empty());
    world.rollouts[0].spec.schedule.as_mut().unwrap().windows[0].time_zone = None;
    at(&mut world, "2026-11-28T03:00:00Z");
    world.until(RolloutPhase::Complete);
}

#[test]
fn a_person_who_paused_is_told_so_also_outside_the_windows() {
    let mut spec = saturdays(json!({}));
    spec["paused"] = json!(true);
    let mut world = World::new(2, spec);
    world.settle(0);
    assert_eq!(world.status().phase, Some(RolloutPhase::Paused));
    assert!(message(&world).contains("paused: set spec.paused to false"), "{}", message(&world));
}

#[test]
fn a_rollback_does_not_wait_for_a_window() {
    let mut spec = saturdays(json!({"minRemainingSeconds": 0}));
    spec["strategy"] = json!({"failure": {"onExceeded": "Rollback"}});
    let mut world = World::new(2, spec);
    at(&mut world, "2026-11-28T01:00:00Z");
    world.until(RolloutPhase::Complete);
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    at(&mut world, "2026-11-28T04:59:50Z");
    world.luck.insert("node-2".into(), Luck::AgentSilent);
    assert_eq!(pass(&mut world, SignedDuration::from_secs(9), SECOND), (1, 1));
    // The agent does not report in time, and by then the window has closed.
    pass(&mut world, SignedDuration::from_secs(600), MINUTE);
    world.luck.clear();
    world.until(RolloutPhase::RolledBack);
    let revision = |world: &World, host: usize| world.hosts[host].status.as_ref().unwrap().assigned[0].revision.clone();
    assert_eq!((revision(&world, 0), revision(&world, 1)), ("base-1".to_owned(), "base-1".to_owned()));
    assert!(world.now < "2026-11-28T06:00:00Z".parse::<Timestamp>().unwrap());
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// One machine that is never done (its agent says nothing), and ten minutes for each.
fn stuck(spec: Value) -> World {
    let mut all = json!({"strategy": {"progressDeadlineSeconds": 600, "applyTimeoutSeconds": 10_000_000}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let mut world = World::new(2, all);
    world.luck.insert("node-1".into(), Luck::AgentSilent);
    at(&mut world, "2026-11-28T01:00:00Z");
    world
}

#[test]
fn a_run_without_progress_stops_and_says_where_it_stands() {
    let mut world = stuck(json!({}));
    assert_eq!(pass(&mut world, SignedDuration::from_secs(599), SECOND), (0, 1));
    assert_eq!(world.status().phase, Some(RolloutPhase::Progressing));
    // It looks again when the time is up, and not a minute later.
    assert_eq!(world.settle(0), Duration::from_secs(1));
    world.now += SECOND;
    world.settle(0);
    let stopped = world.status().run.unwrap().stopped.unwrap();
    let says =
        "no machine got done within 600 s, which is progressDeadlineSeconds; node-1 is at Apply: the agent's report";
    assert_eq!(stopped.reason, says);
    // A machine that gets done afterwards changes nothing about that, and the next run has all its time.
    world.luck.clear();
    assert_eq!(pass(&mut world, MINUTE, SECOND), (1, 0));
    assert_eq!(world.status().phase, Some(RolloutPhase::Failed));
    assert_eq!(world.status().clock, None);
    world.rollouts[0].metadata.generation = Some(2);
    world.until(RolloutPhase::Complete);
}

#[test]
fn each_machine_that_gets_done_begins_the_count_anew_and_time_alone_writes_nothing() {
    let mut spec = json!({"strategy": {"progressDeadlineSeconds": 600, "applyTimeoutSeconds": 86400}});
    spec["gates"] = json!({"host": [{"nodeReady": {}}]});
    let mut world = World::new(4, spec);
    for done in 1..=4 {
        world.settle(0);
        let writes = world.writes;
        for _ in 0..59 {
            world.now += SignedDuration::from_secs(10);
            world.settle(0);
        }
        // What the machine waits for, and that in the Rollout; no more.
        assert!(world.writes <= writes + 2, "{} writes in 590 s", world.writes - writes);
        world.agents();
        world.settle(0);
        assert_eq!(world.status().counts.unwrap().updated, done);
    }
    assert_eq!(world.status().phase, Some(RolloutPhase::Complete));
}

/// Makes it wait, and go on.
type Wish = fn(&mut World, bool);

#[test]
fn time_in_which_it_waits_by_somebodys_wish_does_not_count() {
    let closed = json!({"windows": [{"kind": "Deny", "from": "2026-11-28T01:05:00Z", "to": "2026-11-28T09:00:00Z"}]});
    let wishes: [(&str, Wish); 3] = [
        ("paused", |world, wish| world.rollouts[0].spec.paused = Some(wish)),
        ("held", |world, wish| {
            if wish { world.annotate("drover.dev/hold", "lunch") } else { world.remove_annotation("drover.dev/hold") }
        }),
        ("closed", |world, wish| {
            if !wish {
                at(world, "2026-11-28T09:00:00Z");
            }
        }),
    ];
    for (what, wish) in wishes {
        let mut world = stuck(if what == "closed" { json!({"schedule": closed}) } else { json!({}) });
        // Half of the time, then a long wait, then the other half.
        pass(&mut world, SignedDuration::from_secs(300), SignedDuration::from_secs(10));
        wish(&mut world, true);
        assert_eq!(pass(&mut world, HOUR, MINUTE), (0, 1), "{what}");
        assert!(world.status().run.unwrap().stopped.is_none(), "{what}: {:?}", world.status());
        wish(&mut world, false);
        pass(&mut world, SignedDuration::from_secs(290), SignedDuration::from_secs(10));
        assert!(world.status().run.unwrap().stopped.is_none(), "{what}: {:?}", world.status().clock);
        pass(&mut world, SignedDuration::from_secs(20), SignedDuration::from_secs(10));
        assert!(world.status().run.unwrap().stopped.is_some(), "{what}: {:?}", world.status().clock);
    }
}

#[test]
fn soaking_and_waiting_for_approval_do_not_count() {
    let mut world = World::new(
        2,
        json!({"strategy": {
            "progressDeadlineSeconds": 600,
            "batches": [{"name": "one", "size": 1, "soakSeconds": 7200}, {"name": "two", "size": 1, "approval": "Required"}],
        }}),
    );
    assert_eq!(pass(&mut world, SignedDuration::from_hours(9), SignedDuration::from_mins(5)), (1, 0));
    assert_eq!(blocked(&world).as_deref(), Some("Approval"));
    world.annotate("drover.dev/approve", "1/two");
    world.until(RolloutPhase::Complete);
}

#[test]
fn an_operator_that_was_away_when_the_window_closed_does_not_count_that_time() {
    let mut world = stuck(saturdays(json!({"minRemainingSeconds": 0})));
    world.settle(0);
    assert_eq!(world.claimed().len(), 1);
    // Four hours are open: the operator goes away five minutes before the end, and a machine got done just before.
    at(&mut world, "2026-11-28T04:50:00Z");
    world.luck.clear();
    world.agents();
    world.rollouts[0].spec.strategy.as_mut().unwrap().progress_deadline_seconds = None;
    world.luck.insert("node-2".into(), Luck::AgentSilent);
    world.settle(0);
    world.rollouts[0].spec.strategy.as_mut().unwrap().progress_deadline_seconds = Some(900);
    world.settle(0);
    at(&mut world, "2026-11-29T12:00:00Z");
    world.settle(0);
    assert!(world.status().run.unwrap().stopped.is_none(), "{:?}", world.status().clock);
    // Ten minutes counted before it closed, so five are left.
    for (moment, stops) in
        [("2026-12-05T01:00:00Z", false), ("2026-12-05T01:04:59Z", false), ("2026-12-05T01:05:00Z", true)]
    {
        at(&mut world, moment);
        world.settle(0);
        assert_eq!(world.status().run.unwrap().stopped.is_some(), stops, "{moment}: {:?}", world.status().clock);
    }
}

/// A run of `base-1` in which each machine took this long, and then a second revision.
fn measured(hosts: usize, each: SignedDuration, spec: Value) -> World {
    let mut world = World::new(hosts, json!({"strategy": {"maxParallel": hosts, "maxUnavailable": hosts}}));
    at(&mut world, "2026-11-20T10:00:00Z");
    world.settle(0);
    world.now += each;
    world.agents();
    world.until(RolloutPhase::Complete);
    let mut all = json!({"nodeConfigRef": {"name": "base"}});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    world.rollouts[0].spec = serde_json::from_value(all).unwrap();
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    world
}

fn eta(world: &World) -> Option<String> {
    world.status().display.and_then(|display| display.eta)
}

#[test]
fn it_says_when_it_will_be_done_from_what_machines_took() {
    let mut world = World::new(6, json!({"strategy": {"maxParallel": 2, "maxUnavailable": 2}}));
    at(&mut world, "2026-11-28T01:00:00Z");
    world.settle(0);
    assert_eq!(world.status().estimate.unwrap().basis, "no measurement yet");
    assert_eq!(eta(&world), None);
    world.now += MINUTE;
    world.agents();
    world.settle(0);
    // Two took a minute each, two more are under way, two wait.
    let estimate = world.status().estimate.unwrap();
    assert_eq!(estimate.basis, "4 machines, 60 s each (p90 60 s), 2 at a time");
    assert_eq!(estimate.finish_at.unwrap().0.to_string(), "2026-11-28T01:03:00Z");
    assert_eq!((estimate.remaining_seconds, estimate.fits, estimate.warning), (Some(120), None, None));
    assert_eq!(eta(&world).as_deref(), Some("2026-11-28T01:03Z"));
    // While all goes as foreseen, time alone writes nothing, once it was said what the machines wait for.
    world.now += SignedDuration::from_secs(20);
    world.settle(0);
    let writes = world.writes;
    for _ in 0..3 {
        world.now += SignedDuration::from_secs(10);
        world.settle(0);
    }
    assert_eq!(world.writes, writes);
    // Machines that take longer move it, by a minute at the least.
    world.now += SignedDuration::from_secs(130);
    world.settle(0);
    assert_eq!(eta(&world).as_deref(), Some("2026-11-28T01:05Z"));
    world.rollouts[0].spec.paused = Some(true);
    world.settle(0);
    assert_eq!(eta(&world), None, "nobody knows when it goes on");
    world.rollouts[0].spec.paused = None;
    world.until(RolloutPhase::Complete);
    assert_eq!((world.status().estimate, eta(&world)), (None, None));
}

#[test]
fn soaking_batches_and_windows_are_part_of_the_estimate() {
    let batches = json!({"strategy": {"maxParallel": 4, "maxUnavailable": 4, "batches": [
        {"name": "canary", "size": 1, "soakSeconds": 600}, {"name": "rest", "size": "100%"}]}});
    let mut world = measured(5, SignedDuration::from_mins(5), batches);
    world.settle(0);
    let begun = world.now;
    let estimate = world.status().estimate.unwrap();
    assert_eq!(
        estimate.basis,
        "5 machines, 5 min each (p90 5 min), 4 at a time, 10 min of soaking, by what the run before took"
    );
    assert_eq!(estimate.finish_at.unwrap().0, begun + SignedDuration::from_mins(20));
}

#[test]
fn before_it_begins_it_says_how_many_windows_it_takes() {
    let spec = saturdays(json!({}));
    let mut world = measured(6, SignedDuration::from_mins(50), spec.clone());
    at(&mut world, "2026-11-27T12:00:00Z");
    world.settle(0);
    let estimate = world.status().estimate.unwrap();
    let warning = "about 5 h of work, and the window is 4 h: it will take 2 windows";
    assert_eq!((estimate.fits, estimate.warning.as_deref()), (Some(false), Some(warning)));
    assert!(message(&world).ends_with(&format!("; {warning}")), "{}", message(&world));
    // Four hours in the first window, and one in the second.
    assert_eq!(estimate.finish_at.unwrap().0.to_string(), "2026-12-05T02:00:00Z");
    // Whoever let it begin knows.
    at(&mut world, "2026-11-28T01:00:00Z");
    world.settle(0);
    let estimate = world.status().estimate.unwrap();
    assert_eq!((estimate.fits, estimate.warning), (Some(false), None));
    // Fewer machines fit.
    let mut world = measured(4, SignedDuration::from_mins(50), spec.clone());
    at(&mut world, "2026-11-27T12:00:00Z");
    world.settle(0);
    let estimate = world.status().estimate.unwrap();
    assert_eq!((estimate.fits, estimate.warning), (Some(true), None));
    assert_eq!(estimate.finish_at.unwrap().0.to_string(), "2026-11-28T04:20:00Z");
    // A run that is finished although its window ended takes no second one.
    let mut world = measured(6, SignedDuration::from_mins(50), saturdays(json!({"onClose": "FinishRun"})));
    at(&mut world, "2026-11-27T12:00:00Z");
    world.settle(0);
    assert_eq!(world.status().estimate.unwrap().finish_at.unwrap().0.to_string(), "2026-11-28T06:00:00Z");
    // Nothing was measured yet: nothing is promised.
    let mut world = World::new(3, spec);
    at(&mut world, "2026-11-27T12:00:00Z");
    world.settle(0);
    let estimate = world.status().estimate.unwrap();
    assert_eq!((estimate.basis.as_str(), estimate.finish_at, estimate.fits), ("no measurement yet", None, None));
}

/// Twenty-six machines: each cost four times, and two that nothing is known of.
fn varied(spec: Value) -> World {
    let mut world = World::new(26, spec);
    let costs = [
        ChangeCost::NoOp,
        ChangeCost::None,
        ChangeCost::Reload,
        ChangeCost::Restart,
        ChangeCost::Drain,
        ChangeCost::Reboot,
    ];
    for index in 1..=24 {
        world.costs.insert(format!("node-{index}"), costs[(index - 1) % 6]);
    }
    world
}

#[test]
fn what_a_run_would_do_is_said_of_each_machine_and_in_sum() {
    let mut spec = drained();
    spec["strategy"]["batches"] = json!([{"name": "canary", "hosts": ["node-4"]}, {"name": "rest", "size": "100%"}]);
    let world = varied(spec.clone());
    let preview = |world: &World| preview(&world.snapshot(0)).unwrap();
    let seen = preview(&world);
    assert_eq!((seen.revision.as_str(), seen.hosts.len()), ("base-1", 26));
    let canary = HostPreview {
        host: "node-4".into(),
        batch: "canary".into(),
        cost: Some(ChangeCost::Restart),
        steps: vec!["leaves load balancers".into(), "changed".into()],
    };
    assert_eq!(seen.hosts[0], canary);
    let steps = |world: &World, host: &str| {
        preview(world).hosts.into_iter().find(|other| other.host == host).unwrap().steps.join(", ")
    };
    for (host, expected) in [
        ("node-1", ""),
        ("node-2", "changed"),
        ("node-3", "changed"),
        ("node-5", "leaves load balancers, drained, changed"),
        ("node-6", "leaves load balancers, drained, changed, rebooted"),
        ("node-25", "leaves load balancers, drained, changed, rebooted if it asks for it"),
    ] {
        assert_eq!(steps(&world, host), expected, "{host}");
    }
    // Where each machine is taken out of service, a no-op is, too.
    spec["disruption"]["when"] = json!("Always");
    assert_eq!(steps(&varied(spec.clone()), "node-1"), "leaves load balancers, drained");
    spec["disruption"]["reboot"] = json!("Never");
    assert_eq!(steps(&varied(spec), "node-6"), "leaves load balancers, drained, changed");
    assert_eq!(steps(&varied(json!({})), "node-6"), "changed");
}

#[test]
fn a_paused_rollout_shows_what_it_would_do_and_that_stays_while_it_is_done() {
    for pause in ["spec", "pause", "hold"] {
        let mut world = varied(json!({"paused": pause == "spec"}));
        if pause != "spec" {
            world.annotate(&format!("drover.dev/{pause}"), "look first");
        }
        world.settle(0);
        let seen = world.status().preview.unwrap();
        let sums = [seen.reboot, seen.drain, seen.restart, seen.reload, seen.none, seen.noop, seen.unknown];
        assert_eq!((sums, seen.first_hosts.len()), ([4, 4, 4, 4, 4, 4, 2], 20));
        let says =
            "; would reboot 4, drain 4, restart 4, reload 4, change unnoticed 4, no-op 4, change at unknown cost 2";
        assert!(message(&world).ends_with(says), "{pause}: {}", message(&world));
        // What becomes known while nothing moves is told, and nothing is written again and again.
        world.costs.insert("node-25".into(), ChangeCost::NoOp);
        world.settle(0);
        assert_eq!(world.status().preview.unwrap().unknown, 1);
        let writes = world.writes;
        world.now += HOUR;
        world.settle(0);
        assert_eq!(world.writes, writes);
        let seen = world.status().preview;
        world.rollouts[0].spec.paused = None;
        world.remove_annotation("drover.dev/pause");
        world.remove_annotation("drover.dev/hold");
        world.until(RolloutPhase::Complete);
        assert_eq!(world.status().preview, seen);
        // The next run has its own.
        world.config.status.as_mut().unwrap().revision = Some("base-2".into());
        world.settle(0);
        assert_eq!(world.status().preview.unwrap().revision, "base-2");
    }
}
