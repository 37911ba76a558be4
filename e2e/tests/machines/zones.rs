//! Which masters serve a machine: those of its pool that are nearest, and others while there are none.

use drover_crds::{Host, MasterPool, keys::ZONE_LABEL};
use drover_e2e::{
    Fleet, NODES,
    agents::{answered_during, ping},
    cluster::delete,
    story,
    wait::{LATER, eventually, until, until_gone},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Service},
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::file;

const POOL: &str = "masters";
const ALONE: &str = "drover-masters";

/// The zone that a node is in.
async fn zone(fleet: &Fleet, node: &str) -> String {
    let node: Node = fleet.nodes().get(node).await.unwrap();
    node.labels()[ZONE_LABEL].clone()
}

/// The address of a Service with its port.
async fn address(fleet: &Fleet, service: &str) -> String {
    let service: Service = fleet.api::<Service>().get(service).await.unwrap();
    format!("{}:8443", service.spec.unwrap().cluster_ip.unwrap())
}

/// Waits until the agent of a node would ask the masters at this address, and says what it then was told.
async fn asks(fleet: &Fleet, node: &str, address: &str) -> String {
    eventually(&format!("{node} asks {address}"), LATER, async || {
        let told = ping(fleet, node, 1).await?;
        if told.contains(&format!("{address} (")) { Ok(told) } else { Err(told) }
    })
    .await
}

async fn patch(fleet: &Fleet, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    fleet.api::<MasterPool>().patch(POOL, &PatchParams::default(), &patch).await.expect("the MasterPool is changed");
}

/// Each machine has a catalog.
async fn configured(fleet: &Fleet) {
    let revision = fleet.configure("near", json!([file("near", "once")])).await;
    fleet.roll("near", json!({})).await;
    fleet.completes("near", &revision).await;
}

#[tokio::test]
async fn machines_ask_the_masters_of_their_zone_and_others_when_there_are_none() {
    story(async |fleet| {
        configured(fleet).await;
        let [near, far, elsewhere] = NODES;
        let (here, there) = (zone(fleet, near).await, zone(fleet, far).await);
        answered_during(fleet, &[near, elsewhere], async {
            patch(fleet, json!({"zones": [{"name": here}, {"name": there}]})).await;
            let pools = fleet.api::<MasterPool>();
            until(&pools, POOL, "with a master in each zone", LATER, |pool| {
                let zones = &pool.status.as_ref()?.zones;
                let known = zones.iter().map(|zone| (zone.masters.as_str(), zone.hosts)).collect::<Vec<_>>();
                (known == [("1/1", 1), ("1/1", 1)]).then_some(())
            })
            .await;
            // The masters that were anywhere go when those of the zones are there.
            until_gone(&fleet.api::<Deployment>(), ALONE, LATER).await;
            let masters: Api<Pod> = fleet.api();
            let of_zone = |zone: &str| ListParams::default().labels(&format!("drover.dev/master-zone={zone}"));
            let own = masters.list(&of_zone(&here)).await.unwrap().items;
            assert_eq!(
                own.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect::<Vec<_>>(),
                [near]
            );

            let of_here = address(fleet, &format!("drover-masters-zone-{here}")).await;
            let told = asks(fleet, near, &of_here).await;
            assert!(told.contains(&format!("(pool=masters, zone={here})")), "{told}");
            // There are no masters in its zone.
            let all = address(fleet, ALONE).await;
            asks(fleet, elsewhere, &all).await;

            // The zone loses its master, and can have no other.
            fleet.cluster.kubectl(&["cordon", near]).await;
            masters.delete(&own[0].name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
            asks(fleet, near, &all).await;
            fleet.cluster.kubectl(&["uncordon", near]).await;
            asks(fleet, near, &of_here).await;

            patch(fleet, json!({"zones": null})).await;
            for zone in [&here, &there] {
                until_gone(&fleet.api::<Deployment>(), &format!("drover-masters-zone-{zone}"), LATER).await;
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_pool_of_its_own_serves_the_machines_that_it_selects() {
    const OWN: &str = "e2e-own";
    story(async |fleet| {
        configured(fleet).await;
        let [node, other, _] = NODES;
        let pools = fleet.api::<MasterPool>();
        let hosts = fleet.api::<Host>();
        let served_by = async |pool: &str| {
            let served = hosts.list(&ListParams::default().fields(&format!("status.masterPool={pool}"))).await.unwrap();
            served.items.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>()
        };
        assert_eq!(served_by(POOL).await.len(), NODES.len());
        answered_during(fleet, &[node], async {
            let pool = json!({
                "apiVersion": "drover.dev/v1alpha1", "kind": "MasterPool", "metadata": {"name": OWN},
                "spec": {"replicas": 1, "hostSelector": {"matchLabels": {ZONE_LABEL: zone(fleet, node).await}}},
            });
            fleet.cluster.apply(&pools, &pool).await;
            fleet
                .host_until(node, "served by the pool that selects it", |host| {
                    host.status.as_ref().is_some_and(|status| status.master_pool.as_deref() == Some(OWN))
                })
                .await;
            assert_eq!(served_by(OWN).await, [node]);
            until(&pools, OWN, "of one machine", LATER, |pool| {
                let status = pool.status.as_ref()?;
                (status.masters.as_deref() == Some("1/1") && status.hosts == Some(1)).then_some(())
            })
            .await;
            let told = asks(fleet, node, &address(fleet, "drover-e2e-own").await).await;
            assert!(told.contains("(pool=e2e-own, "), "{told}");
            let all = address(fleet, ALONE).await;
            asks(fleet, other, &all).await;

            // Its machines go back to the others, who know them.
            delete(&pools, OWN).await;
            fleet
                .host_until(node, "served by the other pool again", |host| {
                    host.status.as_ref().is_some_and(|status| status.master_pool.as_deref() == Some(POOL))
                })
                .await;
            asks(fleet, node, &all).await;
        })
        .await;
    })
    .await;
}
