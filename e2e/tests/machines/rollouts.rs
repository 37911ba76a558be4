//! How a Rollout starts, waits, stops, and gives back what it took.

use drover_crds::{ClaimStep, Host, HostStatus, Rollout, RolloutPhase, RolloutStatus, keys::RELEASED_BY_ANNOTATION};
use drover_e2e::{
    Fleet, NODES,
    cluster::delete,
    fleet::{is_cordoned, is_excluded},
    hold,
    record::Record,
    story,
    wait::{LATER, SOON, eventually, until_gone},
    web::{Web, disruption},
};
use k8s_openapi::api::events::v1::Event;
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{everywhere, file, files, only};

fn is_at(status: &RolloutStatus, host: &str, step: ClaimStep) -> bool {
    status.in_flight.iter().any(|entry| entry.host == host && entry.step == step)
}

async fn host(fleet: &Fleet, name: &str) -> HostStatus {
    fleet.api::<Host>().get(name).await.unwrap().status.unwrap()
}

/// The revisions that are assigned to each Host, in their order.
async fn assigned(fleet: &Fleet) -> Vec<Vec<String>> {
    let mut all = vec![];
    for node in NODES {
        all.push(host(fleet, node).await.assigned.into_iter().map(|assignment| assignment.revision).collect());
    }
    all
}

#[tokio::test]
async fn nothing_moves_until_a_rollout_moves_it() {
    story(async |fleet| {
        let first = fleet.configure("base", json!([file("motd", "first")])).await;
        // Another one goes all the way, so Drover had every opportunity to move the first.
        let other = fleet.configure("other", json!([file("other", "other")])).await;
        fleet.roll("other", json!({})).await;
        fleet.completes("other", &other).await;
        assert_eq!(assigned(fleet).await, vec![vec![other.clone()]; 3]);
        assert_eq!(files(fleet, "motd").await, [None, None, None]);

        fleet.roll("base", json!({})).await;
        let status = fleet.completes("base", &first).await;
        assert_eq!(status.run.unwrap().number, 1);
        assert_eq!(files(fleet, "motd").await, everywhere("first"));

        // A new revision is a new run of the same Rollout, and it too waits while the Rollout is paused.
        fleet.edit_rollout("base", json!({"paused": true})).await;
        let second = fleet.configure("base", json!([file("motd", "second")])).await;
        let run = |status: &RolloutStatus| status.run.as_ref().map(|run| (run.number, run.revision.clone()));
        let paused = fleet.rollout_until("base", "Paused before run 2", |status| {
            status.phase == Some(RolloutPhase::Paused) && run(status) == Some((2, second.clone()))
        });
        let counts = paused.await.counts.unwrap();
        assert_eq!((counts.pending, counts.updated), (3, 0));
        assert_eq!(files(fleet, "motd").await, everywhere("first"));

        fleet.edit_rollout("base", json!({"paused": false})).await;
        let status = fleet.completes("base", &second).await;
        assert_eq!(files(fleet, "motd").await, everywhere("second"));
        let past: Vec<_> = status.history.iter().map(|run| (run.number, run.revision.as_str(), run.updated)).collect();
        assert_eq!(past, [(1, first.as_str(), Some(3))]);
    })
    .await;
}

#[tokio::test]
async fn a_gate_that_fails_stops_the_run_and_gives_the_node_back() {
    story(async |fleet| {
        let good = fleet.configure("base", json!([file("motd", "good")])).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &good).await;

        let gates =
            json!({"host": [{"http": {"port": 8099, "path": "/healthz"}, "timeoutSeconds": 2, "periodSeconds": 1}]});
        let turns = fleet.turns().await;
        let first = turns[0].as_str();
        fleet.roll("base", json!({"disruption": disruption(), "gates": gates})).await;
        let bad = fleet.configure("base", json!([file("motd", "bad")])).await;
        let status = fleet.rollout_until("base", "Failed", |status| status.phase == Some(RolloutPhase::Failed)).await;

        let failure = &status.failures[0];
        assert_eq!((status.failures.len(), failure.host.as_str()), (1, first));
        assert!(
            failure.message.starts_with("gate http :8099/healthz did not pass within 2 s: "),
            "{}",
            failure.message
        );
        let message = status.message.unwrap();
        assert!(message.contains(&format!("{first}: gate http :8099/healthz did not pass")), "{message}");
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
        let is = |node: &str, this: &str, other: &str| if node == first { this.to_owned() } else { other.to_owned() };
        assert_eq!(files(fleet, "motd").await, NODES.map(|node| Some(is(node, "bad", "good"))));
        assert_eq!(assigned(fleet).await, NODES.map(|node| [is(node, &bad, &good)]));
        eventually("an event tells of it", SOON, async || {
            let events = fleet.api::<Event>().list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let tells = |event: &Event| {
                event.reason.as_deref() == Some("HostFailed")
                    && event.note.as_ref().is_some_and(|note| note.contains(":8099"))
            };
            if events.iter().any(tells) { Ok(()) } else { Err(format!("{} others", events.items.len())) }
        })
        .await;

        // The next revision repairs what is broken first.
        let begun = Record::start(fleet.api::<Rollout>(), "", |rollouts| {
            let status = rollouts.get("base").and_then(|rollout| rollout.status.clone()).unwrap_or_default();
            status.in_flight.into_iter().map(|entry| (entry.host, entry.revision)).collect::<Vec<_>>()
        })
        .await;
        fleet.roll("base", json!({"gates": {"host": [{"nodeReady": {}}]}})).await;
        let fixed = fleet.configure("base", json!([file("motd", "fixed")])).await;
        let status = fleet.completes("base", &fixed).await;
        assert_eq!(status.failures, []);
        assert_eq!(files(fleet, "motd").await, everywhere("fixed"));
        let moments = begun.until("nothing is under way", Vec::is_empty).await;
        let repaired = moments.iter().flatten().find(|(_, revision)| *revision == fixed).unwrap();
        assert_eq!(repaired.0, first);
    })
    .await;
}

#[tokio::test]
async fn a_budget_that_blocks_the_drain_is_named_and_respected() {
    story(async |fleet| {
        let web = Web::start(fleet).await;
        web.keep(3).await;
        let pods = web.record().await;
        let revision = fleet.configure("base", json!([file("motd", "drained")])).await;
        let turns = fleet.turns().await;
        fleet.roll("base", json!({"disruption": disruption()})).await;

        let blocked = |status: &RolloutStatus| {
            let waits = status.in_flight.first().and_then(|entry| entry.waiting_for.clone()).unwrap_or_default();
            is_at(status, &turns[0], ClaimStep::Claim) && waits.starts_with("pod default/web-")
        };
        let status = fleet.rollout_until("base", "blocked by a pod and its budget", blocked).await;
        let waits = status.in_flight[0].waiting_for.clone().unwrap();
        assert!(waits.contains(": PodDisruptionBudget web needs 3 healthy pods and has 3"), "{waits}");
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0], "no node is taken out of service for nothing");
        assert!(status.message.as_ref().unwrap().contains(&waits), "{:?}", status.message);
        let column = fleet.rollout_until("base", "blocked by the drain", |status| {
            status.display.as_ref().and_then(|display| display.blocked.as_deref()) == Some("Drain")
        });
        column.await;
        assert!(fleet.audit.evicted().iter().all(|pod| !pod.starts_with("web-")), "the budget holds");

        web.keep(2).await;
        fleet.completes("base", &revision).await;
        web.is_whole().await;
        let pods = pods.until("the web is whole", |pods| pods.serving.len() == 3).await;
        assert!(pods.iter().all(|pods| pods.serving.len() >= 2), "{pods:#?}");
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_paused_rollout_finishes_what_it_began_and_begins_nothing() {
    story(async |fleet| {
        hold::hold(fleet).await;
        let revision = fleet.configure("base", json!([hold::resource("pause")])).await;
        let batches = json!([{"name": "canary", "size": 1}, {"size": 2}]);
        let strategy = json!({"batches": batches, "maxParallel": 2, "maxUnavailable": 2});
        let turns = fleet.turns().await;
        fleet.roll("base", json!({"strategy": strategy})).await;
        hold::is_held(fleet, &turns[0], "pause").await;
        let begun = Record::start(fleet.api::<Host>(), "", |hosts| {
            let claimed = |host: &Host| host.status.as_ref().is_some_and(|status| status.claim.is_some());
            hosts.values().filter(|host| claimed(host)).map(ResourceExt::name_any).collect::<Vec<_>>()
        })
        .await;

        fleet.edit_rollout("base", json!({"paused": true})).await;
        let pausing = |status: &RolloutStatus| {
            status.message.as_ref().is_some_and(|message| message.contains("paused, finishes 1 under way"))
        };
        fleet.rollout_until("base", "about to pause", pausing).await;
        hold::let_all_go(fleet).await;
        let paused = |status: &RolloutStatus| status.phase == Some(RolloutPhase::Paused);
        let counts = fleet.rollout_until("base", "Paused", paused).await.counts.unwrap();
        assert_eq!((counts.updated, counts.in_flight, counts.pending), (1, 0, 2));
        // Drover looks at it again, and still begins nothing.
        fleet.edit_rollout("base", json!({"strategy": {"applyTimeoutSeconds": 90}})).await;
        fleet.rollout_until("base", "still Paused", paused).await;
        let moments = begun.until("nothing is under way", Vec::is_empty).await;
        assert_eq!(moments, [vec![turns[0].clone()], vec![]]);

        fleet.edit_rollout("base", json!({"paused": false})).await;
        fleet.completes("base", &revision).await;
    })
    .await;
}

#[tokio::test]
async fn an_administrators_own_cordon_stays() {
    story(async |fleet| {
        let theirs = json!({
            "spec": {"unschedulable": true},
            "metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": "maintenance"}},
        });
        fleet.nodes().patch("node-2", &PatchParams::default(), &Patch::Merge(theirs)).await.unwrap();
        let revision = fleet.configure("base", json!([file("motd", "everywhere")])).await;
        fleet.roll("base", json!({"strategy": {"maxUnavailable": 2}, "disruption": disruption()})).await;
        fleet.completes("base", &revision).await;

        assert_eq!(files(fleet, "motd").await, everywhere("everywhere"));
        assert_eq!(fleet.nodes_out_of_service().await, ["node-2"]);
        let node = fleet.nodes().get("node-2").await.unwrap();
        assert!(is_cordoned(&node) && is_excluded(&node));
        assert_eq!(node.labels()["node.kubernetes.io/exclude-from-external-load-balancers"], "maintenance");
        let is_mark = |key: &&String| key.starts_with("drover.dev/") && *key != RELEASED_BY_ANNOTATION;
        let marks: Vec<_> = node.annotations().keys().filter(is_mark).collect();
        assert_eq!(marks, [""; 0]);
        let moments = fleet.audit.nodes();
        let all = moments.iter().map(|nodes| nodes.values().filter(|node| node.cordoned).count()).max();
        assert_eq!(all, Some(2), "theirs and one of ours");
        let stayed = moments.iter().filter_map(|nodes| nodes.get("node-2")).all(|node| node.cordoned && node.excluded);
        assert!(stayed, "it was not even taken away for a moment");
    })
    .await;
}

#[tokio::test]
async fn one_node_too_many_out_of_service_holds_the_rollout_and_is_named() {
    story(async |fleet| {
        let cordon = |wanted: bool| Patch::Merge(json!({"spec": {"unschedulable": wanted}}));
        fleet.nodes().patch("node-3", &PatchParams::default(), &cordon(true)).await.unwrap();
        let revision = fleet.configure("base", json!([file("motd", "careful")])).await;
        fleet.roll("base", json!({"strategy": {"maxUnavailable": 1}})).await;
        let status = fleet.rollout_until("base", "held by maxUnavailable", |status| {
            status.display.as_ref().and_then(|display| display.blocked.as_deref()) == Some("MaxUnavailable")
        });
        let message = status.await.message.unwrap();
        assert!(message.contains("1 out of service and 1 may be: node-3"), "{message}");
        assert_eq!(files(fleet, "motd").await, [None, None, None]);

        fleet.nodes().patch("node-3", &PatchParams::default(), &cordon(false)).await.unwrap();
        fleet.completes("base", &revision).await;
    })
    .await;
}

#[tokio::test]
async fn a_rollout_that_is_deleted_on_its_way_gives_the_node_back() {
    story(async |fleet| {
        hold::hold(fleet).await;
        fleet.configure("base", json!([hold::resource("delete"), file("motd", "half way")])).await;
        fleet.roll("base", json!({"hostSelector": only("node-2"), "disruption": disruption()})).await;
        hold::is_held(fleet, "node-2", "delete").await;
        let node = fleet.nodes().get("node-2").await.unwrap();
        assert!(is_cordoned(&node) && is_excluded(&node));

        delete(&fleet.api::<Rollout>(), "base").await;
        until_gone(&fleet.api::<Rollout>(), "base", LATER).await;
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
        assert_eq!(host(fleet, "node-2").await.claim, None);
        assert_eq!(host(fleet, "node-2").await.restore, None);
    })
    .await;
}

#[tokio::test]
async fn a_rollout_moves_the_hosts_that_it_selects_and_no_others() {
    story(async |fleet| {
        let first = fleet.configure("base", json!([file("motd", "for one")])).await;
        fleet.roll("base", json!({"hostSelector": only("node-2")})).await;
        let counts = fleet.completes("base", &first).await.counts.unwrap();
        assert_eq!((counts.updated, counts.total), (1, 1));
        // Another one goes all the way, so Drover had every opportunity to move the others.
        let other = fleet.configure("other", json!([file("other", "for all")])).await;
        fleet.roll("other", json!({})).await;
        fleet.completes("other", &other).await;
        assert_eq!(files(fleet, "motd").await, [None, Some("for one".to_owned()), None]);
    })
    .await;
}

#[tokio::test]
async fn a_rollout_of_a_missing_node_config_waits_and_says_so() {
    story(async |fleet| {
        fleet.roll("nowhere", json!({})).await;
        let pending = |status: &RolloutStatus| status.phase == Some(RolloutPhase::Pending);
        let message = fleet.rollout_until("nowhere", "Pending", pending).await.message.unwrap();
        assert_eq!(message, "waits for NodeConfig nowhere: there is none of this name in this namespace");
        let revision = fleet.configure("nowhere", json!([file("motd", "here now")])).await;
        fleet.completes("nowhere", &revision).await;
    })
    .await;
}
