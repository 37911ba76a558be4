//! What people do to a Rollout under way, and how a change that was bad goes away again.

use drover_crds::{Host, Rollout, RolloutPhase, RolloutStatus, RunOutcome};
use drover_e2e::{Fleet, story, web::disruption};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{everywhere, file, files};

/// Sets annotations of the Rollout, or removes them with null.
async fn annotate(fleet: &Fleet, annotations: Value) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    fleet.api::<Rollout>().patch("base", &PatchParams::default(), &patch).await.unwrap();
}

fn is(phase: RolloutPhase) -> impl Fn(&RolloutStatus) -> bool {
    move |status| status.phase == Some(phase)
}

#[tokio::test]
async fn a_bad_revision_is_rolled_back_and_not_tried_again_and_the_spec_stays_as_it_was_written() {
    story(async |fleet| {
        // The gate asks what the file says: a check that a revision can fail.
        let resources = |content: &str| {
            let unit = "[Service]\nExecStart=/bin/busybox httpd -f -p 8098 -h /srv/e2e/site\n";
            json!([
                {"name": "site", "directory": {"path": "/srv/e2e/site"}},
                {"name": content, "require": ["site"], "file": {"path": format!("/srv/e2e/site/{content}"), "content": "x"}},
                {"name": "unit", "notify": ["web"], "file": {"path": "/etc/systemd/system/e2e-site.service", "content": unit}},
                {"name": "web", "service": {"unit": "e2e-site", "state": "Running"}},
                file("motd", content),
            ])
        };
        let good = fleet.configure("base", resources("good")).await;
        fleet.roll("base", json!({})).await;
        fleet.completes("base", &good).await;

        // The third machine is where it goes wrong.
        fleet.machine("node-3").run("mkdir -p /srv/e2e/site/bad; touch /srv/e2e/site/bad/in-the-way").await;
        let spec = json!({
            "strategy": {"failure": {"maxFailed": 0, "onExceeded": "Rollback"}},
            "disruption": disruption(),
            "gates": {"host": [{"nodeReady": {}}]},
        });
        fleet.roll("base", spec).await;
        let written = fleet.api::<Rollout>().get("base").await.unwrap();
        let bad = fleet.configure("base", resources("bad")).await;
        let status = fleet.rollout_until("base", "RolledBack", is(RolloutPhase::RolledBack)).await;

        let counts = status.counts.clone().unwrap();
        assert_eq!((counts.rolled_back, counts.updated, counts.failed), (3, 0, 0), "{status:#?}");
        assert_eq!(status.message.as_deref(), Some("1 failed and 0 may: 3 rolled back"));
        assert_eq!(files(fleet, "motd").await, everywhere("good"));
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
        let rollout = fleet.api::<Rollout>().get("base").await.unwrap();
        assert_eq!((rollout.spec, rollout.metadata.generation), (written.spec, written.metadata.generation));
        assert_eq!(status.run.unwrap().revision, bad);

        // Nothing but a wish or another revision begins anew; what was in the way is gone now.
        fleet.machine("node-3").run("rm -r /srv/e2e/site/bad").await;
        annotate(fleet, json!({"drover.dev/retry": "2"})).await;
        let status = fleet.completes("base", &bad).await;
        assert_eq!(status.last_handled[0].result, "tries again");
        assert_eq!(files(fleet, "motd").await, everywhere("bad"));

        // And undone by hand.
        annotate(fleet, json!({"drover.dev/undo": "3"})).await;
        fleet.rollout_until("base", "RolledBack", is(RolloutPhase::RolledBack)).await;
        assert_eq!(files(fleet, "motd").await, everywhere("good"));
    })
    .await;
}

#[tokio::test]
async fn people_approve_skip_pause_and_abort_by_annotations_that_are_echoed() {
    story(async |fleet| {
        let batches = json!([{"name": "canary", "size": 1}, {"name": "rest", "size": "100%", "approval": "Required"}]);
        let revision = fleet.configure("base", json!([file("motd", "first")])).await;
        fleet.roll("base", json!({"strategy": {"batches": batches}})).await;
        let waits = |status: &RolloutStatus| {
            status.display.as_ref().and_then(|display| display.blocked.as_deref()) == Some("Approval")
        };
        let status = fleet.rollout_until("base", "waiting for approval", waits).await;
        let command = "kubectl annotate --overwrite rollouts.drover.dev base drover.dev/approve=1/rest";
        assert!(status.message.unwrap().ends_with(command));
        assert_eq!(files(fleet, "motd").await, [Some("first".to_owned()), None, None]);

        annotate(fleet, json!({"drover.dev/skip": "node-2"})).await;
        // As the message says.
        fleet
            .cluster
            .kubectl(&[&["-n", "drover-system"], &command.split(' ').skip(1).collect::<Vec<_>>()[..]].concat())
            .await;
        let status = fleet.rollout_until("base", "Complete", is(RolloutPhase::Complete)).await;
        assert_eq!(status.message, Some(format!("2 of 3 updated to {revision}, 1 left out")));
        assert_eq!(files(fleet, "motd").await, [Some("first".to_owned()), None, Some("first".to_owned())]);
        let echoed: Vec<_> = status.last_handled.iter().map(|handled| handled.action.as_str()).collect();
        assert_eq!(echoed, ["approve", "skip"]);

        // Paused, a new revision begins nothing; aborted, it never does.
        annotate(fleet, json!({"drover.dev/skip": null, "drover.dev/pause": "inventory"})).await;
        fleet.configure("base", json!([file("motd", "second")])).await;
        let paused = |status: &RolloutStatus| {
            status.phase == Some(RolloutPhase::Paused) && status.run.as_ref().is_some_and(|run| run.number == 2)
        };
        let status = fleet.rollout_until("base", "Paused", paused).await;
        assert!(status.message.unwrap().contains("paused: inventory; remove the annotation drover.dev/pause"));
        annotate(fleet, json!({"drover.dev/abort": "2", "drover.dev/pause": null})).await;
        fleet.rollout_until("base", "Aborted", is(RolloutPhase::Aborted)).await;
        assert_eq!(files(fleet, "motd").await, [Some("first".to_owned()), None, Some("first".to_owned())]);
        let hosts = fleet.all::<Host>().await;
        let outcomes = hosts.iter().map(|host| {
            let runs = host.status.clone().unwrap_or_default().runs;
            (host.name_any(), runs.iter().map(|record| record.outcome).collect::<Vec<_>>())
        });
        let expected =
            [("node-1", vec![RunOutcome::Succeeded]), ("node-2", vec![]), ("node-3", vec![RunOutcome::Succeeded])];
        assert_eq!(outcomes.collect::<Vec<_>>(), expected.map(|(host, runs)| (host.to_owned(), runs)));
    })
    .await;
}
