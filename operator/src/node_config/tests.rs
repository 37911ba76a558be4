use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::testing::{self, Asked, list};

const HOSTS: &str = "/apis/drover.dev/v1alpha1/namespaces/drover-system/hosts";
const MAP: &str = "/api/v1/namespaces/drover-system/configmaps/herd";
const SECRET: &str = "/api/v1/namespaces/drover-system/secrets/door";

fn config(template: &str, data_from: &Value) -> Arc<NodeConfig> {
    let config = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "base", "uid": "c1", "generation": 3},
        "spec": {"resources": [{"name": "motd", "file": {"path": "/etc/motd", "template": template}}], "dataFrom": data_from},
    });
    Arc::new(serde_json::from_value(config).unwrap())
}

fn host() -> Value {
    let facts = json!({"networking": {"hostname": "node-1"}});
    json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Host", "metadata": {"name": "node-1", "uid": "h1"},
        "spec": {"nodeRef": {"name": "node-1", "uid": "n1"}}, "status": {"facts": facts},
    })
}

async fn writes(config: Arc<NodeConfig>, objects: &[(&str, Value)]) -> Vec<Asked> {
    let (context, mut server) = testing::context(true);
    let (action, writes) = server.serve(objects, reconcile(config, Arc::new(context))).await;
    action.unwrap();
    writes
}

fn status(writes: &[Asked]) -> &Value {
    &writes.iter().find(|asked| asked.path.ends_with("/nodeconfigs/base/status")).expect("a status").body["status"]
}

fn created<'a>(writes: &'a [Asked], plural: &str) -> Vec<&'a Asked> {
    writes.iter().filter(|asked| asked.method == Method::POST && asked.path.ends_with(plural)).collect()
}

#[tokio::test]
async fn content_that_compiles_becomes_a_revision_before_the_status_names_it() {
    let map = json!({"metadata": {"name": "herd"}, "data": {"owner": "us"}});
    let from = json!([{"configMapRef": {"name": "herd"}}]);
    let config = config("{{ data.owner }} on {{ facts.networking.hostname }}", &from);
    let writes = writes(config, &[(MAP, map), (HOSTS, list(&[host()]))]).await;
    let revision = created(&writes, "controllerrevisions")[0];
    assert!(writes[0].path.ends_with("controllerrevisions"));
    assert_eq!(revision.body["metadata"]["ownerReferences"][0]["uid"], "c1");
    assert_eq!(status(&writes)["revision"], revision.body["metadata"]["name"]);
    assert_eq!(status(&writes)["phase"], "Ready");
    assert_eq!(status(&writes)["observedGeneration"], 3);
}

#[tokio::test]
async fn a_secret_goes_into_a_secret_and_nowhere_else() {
    let secret = json!({"metadata": {"name": "door"}, "data": {"key": "aHVudGVyMg=="}});
    let from = json!([{"secretRef": {"name": "door"}}]);
    let writes = writes(config("{{ data.key }}", &from), &[(SECRET, secret), (HOSTS, list(&[host()]))]).await;
    let kept = created(&writes, "secrets")[0];
    assert_eq!(kept.body["immutable"], true);
    assert_eq!(kept.body["data"]["key"], "aHVudGVyMg==");
    assert!(writes[0].path.ends_with("secrets"), "the Secret is there before the revision that needs it");
    for other in writes.iter().filter(|asked| !asked.path.ends_with("secrets")) {
        let text = other.body.to_string();
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
    }
}

#[tokio::test]
async fn an_unknown_fact_makes_a_condition_and_no_revision() {
    let writes = writes(config("{{ facts.networking.hostnam }}", &json!([])), &[(HOSTS, list(&[host()]))]).await;
    assert!(created(&writes, "controllerrevisions").is_empty());
    let status = status(&writes);
    assert_eq!((status["phase"].as_str(), status.get("revision")), (Some("Invalid"), None));
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("Host node-1") && message.contains("hostnam"), "{message}");
    assert!(message.ends_with("every host keeps what it has"), "{message}");
}

#[tokio::test]
async fn missing_data_is_named() {
    for (from, wanted) in [
        (json!([{"configMapRef": {"name": "herd"}}]), "ConfigMap herd, which is not there"),
        (json!([{"secretRef": {"name": "door"}}]), "Secret door, which is not there"),
    ] {
        let writes = writes(config("x", &from), &[]).await;
        assert_eq!(writes.len(), 1, "a status and nothing else");
        assert_eq!(status(&writes)["phase"], "MissingData");
        assert!(status(&writes)["message"].as_str().unwrap().contains(wanted), "{writes:?}");
    }
}
