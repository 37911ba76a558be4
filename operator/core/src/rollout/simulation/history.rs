//! Random histories.

use std::collections::BTreeMap;

use drover_crds::{Assignment, ChangeCost, RolloutPhase, RunOutcome};
use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::{
    super::decide::decide,
    world::{Luck, World, drained},
};
use crate::metadata::name;

#[derive(Clone, Debug)]
enum Event {
    Reconcile,
    /// A decision on a snapshot that is as old as the one before.
    Stale,
    Agents,
    Time(i64),
    Cordon(usize),
    Ready(usize),
    Pause(bool),
    Revision(bool),
    Luck(usize, u8),
    Replace(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => Just(Event::Reconcile),
        2 => Just(Event::Stale),
        3 => Just(Event::Agents),
        3 => (1_i64..90).prop_map(Event::Time),
        1 => (0_usize..5).prop_map(Event::Cordon),
        1 => (0_usize..5).prop_map(Event::Ready),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => any::<bool>().prop_map(Event::Revision),
        1 => (0_usize..5, 0_u8..6).prop_map(|(host, luck)| Event::Luck(host, luck)),
        1 => (0_usize..5).prop_map(Event::Replace),
    ];
    proptest::collection::vec(event, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no limit is exceeded, no mark is left, and in quiet times it ends.
    #[test]
    fn the_invariants_hold_in_every_history(
        hosts in 1_usize..5, parallel in 1_u32..4, unavailable in 1_u32..4, percent in any::<bool>(),
        costs in proptest::collection::vec(proptest::option::of(0_usize..6), 4), events in events()
    ) {
        let mut spec = drained();
        spec["strategy"]["maxParallel"] = json!(parallel);
        spec["strategy"]["maxUnavailable"] = if percent { json!(format!("{}%", unavailable * 25)) } else { json!(unavailable) };
        spec["strategy"]["failure"] = json!({"maxFailed": 1});
        let mut world = World::new(hosts, spec);
        for (index, cost) in costs.into_iter().enumerate() {
            use ChangeCost::{Drain, NoOp, None, Reboot, Reload, Restart};
            let cost = cost.map(|cost| [NoOp, None, Reload, Restart, Drain, Reboot][cost]);
            world.costs.extend(cost.map(|cost| (format!("node-{}", index + 1), cost)));
        }
        let mut foreign: BTreeMap<String, bool> = BTreeMap::new();
        let mut older = world.snapshot(0);
        let mut fresh_ids = 100;
        for event in events {
            let machine = |index: usize| format!("node-{}", index % hosts + 1);
            match event {
                Event::Reconcile => {
                    let mut snapshot = world.snapshot(0);
                    older = snapshot.clone();
                    if let Some(request) = decide(&snapshot, world.now).request {
                        world.carry_out(0, request, &mut snapshot);
                    }
                }
                Event::Stale => {
                    world.strict = false;
                    if let Some(request) = decide(&older, world.now).request {
                        world.carry_out(0, request, &mut older.clone());
                    }
                }
                Event::Agents => world.agents(),
                Event::Time(seconds) => world.now += SignedDuration::from_secs(seconds),
                Event::Cordon(index) => {
                    let version = world.bump();
                    let node = world.nodes.get_mut(&machine(index)).unwrap();
                    // An administrator who cordons a node that is cordoned already changes nothing that could be seen.
                    if node.cordoned_by.is_none() {
                        node.cordoned = !node.cordoned;
                        node.resource_version = version;
                        foreign.insert(machine(index), node.cordoned);
                    }
                }
                Event::Ready(index) => {
                    let node = world.nodes.get_mut(&machine(index)).unwrap();
                    node.ready = !node.ready;
                }
                Event::Pause(paused) => {
                    let version = world.bump();
                    world.rollouts[0].metadata.resource_version = Some(version);
                    world.rollouts[0].spec.paused = Some(paused);
                }
                Event::Revision(second) => {
                    let revision = if second { "base-2" } else { "base-1" };
                    world.config.status.as_mut().unwrap().revision = Some(revision.into());
                }
                Event::Luck(index, luck) => {
                    let luck = [
                        Luck::Works, Luck::AgentFails, Luck::AgentSilent, Luck::GateFails, Luck::GateSilent, Luck::NeverReboots,
                    ][usize::from(luck)];
                    world.needs_reboot = luck == Luck::NeverReboots || (world.needs_reboot && index > 0);
                    world.luck.insert(machine(index), luck);
                }
                Event::Replace(index) => {
                    fresh_ids += 1;
                    let machine = machine(index);
                    world.hosts.retain(|host| name(&host.metadata) != machine);
                    world.nodes.remove(&machine);
                    foreign.remove(&machine);
                    world.join(&machine, &format!("{fresh_ids}u-x"));
                }
            }
        }
        // Quiet times: everything works, nothing is out of service, nobody pauses.
        world.luck.clear();
        world.rollouts[0].spec.paused = None;
        world.rollouts[0].metadata.generation = Some(2);
        for (machine, node) in &mut world.nodes {
            node.ready = true;
            if node.cordoned_by.is_none() && foreign.get(machine).copied().unwrap_or(false) {
                node.cordoned = false;
            }
        }
        for _ in 0..400 {
            world.settle(0);
            world.agents();
            world.now += SignedDuration::from_secs(5);
            if world.status().phase == Some(RolloutPhase::Failed) {
                let generation = world.rollouts[0].metadata.generation.unwrap();
                world.rollouts[0].metadata.generation = Some(generation + 1);
            }
        }
        let target = world.config.status.as_ref().unwrap().revision.clone().unwrap();
        prop_assert_eq!(world.status().phase, Some(RolloutPhase::Complete), "{:#?}", world.status());
        for host in &world.hosts {
            let status = host.status.as_ref().unwrap();
            prop_assert_eq!(&status.assigned, &vec![Assignment { node_config: "base".into(), revision: target.clone() }]);
            prop_assert!(status.claim.is_none());
            prop_assert!(status.runs.iter().all(|record| record.outcome == RunOutcome::Succeeded || record.run < world.status().run.unwrap().number));
        }
        for (machine, node) in &world.nodes {
            prop_assert!(!node.cordoned && node.load_balancer_label.is_none(), "{} was not given back: {:?}", machine, node);
        }
    }
}
