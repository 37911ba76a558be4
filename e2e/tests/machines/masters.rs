//! The masters: as many as are needed, and when the machines come to them.

use drover_crds::{MasterPool, MasterPoolStatus, condition};
use drover_e2e::{
    Fleet, NODES,
    fleet::{Part, is_serving},
    story,
    wait::{LATER, until},
};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::file;

const POOL: &str = "masters";

/// Changes the spec of the pool, and waits until its status is like this.
pub(crate) async fn change(
    fleet: &Fleet,
    spec: Value,
    what: &str,
    like: impl Fn(&MasterPoolStatus) -> bool,
) -> MasterPoolStatus {
    let pools = fleet.api::<MasterPool>();
    let patch = Patch::Merge(json!({"spec": spec}));
    let changed = pools.patch(POOL, &PatchParams::default(), &patch).await.expect("the MasterPool is changed");
    let generation = changed.metadata.generation;
    until(&pools, POOL, what, LATER, |pool| {
        let current = pool.status.clone().filter(|status| status.observed_generation == generation);
        current.filter(|status| like(status))
    })
    .await
}

#[tokio::test]
async fn a_pool_has_as_many_masters_as_it_needs_and_says_why() {
    story(async |fleet| {
        let revision = fleet.configure("slots", json!([file("slots", "once")])).await;
        fleet.roll("slots", json!({})).await;
        fleet.completes("slots", &revision).await;

        // At each hour for an hour: always.
        let always = json!({"schedule": "0 * * * *", "durationSeconds": 3600, "min": 3});
        let spec = json!({"replicas": null, "autoscaling": {"min": 1, "max": 3, "schedule": [always]}});
        let status = change(fleet, spec, "at three measured masters", |status| {
            let measured = status.scale.as_ref().is_some_and(|scale| scale.requests_per_second.is_some());
            measured && status.masters.as_deref() == Some("3/3")
        });
        let status = status.await;
        let scale = status.scale.unwrap();
        assert_eq!(scale.replicas, 3);
        assert!(scale.message.contains(", +1 for N+1; at least 3 by schedule 0 * * * *"), "{}", scale.message);
        assert_eq!(condition::find(&status.conditions, "ScalingLimited").unwrap().status, "False");

        // Each machine has its slot, and the masters have room for all of them.
        let plan = status.plan.unwrap();
        assert_eq!(usize::try_from(plan.hosts).unwrap(), NODES.len());
        assert!(plan.fits && plan.periods.len() == 1, "{plan:?}");
        assert_eq!(condition::find(&status.conditions, "Overcommitted").unwrap().status, "False");

        let spec = json!({"autoscaling": {"min": 2, "max": 2, "redundancy": "N+2", "schedule": null}});
        let limited = change(fleet, spec, "at the two masters that may be", |status| {
            condition::is_true(&status.conditions, "ScalingLimited") && status.masters.as_deref() == Some("2/2")
        });
        let message = limited.await.scale.unwrap().message;
        assert!(message.ends_with("3 are wanted and max is 2"), "{message}");

        let fixed = change(fleet, json!({"autoscaling": null, "replicas": 2}), "of a fixed size", |status| {
            status.scale.is_none() && status.masters.as_deref() == Some("2/2")
        });
        assert!(condition::find(&fixed.await.conditions, "ScalingLimited").is_none());
        let masters = fleet.pods_of(Part::Master).await;
        assert!(masters.iter().filter(|pod| is_serving(pod)).count() >= 2);
    })
    .await;
}
