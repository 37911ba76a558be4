//! The masters come and go, or are taken away, and no agent loses a request.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use drover_crds::MasterPool;
use drover_e2e::{
    Fleet, NODES,
    agents::ping,
    calls::Calls,
    fleet::{Part, is_serving},
    machine::Harm,
    story,
    wait::{LATER, eventually},
};
use futures::future::{join, join_all};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::time::interval;

use crate::file;

/// How many calls there are in a second.
const RATE: u32 = 200;
/// A pool's size, and what it is scaled to and back from.
const FEW: usize = 2;
const MANY: usize = 4;

/// How often something befalls a master, and how long it is stopped or cut off.
const HARM: Duration = Duration::from_secs(2);
/// How often each agent asks in each cycle.
const ASKED: usize = 100;

/// How often the masters come and go: a sample, or as often as `make test-masters` says.
fn cycles() -> usize {
    std::env::var("DROVER_CYCLES").map_or(2, |cycles| cycles.parse().expect("DROVER_CYCLES is a number"))
}

/// Waits until so many masters of the pool's present template serve, and no other is left.
async fn settled(fleet: &Fleet, masters: usize) {
    let deployments = fleet.api::<Deployment>();
    eventually(&format!("{masters} masters serve, and no other is left"), LATER, async || {
        let pool = deployments.get("drover-masters").await.map_err(|error| error.to_string())?;
        let status = pool.status.clone().unwrap_or_default();
        let counts = [pool.spec.and_then(|spec| spec.replicas), status.updated_replicas, status.available_replicas];
        let wanted = i32::try_from(masters).ok();
        let pods = fleet.pods_of(Part::Master).await;
        let states: Vec<(String, bool)> = pods.iter().map(|pod| (pod.name_any(), is_serving(pod))).collect();
        let known =
            status.observed_generation == pool.metadata.generation && counts.iter().all(|count| *count == wanted);
        let whole = states.len() == masters && states.iter().all(|(_, serves)| *serves);
        if known && whole { Ok(()) } else { Err(format!("{counts:?}, {states:?}")) }
    })
    .await;
}

/// Replaces each master by another one, as `kubectl rollout restart` does.
async fn restart(fleet: &Fleet, mark: usize) {
    let template = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": mark.to_string()}}});
    let patch = Patch::Merge(json!({"spec": {"template": template}}));
    fleet.api::<Deployment>().patch("drover-masters", &PatchParams::default(), &patch).await.unwrap();
    settled(fleet, FEW).await;
}

async fn scale(fleet: &Fleet, masters: usize) {
    let patch = Patch::Merge(json!({"spec": {"replicas": masters}}));
    fleet.api::<MasterPool>().patch("masters", &PatchParams::default(), &patch).await.unwrap();
    settled(fleet, masters).await;
}

#[tokio::test]
async fn no_call_is_lost_while_masters_are_replaced_and_their_number_changes() {
    story(async |fleet| {
        let revision = fleet.configure("churn", json!([file("churn", "once")])).await;
        fleet.roll("churn", json!({})).await;
        fleet.completes("churn", &revision).await;
        let calls = Calls::begin(fleet, NODES[0], RATE).await;
        let cycles = cycles();
        for cycle in 1..=cycles {
            restart(fleet, cycle).await;
            calls.say(&format!("rolling update {cycle} of {cycles} is done"));
        }
        for cycle in 1..=cycles {
            scale(fleet, MANY).await;
            scale(fleet, FEW).await;
            calls.say(&format!("scale cycle {cycle} of {cycles} is done"));
        }
        let tally = calls.end().await;

        assert_eq!(tally.lost, [""; 0], "{} of them", tally.lost.len());
        eprintln!("{} calls, none lost, the slowest {:?}: {:?}", tally.all(), tally.slowest, tally.answered);
        let due = tally.lasted.as_secs_f64() * f64::from(RATE);
        #[allow(clippy::cast_precision_loss, reason = "a count of calls")]
        let kept = tally.all() as f64 / due;
        assert!(kept > 0.95, "{} calls of {due:.0} that were due", tally.all());
    })
    .await;
}

/// One master after the other is killed, stopped or cut off, until this is over. Returns how many were.
async fn harm_masters(fleet: &Fleet, over: &AtomicBool) -> usize {
    let kinds = [Harm::Kill, Harm::Stop(HARM), Harm::Cut(HARM)];
    let mut turns = interval(HARM);
    let mut harmed = 0;
    while !over.load(Ordering::Relaxed) {
        turns.tick().await;
        let mut masters = fleet.pods_of(Part::Master).await;
        masters.retain(is_serving);
        let Some(master) = masters.get(harmed % masters.len().max(1)) else { continue };
        let harm = kinds[harmed % kinds.len()];
        fleet.harm(master, harm).await;
        if harm == Harm::Kill {
            // Another one comes at once; the kubelet would let one that is killed again and again wait longer and longer.
            let at_once = DeleteParams::default().grace_period(0);
            fleet.api::<Pod>().delete(&master.name_any(), &at_once).await.expect("the pod is deleted");
        }
        harmed += 1;
    }
    harmed
}

#[tokio::test]
async fn each_agent_is_answered_while_masters_are_killed_stopped_and_cut_off() {
    story(async |fleet| {
        let revision = fleet.configure("churn", json!([file("churn", "once")])).await;
        fleet.roll("churn", json!({})).await;
        fleet.completes("churn", &revision).await;
        scale(fleet, MANY).await;

        let times = cycles() * ASKED;
        let over = AtomicBool::new(false);
        let asking = async {
            let told = join_all(NODES.map(|node| ping(fleet, node, times))).await;
            over.store(true, Ordering::Relaxed);
            told
        };
        let (told, harmed) = join(asking, harm_masters(fleet, &over)).await;

        eprintln!("{harmed} masters were harmed; {told:#?}");
        let all = format!("answered {times} of {times}");
        assert!(told.iter().all(|told| told.as_ref().is_ok_and(|told| told.contains(&all))), "{told:#?}");
        assert!(harmed >= 3, "{harmed} masters were harmed");
    })
    .await;
}
