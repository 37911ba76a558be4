//! Parts of Drover are killed at the worst moments, and it ends as if they had not been.

use drover_crds::{ClaimStep, RolloutStatus};
use drover_e2e::{
    Fleet, NODES,
    fleet::Part,
    hold,
    machine::FOLDER,
    story,
    wait::{LATER, SOON, eventually, until_gone},
    web::{Web, disruption},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::DeleteParams};
use serde_json::{Value, json};

use crate::{everywhere, file, files, only};

/// Kills the operator that acts, with SIGKILL, when the Rollout has a Host at this step.
async fn kill_the_operator_at(fleet: &Fleet, step: ClaimStep, ready: impl Fn(&str) -> bool) {
    let at = |status: &RolloutStatus| {
        let entries = status.in_flight.iter().filter(|entry| entry.step == step);
        entries.filter_map(|entry| entry.waiting_for.as_deref()).any(&ready)
    };
    fleet.rollout_until("base", &format!("at step {step:?}"), at).await;
    fleet.kill_without_waiting(&fleet.operator().await).await;
}

/// Something that answers on the port of the gate.
const GATE: &str = "mkdir /srv/e2e/www; echo ok > /srv/e2e/www/index.html
systemd-run --quiet --unit e2e-gate --collect busybox httpd -f -p 8099 -h /srv/e2e/www";

#[tokio::test]
async fn the_operator_is_killed_at_several_steps_and_the_rollout_completes() {
    story(async |fleet| {
        let web = Web::start(fleet).await;
        let pods = web.record().await;
        web.keep(3).await;
        hold::hold(fleet).await;
        let revision = fleet.configure("base", json!([hold::resource("crash"), file("motd", "survived")])).await;
        let gate = json!({"http": {"port": 8099, "path": "/"}, "periodSeconds": 1});
        fleet.roll("base", json!({"disruption": disruption(), "gates": {"host": [gate]}})).await;

        // The drain can begin only while the operator is dead, and so with what comes after it.
        kill_the_operator_at(fleet, ClaimStep::Claim, |waits| waits.starts_with("pod default/web-")).await;
        web.keep(2).await;
        kill_the_operator_at(fleet, ClaimStep::Apply, |_| true).await;
        hold::let_all_go(fleet).await;
        kill_the_operator_at(fleet, ClaimStep::Verify, |waits| waits.contains(":8099")).await;
        fleet.on_all(GATE).await;

        let status = fleet.completes("base", &revision).await;
        let counts = status.counts.unwrap();
        assert_eq!((counts.updated, counts.failed, status.run.unwrap().number), (3, 0, 1));
        assert_eq!(files(fleet, "motd").await, everywhere("survived"));
        assert_eq!(fleet.nodes_out_of_service().await, [""; 0]);
        let cordoned =
            fleet.audit.nodes().iter().map(|nodes| nodes.values().filter(|node| node.cordoned).count()).max();
        assert_eq!(cordoned, Some(1), "at no moment were two Nodes cordoned");
        web.is_whole().await;
        let pods = pods.until("the web is whole", |pods| pods.serving.len() == 3).await;
        assert!(pods.iter().all(|pods| pods.serving.len() >= 2), "{pods:#?}");
    })
    .await;
}

/// A service that counts its starts, and a file that its restarts follow; something holds the agent between the two.
fn noticed_service(content: &str, between: Value) -> Value {
    let unit = format!("[Service]\nExecStart=/bin/sh -c 'echo started >> {FOLDER}/starts; exec sleep infinity'\n");
    json!([
        {"name": "settings", "notify": ["service"], "file": {"path": format!("{FOLDER}/settings"), "content": content}},
        between,
        {"name": "unit", "file": {"path": "/etc/systemd/system/e2e-counter.service", "content": unit}},
        {"name": "service", "require": ["unit"], "service": {"unit": "e2e-counter", "state": "Running"}},
    ])
}

#[tokio::test]
async fn an_agent_is_killed_between_a_changed_file_and_its_service_which_restarts_all_the_same() {
    story(async |fleet| {
        let machine = fleet.machine("node-1");
        let large = |word: &str| format!("{word}\n").repeat(50_000);
        let (old, new) = (large("old"), large("new"));
        let first = fleet.configure("base", noticed_service(&old, file("between", "nothing"))).await;
        fleet.roll("base", json!({"hostSelector": only("node-1")})).await;
        fleet.completes("base", &first).await;
        assert_eq!(machine.run(&format!("cat {FOLDER}/starts")).await, "started");
        // Somebody reads the file all the time, and notes which words are in it, and its length.
        let reader = format!("cd {FOLDER}; while :; do echo $(sort -u settings) $(stat -c %s settings) >> seen; done");
        machine.run(&format!("systemd-run --quiet --unit e2e-reader --collect sh -c '{reader}'")).await;

        hold::hold(fleet).await;
        let second = fleet.configure("base", noticed_service(&new, hold::resource("kill"))).await;
        hold::is_held(fleet, "node-1", "kill").await;
        assert_eq!(machine.read(&format!("{FOLDER}/settings")).await, Some(new));
        assert_eq!(machine.run(&format!("cat {FOLDER}/starts")).await, "started", "its turn has not come");
        fleet.kill(&fleet.agent("node-1").await).await;
        hold::let_all_go(fleet).await;

        fleet.completes("base", &second).await;
        assert_eq!(machine.run(&format!("cat {FOLDER}/starts")).await, "started\nstarted");
        assert_eq!(machine.unit_state("e2e-counter").await, "active");
        machine.run("systemctl stop e2e-reader").await;
        let seen = machine.run(&format!("sort -u {FOLDER}/seen")).await;
        assert_eq!(seen, "new 200000\nold 200000", "the file was old or new at every moment");
    })
    .await;
}

#[tokio::test]
async fn a_master_dies_on_the_way_and_nobody_waits_for_it() {
    story(async |fleet| {
        hold::hold(fleet).await;
        let revision = fleet.configure("base", json!([hold::resource("master"), file("motd", "served")])).await;
        fleet.roll("base", json!({"strategy": {"maxParallel": 3, "maxUnavailable": 3}})).await;
        for node in NODES {
            hold::is_held(fleet, node, "master").await;
        }
        // One, and when another one serves in its place, the other.
        for master in fleet.pods_of(Part::Master).await {
            fleet.api::<Pod>().delete(&master.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
            until_gone(&fleet.api::<Pod>(), &master.name_any(), SOON).await;
            eventually("two masters serve", LATER, async || {
                let serving =
                    fleet.pods_of(Part::Master).await.iter().filter(|pod| drover_e2e::fleet::is_serving(pod)).count();
                if serving >= 2 { Ok(()) } else { Err(format!("{serving} do")) }
            })
            .await;
        }
        hold::let_all_go(fleet).await;
        fleet.completes("base", &revision).await;
        assert_eq!(files(fleet, "motd").await, everywhere("served"));
    })
    .await;
}
