//! How machines are taken out of service: by what a change costs, and by the rules of the drain.

use drover_crds::{ClaimStep, RolloutPhase};
use drover_e2e::{story, web::Web};
use serde_json::json;

use crate::{everywhere, file, files};

#[tokio::test]
async fn a_change_that_costs_nothing_drains_nobody_and_one_that_costs_a_drain_does() {
    story(async |fleet| {
        let web = Web::start(fleet).await;
        let disruption = json!({"loadBalancer": {"settleSeconds": 1}, "drain": {"timeoutSeconds": 120}});
        let first = fleet.configure("base", json!([file("motd", "first")])).await;
        fleet.roll("base", json!({"disruption": disruption})).await;
        fleet.completes("base", &first).await;
        assert_eq!(files(fleet, "motd").await, everywhere("first"));
        let touched =
            fleet.audit.nodes().iter().flat_map(|nodes| nodes.values()).any(|node| node.cordoned || node.excluded);
        assert!(!touched, "a file for itself costs nothing");
        assert!(fleet.audit.evicted().is_empty());

        // Who knows that this file is not for itself says so.
        let spec = json!({"resources": [file("motd", "second")], "disruption": {"default": "Drain"}});
        let second = fleet.configure_with("base", spec).await;
        fleet.completes("base", &second).await;
        assert_eq!(files(fleet, "motd").await, everywhere("second"));
        assert!(fleet.audit.evicted().iter().any(|pod| pod.starts_with("web-")), "{:?}", fleet.audit.evicted());
        web.is_whole().await;
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn pods_that_a_rule_skips_stay_and_a_budget_that_closes_for_good_leaves_the_machine_out() {
    story(async |fleet| {
        let web = Web::start(fleet).await;
        web.keep(3).await;
        let rules = json!([{"namespaces": ["default"], "behavior": "Skip"}]);
        let drain = json!({"timeoutSeconds": 60, "podRules": rules});
        let first = fleet.configure("base", json!([file("motd", "first")])).await;
        fleet.roll("base", json!({"disruption": {"when": "Always", "drain": drain}})).await;
        fleet.completes("base", &first).await;
        assert!(fleet.audit.evicted().iter().all(|pod| !pod.starts_with("web-")), "{:?}", fleet.audit.evicted());

        let drain = json!({"timeoutSeconds": 5, "onTimeout": "Skip"});
        fleet.roll("base", json!({"disruption": {"when": "Always", "drain": drain}})).await;
        let second = fleet.configure("base", json!([file("motd", "second")])).await;
        let run = |status: &drover_crds::RolloutStatus| status.run.as_ref().map(|run| run.revision.clone());
        let status = fleet
            .rollout_until("base", "complete without machines", |status| {
                status.phase == Some(RolloutPhase::Complete) && run(status) == Some(second.clone())
            })
            .await;
        let counts = status.counts.unwrap();
        assert_eq!((counts.skipped, counts.failed, counts.in_flight), (3, 0, 0));
        assert_eq!(files(fleet, "motd").await, everywhere("first"));
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_forced_drain_deletes_what_a_budget_keeps_and_says_so() {
    story(async |fleet| {
        let web = Web::start(fleet).await;
        web.keep(3).await;
        let drain = json!({"timeoutSeconds": 5, "onTimeout": "Force"});
        let revision = fleet.configure("base", json!([file("motd", "forced")])).await;
        fleet.roll("base", json!({"disruption": {"when": "Always", "drain": drain}})).await;
        let turns = fleet.turns().await;
        fleet
            .rollout_until("base", "blocked while it is drained", |status| {
                let blocked = |entry: &drover_crds::InFlightHost| {
                    let waits = entry.waiting_for.clone().unwrap_or_default();
                    entry.host == turns[0]
                        && entry.step == ClaimStep::Drain
                        && waits.contains("PodDisruptionBudget web")
                };
                status.in_flight.iter().any(blocked)
            })
            .await;
        fleet.completes("base", &revision).await;
        assert_eq!(files(fleet, "motd").await, everywhere("forced"));
        let events = fleet.all::<k8s_openapi::api::events::v1::Event>().await;
        let told = events.iter().any(|event| {
            event.reason.as_deref() == Some("PodDeleted")
                && event.note.as_ref().is_some_and(|note| note.starts_with("pod default/web-"))
        });
        assert!(told, "an event tells of it");
        web.keep(1).await;
        web.is_whole().await;
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
    })
    .await;
}
