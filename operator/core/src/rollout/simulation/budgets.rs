//! Budgets over several Rollouts: stories, and races of all kinds.

use drover_crds::{DisruptionBudget, RolloutPhase, RunOutcome};
use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    super::{decide::decide, snapshot::Ledger, summarise_budget},
    world::{World, rollout},
};
use crate::metadata::name;

fn budget(world: &mut World, of: &str, spec: Value) {
    world.disruption_budgets.push(DisruptionBudget::new(of, serde_json::from_value(spec).unwrap()));
}

/// So many Rollouts, each over its share of the machines, which it would change all at once.
fn shares(rollouts: usize, hosts: usize) -> World {
    let spec = |share: usize| {
        json!({
            "hostSelector": {"matchLabels": {"share": share.to_string()}},
            "strategy": {"maxParallel": "100%", "maxUnavailable": "100%"},
        })
    };
    let mut world = World::new(hosts, spec(0));
    for share in 1..rollouts {
        let mut other = rollout(&spec(share));
        other.metadata.name = Some(format!("share-{share}"));
        other.metadata.uid = Some(format!("{share}r-share"));
        world.rollouts.push(other);
    }
    for (index, host) in world.hosts.iter_mut().enumerate() {
        host.metadata.labels = Some([("share".to_owned(), (index % rollouts).to_string())].into());
    }
    world
}

fn message(world: &World, index: usize) -> String {
    world.rollouts[index].status.clone().and_then(|status| status.message).unwrap_or_default()
}

fn blocked(world: &World, index: usize) -> Option<String> {
    world.rollouts[index].status.clone()?.display?.blocked
}

#[test]
fn two_rollouts_share_a_budget_and_the_one_that_waits_names_it() {
    let mut world = shares(2, 4);
    budget(&mut world, "web", json!({"maxUnavailable": 1}));
    world.settle(0);
    world.settle(1);
    assert_eq!(world.claimed().len(), 1);
    let says =
        "0 of 2 updated to base-1; waits: DisruptionBudget web: 1 of its machines out of service and 1 may be: node-1";
    assert_eq!(message(&world, 1), says);
    assert_eq!(blocked(&world, 1).as_deref(), Some("Budget"));
    for _ in 0..40 {
        world.agents();
        world.now += SignedDuration::from_secs(2);
        for index in 0..2 {
            world.settle(index);
            assert!(world.claimed().len() <= 1);
        }
    }
    for rollout in &world.rollouts {
        assert_eq!(rollout.status.as_ref().unwrap().phase, Some(RolloutPhase::Complete));
    }
}

#[test]
fn of_several_budgets_each_must_allow_it_and_machines_of_none_go_on() {
    let mut world = shares(2, 6);
    budget(&mut world, "all", json!({"maxParallel": 4}));
    budget(&mut world, "first", json!({"maxUnavailable": "34%", "hostSelector": {"matchLabels": {"share": "0"}}}));
    world.settle(0);
    assert_eq!(world.claimed().len(), 1, "a third of three");
    world.settle(1);
    assert_eq!(world.claimed().len(), 4);
    // What is out of service for another reason counts for the one limit, and not for the other.
    let mut world = shares(2, 6);
    budget(&mut world, "all", json!({"maxUnavailable": 3, "maxParallel": 3}));
    world.nodes.get_mut("node-6").unwrap().cordoned = true;
    world.settle(0);
    world.settle(1);
    let held: Vec<_> = world.claimed().into_iter().map(|host| name(&host.metadata)).collect();
    assert_eq!(held, ["node-1", "node-3", "node-6"], "the one that is out of service anyway is no further one");
}

#[test]
fn a_freeze_of_a_budget_holds_what_is_entered_and_lets_a_rollback_pass() {
    let frozen = json!({"windows": [{"kind": "Deny", "from": "1970-01-01T00:00:00Z", "to": "1970-02-01T00:00:00Z", "reason": "quiet"}]});
    let mut world = shares(1, 2);
    // Entered, and then the freeze comes.
    while world.rollouts[0].status.as_ref().is_none_or(|status| status.in_flight.is_empty()) {
        let mut snapshot = world.snapshot(0);
        let request = decide(&snapshot, world.now).request.unwrap();
        world.carry_out(0, request, &mut snapshot);
    }
    budget(&mut world, "all", frozen);
    world.settle(0);
    assert!(world.claimed().is_empty());
    assert_eq!(world.status().in_flight, []);
    let says = "0 of 2 updated to base-1; waits: DisruptionBudget all: frozen until 1970-02-01T00:00Z: quiet";
    assert_eq!(message(&world, 0), says);

    world.disruption_budgets.clear();
    world.until(RolloutPhase::Complete);
    world.config.status.as_mut().unwrap().revision = Some("base-2".into());
    world.until(RolloutPhase::Complete);
    budget(
        &mut world,
        "all",
        json!({"windows": [{"kind": "Deny", "from": "1970-01-01T00:00:00Z", "to": "1970-02-01T00:00:00Z"}]}),
    );
    world.annotate("drover.dev/undo", "2");
    world.until(RolloutPhase::RolledBack);
    let back = |host: &drover_crds::Host| host.status.as_ref().unwrap().runs[0].outcome == RunOutcome::RolledBack;
    assert!(world.hosts.iter().all(back));
}

#[test]
fn a_budget_that_can_not_be_understood_lets_nothing_begin() {
    let mut world = shares(1, 2);
    let windows =
        json!([{"kind": "Allow", "schedule": "0 0 * * *", "durationSeconds": 60, "timeZone": "Mars/Olympus"}]);
    budget(&mut world, "all", json!({"windows": windows}));
    world.settle(0);
    assert!(world.claimed().is_empty());
    assert!(message(&world, 0).contains("windows[0] can not be understood: Mars/Olympus"), "{}", message(&world, 0));
    let status = summarise_budget(&world.disruption_budgets[0], world.hosts.iter(), &[], &|_| None, world.now);
    assert!(drover_crds::condition::is_true(&status.conditions, "Stalled"));
}

#[test]
fn a_budget_says_how_much_of_it_is_used() {
    let mut world = shares(2, 5);
    budget(&mut world, "all", json!({"maxUnavailable": "60%", "maxParallel": 2}));
    world.nodes.get_mut("node-5").unwrap().ready = false;
    world.settle(0);
    let ledgers: Vec<Ledger> = world.rollouts.iter().map(Ledger::of).collect();
    let node = |host: &drover_crds::Host| world.nodes.get(&host.spec.node_ref.name);
    let status = summarise_budget(&world.disruption_budgets[0], world.hosts.iter(), &ledgers, &node, world.now);
    let counts = (status.hosts, status.held, status.unavailable, status.max_unavailable, status.max_parallel);
    assert_eq!(counts, (Some(5), Some(2), Some(3), Some(3), Some(2)));
    assert_eq!(status.message.as_deref(), Some("2 of 5 held, 3 out of service"));
    // The same is not said twice.
    let told = DisruptionBudget { status: Some(status.clone()), ..world.disruption_budgets[0].clone() };
    let later = Timestamp::from_second(2_000_000).unwrap();
    let again = summarise_budget(&told, world.hosts.iter(), &ledgers, &node, later);
    assert_eq!(again, status);
}

/// Rollouts that look and act at any time, each on what it saw last: together they never hold more than the budget allows,
/// and all of them end.
#[test]
fn rollouts_that_race_never_exceed_a_budget_together() {
    for seed in 0..60 {
        let mut random = Rng::with_seed(seed);
        let (rollouts, may) = (random.usize(2..4), random.usize(1..4));
        let mut world = shares(rollouts, 7);
        let limit = if random.bool() { "maxUnavailable" } else { "maxParallel" };
        budget(&mut world, "all", json!({limit: may}));
        let mut seen: Vec<_> = (0..rollouts).map(|index| world.snapshot(index)).collect();
        // The clocks of their decisions differ, too: who entered first need not have the older entry.
        let mut clock: Vec<_> = vec![world.now; rollouts];
        for _ in 0..4_000 {
            let index = random.usize(0..rollouts);
            match random.u32(0..10) {
                0..4 => (seen[index], clock[index]) = (world.snapshot(index), world.now),
                4..8 => {
                    let mut snapshot = seen[index].clone();
                    if let Some(request) = decide(&snapshot, clock[index]).request {
                        world.carry_out(index, request, &mut snapshot);
                    }
                    // One actor for each Rollout: what it did it knows.
                    (seen[index], clock[index]) = (world.snapshot(index), world.now);
                    if random.bool() {
                        clock[index] = world.now.checked_sub(SignedDuration::from_secs(random.i64(0..3))).unwrap();
                    }
                }
                8 => world.agents(),
                _ => world.now += SignedDuration::from_secs(random.i64(1..5)),
            }
            let held: Vec<_> = world.claimed().into_iter().map(|host| name(&host.metadata).to_owned()).collect();
            assert!(held.len() <= may, "seed {seed}: {held:?} are held, and {may} may be");
            let is_complete = |phase| phase == Some(RolloutPhase::Complete);
            if world
                .rollouts
                .iter()
                .all(|rollout| rollout.status.as_ref().is_some_and(|status| is_complete(status.phase)))
            {
                break;
            }
        }
        for rollout in &world.rollouts {
            let status = rollout.status.as_ref().unwrap();
            assert_eq!(status.phase, Some(RolloutPhase::Complete), "seed {seed}: {:?}", status.message);
        }
    }
}
