//! What agents are told that ask their masters, with the client that they always have.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{join, join_all};
use kube::ResourceExt as _;

use crate::{Fleet, fleet::NAMESPACE};

/// Milliseconds from one question to the next.
const EVERY: &str = "50";
/// How many questions one process asks that is started again and again.
const AT_ONCE: usize = 40;

/// Lets the agent of a node ask for its catalog so many times. An error: not all were answered.
pub async fn ping(fleet: &Fleet, node: &str, times: usize) -> Result<String, String> {
    let (agent, count) = (fleet.agent(node).await.name_any(), times.to_string());
    let command = ["-n", NAMESPACE, "exec", &agent, "--", "/drover-agent", "ping", "--count", &count, "--every", EVERY];
    let line = |told: String| format!("{node}: {}", told.trim());
    fleet.cluster.try_kubectl(&command).await.map(line).map_err(line)
}

/// Lets the agents of these nodes ask again and again while something else goes on. Each question must be answered.
pub async fn answered_during(fleet: &Fleet, nodes: &[&str], happens: impl Future<Output = ()>) {
    let over = AtomicBool::new(false);
    let asking = join_all(nodes.iter().map(async |node| {
        let mut refused = Vec::new();
        let mut asked = 0;
        while !over.load(Ordering::Relaxed) {
            refused.extend(ping(fleet, node, AT_ONCE).await.err());
            asked += AT_ONCE;
        }
        (asked, refused)
    }));
    let happening = async {
        happens.await;
        over.store(true, Ordering::Relaxed);
    };
    let (told, ()) = join(asking, happening).await;
    let refused: Vec<&String> = told.iter().flat_map(|(_, refused)| refused).collect();
    assert_eq!(refused, [""; 0], "agents were not answered");
    assert!(told.iter().all(|(asked, _)| *asked > 0));
}
