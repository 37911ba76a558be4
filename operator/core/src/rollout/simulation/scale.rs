//! Fleets of tens of thousands: what a decision says must stay small, and taking it must not take long.

use std::sync::Arc;

use drover_crds::{ClaimStep, Host, HostSpec, HostStatus, NodeRef, RolloutStatus, RunOutcome, RunRecord};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::{
    super::{
        decide::decide,
        request::Request,
        snapshot::{NodeView, Snapshot},
    },
    world::{World, rollout},
};

/// The most bytes of JSON that the status of a Rollout may have.
const MOST: usize = 128 << 10;

/// A fleet with names as long as they may be, of which nobody is under way.
fn fleet(hosts: usize, name: impl Fn(usize) -> String, strategy: &serde_json::Value) -> Snapshot {
    let mut snapshot = World::new(0, json!({})).snapshot(0);
    snapshot.rollout = rollout(&json!({"strategy": strategy}));
    snapshot.rollout.metadata.finalizers = Some(vec!["drover.dev/rollout".into()]);
    for index in 0..hosts {
        let (name, uid) = (name(index), format!("7d9a4a3e-6b3c-4b63-9f1d-{index:012}"));
        let node_ref = NodeRef { name: name.clone(), uid: uid.clone() };
        let mut host = Host::new(&name, HostSpec { node_ref });
        host.metadata.uid = Some(uid.clone());
        host.status = Some(HostStatus::default());
        snapshot.hosts.put(Arc::new(host));
        snapshot.nodes.put(name, NodeView { uid, ready: true, ..NodeView::default() });
    }
    snapshot
}

fn change(snapshot: &mut Snapshot, host: &str, change: impl FnOnce(&mut HostStatus)) {
    let mut host = snapshot.hosts.get(host).unwrap().clone();
    change(host.status.as_mut().unwrap());
    snapshot.hosts.put(Arc::new(host));
}

fn bytes(status: &RolloutStatus) -> usize {
    serde_json::to_vec(status).unwrap().len()
}

/// Takes decisions and carries them out until there is nothing to do but wait. Returns the largest status, and the most
/// machines under way.
fn settle(snapshot: &mut Snapshot, now: Timestamp) -> (usize, usize) {
    let mut most = (0, 0);
    while let Some(request) = decide(snapshot, now).request {
        match request {
            Request::WriteRollout(status) => {
                most = (most.0.max(bytes(&status)), most.1.max(status.in_flight.len()));
                snapshot.rollout.status = Some(*status);
            }
            Request::WriteHost { host, status } => change(snapshot, &host, |old| *old = *status),
            other => panic!("{other:?}"),
        }
    }
    most
}

fn ledger(snapshot: &Snapshot) -> Vec<String> {
    let entries = snapshot.rollout.status.iter().flat_map(|status| &status.in_flight);
    entries.map(|entry| entry.host.clone()).collect()
}

#[test]
fn a_status_stays_small_whatever_there_is_to_say() {
    let strategy = json!({
        "maxParallel": "100%", "maxUnavailable": "100%", "failure": {"maxFailed": "100%"},
        "batches": [{"name": "x".repeat(63), "size": 1}, {"name": "y".repeat(63), "size": 2000}, {"name": "z".repeat(63), "size": 900}],
    });
    let mut snapshot = fleet(50_000, |index| format!("{index:0>253}"), &strategy);
    let mut now = Timestamp::from_second(1_000_000).unwrap();
    let (mut largest, mut most) = (0, 0);
    for round in 0..4 {
        let (bytes, in_flight) = settle(&mut snapshot, now);
        (largest, most) = (largest.max(bytes), most.max(in_flight));
        now += SignedDuration::from_secs(3);
        // All of them have a lot to say, and then fail with a lot to say; the first one succeeds, or no further one is begun.
        for host in ledger(&snapshot) {
            change(&mut snapshot, &host, |status| {
                status.claim.as_mut().unwrap().waiting_for = Some("w".repeat(5_000));
            });
        }
        let (bytes, in_flight) = settle(&mut snapshot, now);
        (largest, most) = (largest.max(bytes), most.max(in_flight));
        for (index, host) in ledger(&snapshot).into_iter().enumerate() {
            let failed = index > 0 || round > 1;
            change(&mut snapshot, &host, |status| {
                let claim = status.claim.take().unwrap();
                status.runs = vec![RunRecord {
                    rollout: claim.rollout,
                    rollout_uid: claim.rollout_uid,
                    run: claim.run,
                    batch: claim.batch,
                    attempt: claim.attempt,
                    revision: claim.target.revision,
                    previous: None,
                    outcome: if failed { RunOutcome::Failed } else { RunOutcome::Succeeded },
                    message: failed.then(|| "f".repeat(5_000)),
                    started_at: None,
                    finished_at: Time(if failed { now - SignedDuration::from_secs(1) } else { now }),
                }];
            });
        }
    }
    assert!(largest <= MOST, "{largest} bytes");
    // With such names less than 500 machines fit; the bound is used, not just kept.
    assert!(largest > MOST * 8 / 10 && most > 100, "{largest} bytes, {most} machines under way");
    assert!(!snapshot.rollout.status.unwrap().failures.is_empty());
}

#[test]
fn five_hundred_machines_fit_where_names_are_as_long_as_usual() {
    let strategy = json!({"maxParallel": 500, "maxUnavailable": 500});
    let mut snapshot = fleet(5_000, |index| format!("node-{index}"), &strategy);
    let (bytes, most) = settle(&mut snapshot, Timestamp::from_second(1_000_000).unwrap());
    assert_eq!(most, 500);
    assert!(bytes <= MOST, "{bytes} bytes");
}

/// Machines are admitted in one write, leave the ledger in one write together with the admission of others, and cost two writes
/// each: the hold with the assignment, and the end.
#[test]
fn what_can_be_one_write_is_one() {
    let mut snapshot = fleet(300, |index| format!("node-{index}"), &json!({"maxParallel": 100, "maxUnavailable": 100}));
    let mut now = Timestamp::from_second(1_000_000).unwrap();
    let (mut of_hosts, mut of_rollout) = (0, 0);
    for _ in 0..5 {
        snapshot.reported = Some(now);
        while let Some(request) = decide(&snapshot, now).request {
            match request {
                Request::WriteRollout(status) => {
                    of_rollout += 1;
                    snapshot.rollout.status = Some(*status);
                }
                Request::WriteHost { host, status } => {
                    of_hosts += 1;
                    change(&mut snapshot, &host, |old| *old = *status);
                }
                other => panic!("{other:?}"),
            }
        }
        for host in ledger(&snapshot) {
            change(&mut snapshot, &host, |status| {
                assert_eq!(status.claim.as_ref().unwrap().step, ClaimStep::Apply);
                status.active = Some(drover_crds::AppliedReport {
                    generation: status.assigned_generation,
                    revisions: status.assigned.clone(),
                    converged: true,
                    ..Default::default()
                });
            });
        }
        now += SignedDuration::from_secs(1);
    }
    assert_eq!(snapshot.rollout.status.unwrap().counts.unwrap().updated, 300);
    assert_eq!(of_hosts, 600);
    // The run, its stages, three admissions, and the end.
    assert!(of_rollout <= 10, "{of_rollout}");
}

#[test]
fn progress_alone_waits_and_news_does_not() {
    let mut snapshot = fleet(3, |index| format!("node-{index}"), &json!({"maxParallel": 2, "maxUnavailable": 2}));
    let now = Timestamp::from_second(1_000_000).unwrap();
    settle(&mut snapshot, now);
    snapshot.reported = Some(now);
    change(&mut snapshot, "node-0", |status| status.claim.as_mut().unwrap().waiting_for = Some("something".into()));
    let decision = decide(&snapshot, now + SignedDuration::from_secs(1));
    assert_eq!((decision.request, decision.look_again), (None, std::time::Duration::from_secs(1)));
    assert!(decide(&snapshot, now + SignedDuration::from_secs(2)).request.is_some());
    snapshot.rollout.spec.paused = Some(true);
    snapshot.rollout.metadata.generation = Some(2);
    assert!(decide(&snapshot, now + SignedDuration::from_secs(1)).request.is_some());
}

/// Where machines report all the time, there is always something to do first; people are told how far it is nevertheless.
#[test]
fn progress_is_told_although_machines_never_rest() {
    let mut snapshot = fleet(2, |index| format!("node-{index}"), &json!({"maxParallel": 2, "maxUnavailable": 2}));
    let began = Timestamp::from_second(1_000_000).unwrap();
    settle(&mut snapshot, began);
    for host in ledger(&snapshot) {
        change(&mut snapshot, &host, |status| {
            status.active = Some(drover_crds::AppliedReport {
                generation: status.assigned_generation,
                revisions: status.assigned.clone(),
                converged: true,
                ..Default::default()
            });
        });
    }
    snapshot.reported = Some(began);
    let at = |seconds| decide(&snapshot, began + SignedDuration::from_secs(seconds)).request;
    assert!(matches!(at(9), Some(Request::WriteHost { .. })));
    let Some(Request::WriteHost { host, status }) = at(9) else { panic!("the first machine is done") };
    change(&mut snapshot, &host, |old| *old = *status);
    let at = |seconds| decide(&snapshot, began + SignedDuration::from_secs(seconds)).request;
    assert!(matches!(at(9), Some(Request::WriteHost { .. })));
    let Some(Request::WriteRollout(told)) = at(10) else { panic!("it is time to tell") };
    assert_eq!(told.counts.as_ref().unwrap().updated, 1);
    // What is done has left the ledger with it, and was not told twice.
    assert_eq!(told.in_flight.len(), 1);
    snapshot.rollout.status = Some(*told);
    assert!(matches!(
        decide(&snapshot, began + SignedDuration::from_secs(30)).request,
        Some(Request::WriteHost { .. })
    ));
}
