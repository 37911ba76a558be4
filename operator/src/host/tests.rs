use http::Method;
use serde_json::json;

use super::*;
use crate::testing;

const HOST: &str = "/apis/drover.dev/v1alpha1/namespaces/drover-system/hosts/node-1";

fn node(uid: &str) -> Arc<Node> {
    let node = json!({
        "metadata": {"name": "node-1", "uid": uid, "labels": {"zone": "a", keys::EXCLUDE_FROM_LOAD_BALANCERS_LABEL: ""}},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": null}]},
    });
    Arc::new(serde_json::from_value(node).unwrap())
}

fn host(uid: &str) -> serde_json::Value {
    json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Host",
        "metadata": {"name": "node-1", "uid": "h1", "labels": {"zone": "a", "drover.dev/via": "node"}},
        "spec": {"nodeRef": {"name": "node-1", "uid": uid}},
    })
}

/// An operator that knows this Host.
fn shared(context: Context, known: Option<serde_json::Value>) -> Arc<Shared> {
    if let Some(host) = known {
        context.fleet.observe_host(serde_json::from_value(host).unwrap());
    }
    let (configs, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    Arc::new(Shared { context, configs, pools: reflector::store().0 })
}

#[tokio::test]
async fn a_node_config_that_is_not_known_yet_is_not_taken_from_a_machine() {
    let mut assigned = host("n1");
    assigned["status"] = json!({"assigned": [{"nodeConfig": "base", "revision": "base-1"}], "assignedGeneration": 3});
    let config = json!({"metadata": {"name": "base"}, "spec": {"resources": []}});
    for (there, expected) in [(vec![config], 3), (vec![], 4)] {
        let (context, mut server) = testing::context(true);
        let list = ("/apis/drover.dev/v1alpha1/namespaces/drover-system/nodeconfigs", testing::list(&there));
        let shared = shared(context, Some(assigned.clone()));
        // The answer to a patch is no whole Host here, so what comes of it is not looked at.
        let (_, writes) = server.serve(&[list], reconcile(node("n1"), shared)).await;
        let generations = writes.iter().filter_map(|write| write.body["status"]["assignedGeneration"].as_i64());
        assert_eq!(generations.max().unwrap_or(3), expected, "{writes:?}");
    }
}

#[tokio::test]
async fn a_new_node_gets_a_host_that_it_owns() {
    let (context, mut server) = testing::context(true);
    let (action, writes) = server.serve(&[], reconcile(node("n1"), shared(context, None))).await;
    action.unwrap();
    let made = &writes[0];
    assert_eq!((&made.method, made.path.as_str()), (&Method::PATCH, HOST));
    assert_eq!(made.body["spec"]["nodeRef"], json!({"name": "node-1", "uid": "n1"}));
    assert_eq!(made.body["metadata"]["ownerReferences"][0]["uid"], "n1");
    let labels = json!({"zone": "a", "drover.dev/via": "node"});
    assert_eq!(made.body["metadata"]["labels"], labels, "the label of a Rollout is not mirrored");
}

#[tokio::test]
async fn a_node_made_again_under_its_name_gets_another_host() {
    let (context, mut server) = testing::context(true);
    let (action, writes) =
        server.serve(&[(HOST, host("n1"))], reconcile(node("n2"), shared(context, Some(host("n1"))))).await;
    action.unwrap();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(writes[0].method, Method::DELETE);
    assert_eq!(writes[0].body["preconditions"]["uid"], "h1");
}

#[tokio::test]
async fn an_operator_that_does_not_lead_writes_nothing() {
    let (context, mut server) = testing::context(false);
    let (_, writes) = server.serve(&[], reconcile(node("n1"), shared(context, None))).await;
    assert!(writes.is_empty());
}
