//! What was going on when a story failed: Drover's objects in brief, events, pods, and the ends of the logs.

use drover_crds::{Host, MasterPool, NodeConfig, Rollout};
use futures::future::join_all;
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{ResourceExt as _, api::LogParams};

use crate::{Fleet, fleet::Part};

/// How many lines of a log, and how many events, are shown.
const LINES: usize = 25;

/// Prints it to standard error, where the test runner shows it with the failure.
pub(crate) async fn diagnose(fleet: &Fleet) {
    eprintln!("\n── what was going on ──");
    for rollout in fleet.all::<Rollout>().await {
        show("Rollout", &rollout.name_any(), &rollout.status);
    }
    for config in fleet.all::<NodeConfig>().await {
        show("NodeConfig", &config.name_any(), &config.status);
    }
    for pool in fleet.all::<MasterPool>().await {
        show("MasterPool", &pool.name_any(), &pool.status);
    }
    for host in fleet.all::<Host>().await {
        let status = host.status.clone().map(|status| drover_crds::HostStatus { facts: None, ..status });
        show("Host", &host.name_any(), &status);
    }
    eprintln!("Nodes out of service: {:?}", fleet.nodes_out_of_service().await);
    let mut events = fleet.all::<Event>().await;
    events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
    for event in events.iter().rev().take(LINES).rev() {
        let about = event.regarding.clone().unwrap_or_default();
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        eprintln!("event  {} {}: {} {}", of(&about.kind), of(&about.name), of(&event.reason), of(&event.note));
    }
    for part in Part::ALL {
        for (pod, log) in logs(fleet, part, Some(LINES)).await {
            let spec = pod.spec.clone().unwrap_or_default();
            let restarts =
                pod.status.as_ref().and_then(|status| Some(status.container_statuses.as_ref()?[0].restart_count));
            eprintln!(
                "── {} on {:?}, {restarts:?} restarts\n{log}",
                pod.name_any(),
                spec.node_name.unwrap_or_default()
            );
        }
    }
}

/// The logs of a part's pods, as far as they can be read.
pub(crate) async fn logs(fleet: &Fleet, part: Part, lines: Option<usize>) -> Vec<(Pod, String)> {
    let pods = fleet.pods_of(part).await;
    let api = fleet.api::<Pod>();
    let params = LogParams { tail_lines: lines.and_then(|lines| i64::try_from(lines).ok()), ..LogParams::default() };
    let log = async |pod: Pod| {
        let log = api.logs(&pod.name_any(), &params).await.unwrap_or_else(|error| error.to_string());
        (pod, log)
    };
    join_all(pods.into_iter().map(log)).await
}

fn show(kind: &str, name: &str, status: &impl serde::Serialize) {
    let status = serde_saphyr::to_string(status).unwrap_or_else(|error| error.to_string());
    let indented: Vec<String> = status.lines().map(|line| format!("    {line}")).collect();
    eprintln!("{kind} {name}\n{}", indented.join("\n"));
}
