//! When a Rollout may begin machines: its windows, what it says before anything moves, and budgets over several Rollouts.

use drover_crds::{DisruptionBudget, RolloutPhase};
use drover_e2e::{
    Fleet, hold, story,
    wait::{SOON, until},
};
use serde_json::{Value, json};

use crate::{everywhere, file, files, only};

#[tokio::test]
async fn a_rollout_outside_its_window_begins_nothing_and_says_when_it_opens() {
    story(async |fleet| {
        let window = |from: &str| json!({"windows": [{"kind": "Allow", "from": from, "to": "2099-01-01T00:00:00Z"}]});
        let revision = fleet.configure("base", json!([file("motd", "first")])).await;
        fleet.roll("base", json!({"schedule": window("2098-05-01T02:00:00+02:00")})).await;
        let blocked = |status: &drover_crds::RolloutStatus| status.display.clone().and_then(|display| display.blocked);
        let status = fleet.rollout_until("base", "blocked by its window", |status| blocked(status).is_some()).await;
        assert_eq!(blocked(&status).as_deref(), Some("Window"));
        let message = status.message.unwrap();
        let says = format!("0 of 3 updated to {revision}; outside its windows; opens 2098-05-01T00:00Z");
        assert!(message.starts_with(&says), "{message}");
        // Another one goes all the way meanwhile, so it had every opportunity.
        let other = fleet.configure("other", json!([file("other", "other")])).await;
        fleet.roll("other", json!({})).await;
        fleet.completes("other", &other).await;
        assert_eq!(files(fleet, "motd").await, [None, None, None]);

        fleet.edit_rollout("base", json!({"schedule": window("2020-05-01T02:00:00+02:00")})).await;
        fleet.completes("base", &revision).await;
        assert_eq!(files(fleet, "motd").await, everywhere("first"));
    })
    .await;
}

#[tokio::test]
async fn a_paused_rollout_shows_what_it_would_do() {
    story(async |fleet| {
        let revision = fleet.configure("base", json!([file("motd", "first")])).await;
        fleet.roll("base", json!({"paused": true})).await;
        let paused = fleet.rollout_until("base", "Paused", |status| status.phase == Some(RolloutPhase::Paused)).await;
        let preview = paused.preview.unwrap();
        let hosts: Vec<&str> = preview.first_hosts.iter().map(|host| host.host.as_str()).collect();
        assert_eq!(
            (preview.revision, hosts),
            (revision.clone(), fleet.turns().await.each_ref().map(String::as_str).to_vec())
        );
        let message = paused.message.unwrap();
        assert!(message.contains("; would "), "{message}");
        assert_eq!(files(fleet, "motd").await, [None, None, None]);
        fleet.edit_rollout("base", json!({"paused": false})).await;
        fleet.completes("base", &revision).await;
    })
    .await;
}

#[tokio::test]
async fn two_rollouts_keep_one_budget_together() {
    story(async |fleet| {
        budget(fleet, json!({"maxUnavailable": 1})).await;
        hold::hold(fleet).await;
        let first = fleet.configure("first", json!([hold::resource("first")])).await;
        let second = fleet.configure("second", json!([file("second", "second")])).await;
        fleet.roll("first", json!({"hostSelector": only("node-1")})).await;
        hold::is_held(fleet, "node-1", "first").await;
        fleet.roll("second", json!({"hostSelector": only("node-2")})).await;
        let waits = fleet.rollout_until("second", "waits for the budget", |status| {
            status.message.as_ref().is_some_and(|message| message.contains("DisruptionBudget "))
        });
        let says = "waits: DisruptionBudget fleet: 1 of its machines out of service and 1 may be: node-1";
        let message = waits.await.message.unwrap();
        assert!(message.ends_with(says), "{message}");
        assert_eq!(files(fleet, "second").await, [None, None, None]);
        until(&fleet.api::<DisruptionBudget>(), "fleet", "used up", SOON, |budget| {
            budget.status.as_ref().filter(|status| (status.held, status.unavailable) == (Some(1), Some(1))).cloned()
        })
        .await;
        hold::let_all_go(fleet).await;
        fleet.completes("first", &first).await;
        fleet.completes("second", &second).await;
    })
    .await;
}

#[tokio::test]
async fn a_window_that_is_no_window_is_refused_with_what_to_write() {
    story(async |fleet| {
        let twice = json!({"kind": "Allow", "schedule": "0 2 * * 6", "from": "2026-01-01T00:00:00Z"});
        let six = json!({"kind": "Allow", "schedule": "0 0 2 * * 6", "durationSeconds": 3600});
        let long = json!({"kind": "Allow", "schedule": "0 2 * * 6"});
        let back = json!({"kind": "Deny", "from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"});
        for (window, says) in [
            (twice, "a window has either schedule and durationSeconds, or from and to"),
            (six, "write five fields with spaces between them"),
            (long, "a window with a schedule needs durationSeconds"),
            (back, "from must be before to"),
        ] {
            let patch = json!({"spec": {"schedule": {"windows": [window]}}}).to_string();
            fleet.roll("base", json!({})).await;
            let refused = fleet
                .cluster
                .try_kubectl(&[
                    "patch",
                    "-n",
                    "drover-system",
                    "rollouts.drover.dev",
                    "base",
                    "--type=merge",
                    "-p",
                    &patch,
                ])
                .await;
            let refusal = refused.expect_err("it is refused");
            assert!(refusal.contains(says), "{refusal}");
        }
    })
    .await;
}

/// Applies a DisruptionBudget over all machines.
async fn budget(fleet: &Fleet, spec: Value) {
    let object = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "DisruptionBudget",
        "metadata": {"name": "fleet", "namespace": "drover-system"}, "spec": spec,
    });
    fleet.cluster.apply(&fleet.api::<DisruptionBudget>(), &object).await;
}
