//! What the people notice who use what runs on the machines: nothing.

use drover_e2e::{NODES, story, visitors::Visitors, web::Web};
use serde_json::json;

use crate::{everywhere, file, files};

#[tokio::test]
async fn no_request_is_lost_while_all_nodes_are_drained_and_changed_and_one_reboots() {
    story(async |fleet| {
        let first = fleet.configure("base", json!([file("motd", "before"), file("kernel", "1")])).await;
        fleet.roll("base", json!({"paused": false})).await;
        fleet.completes("base", &first).await;
        let web = Web::start(fleet).await;
        let port = web.node_port().await;
        let boots = "cat /proc/sys/kernel/random/boot_id";
        let before = fleet.on_all(boots).await;
        let visitors = Visitors::come(fleet, port).await;

        // The new revision changes each machine, and is another kernel for one of them.
        let mut kernel = file("kernel", "");
        let path = kernel["file"]["path"].take();
        let template = "{{ '2' if facts.networking.hostname == 'node-2' else '1' }}";
        kernel["file"] = json!({"path": path, "template": template});
        kernel["notify"] = json!(["new-kernel"]);
        let reboot = json!({"name": "new-kernel", "reboot": {"reason": "another kernel"}});
        fleet.edit_rollout("base", json!({"paused": true})).await;
        let second = fleet.configure("base", json!([file("motd", "after"), kernel, reboot])).await;
        let strategy = json!({"batches": [{"name": "canary", "size": 1}, {"name": "rest", "size": "100%"}]});
        let disruption = json!({
            "when": "Always", "loadBalancer": {"settleSeconds": 2}, "drain": {"timeoutSeconds": 120},
        });
        let gates = json!({"host": [{"nodeReady": {}}]});
        fleet.roll("base", json!({"strategy": strategy, "disruption": disruption, "gates": gates})).await;
        fleet.completes("base", &second).await;
        web.is_whole().await;
        let tally = visitors.go().await;

        assert_eq!(tally.lost, [""; 0], "{:?} were answered", tally.answered);
        let all: usize = tally.answered.values().sum();
        eprintln!("{all} requests, none lost: {:?}", tally.answered);
        assert!(NODES.iter().all(|node| tally.answered.contains_key(*node)), "each node served: {tally:?}");
        assert_eq!(files(fleet, "motd").await, everywhere("after"));
        let after = fleet.on_all(boots).await;
        let rebooted: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before != after).collect();
        assert_eq!(rebooted, [false, true, false]);
    })
    .await;
}
