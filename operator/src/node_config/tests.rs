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
    let hosts = objects.iter().find(|(path, _)| *path == HOSTS).map(|(_, hosts)| hosts["items"].as_array().unwrap());
    for host in hosts.into_iter().flatten() {
        context.fleet.observe_host(serde_json::from_value(host.clone()).unwrap());
    }
    let shared = Arc::new(Shared { context, trials: Trials::default() });
    let (action, writes) = server.serve(objects, reconcile(config, shared)).await;
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
    let kept = created(&writes, "secrets")[1];
    assert_eq!(kept.body["immutable"], true);
    assert_eq!(kept.body["data"], json!({"layer-0-0": "aHVudGVyMg=="}));
    let revision = writes.iter().position(|asked| asked.path.ends_with("controllerrevisions")).unwrap();
    let secret = writes.iter().rposition(|asked| asked.path.ends_with("secrets")).unwrap();
    assert!(secret < revision, "the Secret is there before the revision that needs it");
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

const CONFIGS: &str = "/apis/drover.dev/v1alpha1/namespaces/drover-system/nodeconfigs";
const REVISIONS: &str = "/apis/apps/v1/namespaces/drover-system/controllerrevisions";
const SECRETS: &str = "/api/v1/namespaces/drover-system/secrets";
const KEY: &str = "/api/v1/namespaces/drover-system/secrets/drover-revision-key";

fn assigned(mut host: Value, node_config: &str, revision: &str) -> Value {
    let revisions = json!([{"nodeConfig": node_config, "revision": revision}]);
    host["status"]["assigned"] = revisions.clone();
    host["status"]["active"] = json!({
        "generation": 1, "catalog": "x", "converged": true, "resources": 1, "changed": 0, "failed": 0, "revisions": revisions,
    });
    host
}

/// A revision as it is kept, of the one file `/etc/motd`.
fn kept(node_config: &str, name: &str, stored: &Value) -> Value {
    let mut data = json!({"resources": [{"name": "motd", "file": {"path": "/etc/motd", "template": "moo"}}], "intervalSeconds": 1800});
    data.as_object_mut().unwrap().extend(stored.as_object().unwrap().clone());
    json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": data,
        "metadata": {"name": name, "labels": {"drover.dev/node-config": node_config}},
    })
}

#[tokio::test]
async fn layers_are_merged_for_each_host_by_its_labels() {
    let map = json!({"metadata": {"name": "herd"}, "data": {"users": "[ann, bob]", "site": "{name: all, size: 1}"}});
    let berlin = json!({"metadata": {"name": "berlin"}, "data": {"site": "{name: berlin}"}});
    let from = json!([
        {"configMapRef": {"name": "berlin"}, "format": "Yaml", "hostSelector": {"matchLabels": {"site": "berlin"}}},
        {"configMapRef": {"name": "herd"}, "format": "Yaml"},
    ]);
    let mut host = host();
    host["metadata"]["labels"] = json!({"site": "berlin"});
    let check = "{% for user in data.users %}{{ user }}{% endfor %}{% if [data.site.name, data.site.size] != ['berlin', 1] %}{{ data.wrong }}{% endif %}";
    let berlin_map = "/api/v1/namespaces/drover-system/configmaps/berlin";
    let objects = [(MAP, map), (berlin_map, berlin), (HOSTS, list(&[host.clone()]))];
    let told = writes(config(check, &from), &objects).await;
    assert_eq!(status(&told)["phase"], "Ready", "{told:?}");
    let layers = &created(&told, "controllerrevisions")[0].body["data"]["layers"];
    assert_eq!(layers[0]["source"], json!({"kind": "ConfigMap", "name": "berlin"}));

    host["metadata"]["labels"] = json!({});
    let objects = [objects[0].clone(), objects[1].clone(), (HOSTS, list(&[host]))];
    let told = writes(config(check, &from), &objects).await;
    assert_eq!(status(&told)["phase"], "Invalid", "elsewhere the site is another one: {told:?}");
}

#[tokio::test]
async fn both_sides_of_a_conflict_say_so_and_nothing_of_the_later_one_is_kept() {
    let theirs = kept("web", "web-1", &json!({"scheme": 2}));
    let web = |status: Value| {
        json!({"apiVersion": "drover.dev/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "web", "uid": "c2"},
            "spec": {"resources": []}, "status": status})
    };
    let host = assigned(host(), "web", "web-1");
    let objects =
        [(HOSTS, list(&[host])), (CONFIGS, list(&[web(json!({"revision": "web-1"}))])), (REVISIONS, list(&[theirs]))];
    let told = writes(config("x", &json!([])), &objects).await;
    assert_eq!(told.len(), 1, "a status and no revision: {told:?}");
    let of_later = status(&told);
    assert_eq!((of_later["phase"].as_str(), of_later.get("revision")), (Some("Conflict"), None));
    assert_eq!(
        of_later["conflicts"],
        json!([{"nodeConfig": "web", "claim": "path:/etc/motd", "host": "node-1", "hosts": 1}]),
    );
    let conflict = |status: &Value| {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == "Conflict").cloned()
    };
    let message = conflict(of_later).expect("a condition")["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("path:/etc/motd on Host node-1 is NodeConfig web's already"), "{message}");

    // The other side: the same NodeConfig, seen while `web` is the one that gives way.
    for (conflicts, wanted) in [
        (json!([{"nodeConfig": "base", "claim": "path:/etc/motd", "host": "node-1", "hosts": 1}]), true),
        (json!([]), false),
    ] {
        let objects = [(HOSTS, list(&[])), (CONFIGS, list(&[web(json!({"conflicts": conflicts}))]))];
        let told = writes(config("x", &json!([])), &objects).await;
        let of_first = status(&told);
        assert_eq!(of_first["phase"], "Ready");
        assert_eq!(conflict(of_first).is_some(), wanted, "{told:?}");
    }
}

#[tokio::test]
async fn the_status_says_what_the_newest_revision_would_cost() {
    let old = kept("base", "base-old", &json!({"scheme": 2}));
    let hosts = list(&[assigned(host(), "base", "base-old")]);
    let mut config = (*config("new", &json!([]))).clone();
    let service = json!({"name": "web", "service": {"unit": "web", "state": "Running"}});
    config.spec.resources.push(serde_json::from_value(service).unwrap());
    config.spec.resources[0].notify = vec!["web".into()];
    let told = writes(Arc::new(config), &[(HOSTS, hosts), (REVISIONS, list(&[old]))]).await;
    let status = status(&told);
    assert_eq!(status["cost"], "1 Restart");
    assert_eq!(status["pending"]["restart"], 1);
    assert_eq!(status["disruption"], json!([{"disruption": "Restart", "count": 2, "resources": ["motd", "web"]}]));
}

#[tokio::test]
async fn a_name_is_keyed_where_there_is_a_secret_and_the_key_is_made_once() {
    let secret = json!({"metadata": {"name": "door"}, "data": {"key": "aHVudGVyMg=="}});
    let from = json!([{"secretRef": {"name": "door"}}]);
    let key = |byte: u8| {
        let data = serde_json::to_value(k8s_openapi::ByteString(vec![byte; 32])).unwrap();
        json!({"metadata": {"name": "drover-revision-key"}, "data": {"key": data}})
    };
    let name = |writes: &[Asked]| created(writes, "controllerrevisions")[0].body["metadata"]["name"].clone();
    let mut names = vec![];
    for stored in [key(1), key(2), key(1)] {
        let told = writes(config("{{ data.key }}", &from), &[(SECRET, secret.clone()), (KEY, stored)]).await;
        assert_eq!(created(&told, "secrets").len(), 1, "the values alone: there is a key");
        names.push(name(&told));
    }
    assert!(names[0] != names[1] && names[0] == names[2], "{names:?}");

    let told = writes(config("{{ data.key }}", &from), &[(SECRET, secret)]).await;
    let made = &created(&told, "secrets")[0].body;
    assert_eq!((&made["metadata"]["name"], &made["immutable"]), (&json!("drover-revision-key"), &json!(true)));
    let bytes: k8s_openapi::ByteString = serde_json::from_value(made["data"]["key"].clone()).unwrap();
    assert!(bytes.0.len() == 32 && bytes.0.iter().any(|byte| *byte != bytes.0[0]), "random");

    let plain = writes(config("x", &json!([])), &[]).await;
    assert!(created(&plain, "secrets").is_empty(), "no secret, no key");
}

#[tokio::test]
async fn who_makes_the_key_second_takes_the_first() {
    let (context, mut server) = testing::context(true);
    let key = key::name_key(&context);
    let answers = async {
        server.answer(404, testing::status(404, "NotFound", "not found")).await;
        server.answer(409, testing::status(409, "AlreadyExists", "there is one")).await;
        let first = serde_json::to_value(k8s_openapi::ByteString(vec![7; 32])).unwrap();
        server.answer(200, json!({"metadata": {"name": "drover-revision-key"}, "data": {"key": first}})).await
    };
    let (key, _) = tokio::join!(key, answers);
    let secret = drover_core::revision::Layer::new(
        drover_core::revision::Source::secret("s"),
        None,
        drover_crds::DataFormat::Text,
        [].into(),
    );
    let content = Content { layers: vec![secret], ..Content::default() };
    let first = drover_core::revision::NameKey::new([7; 32]);
    assert_eq!(content.name("base", Some(&key.unwrap())).unwrap(), content.name("base", Some(&first)).unwrap());
}

#[tokio::test]
async fn a_new_scheme_of_names_keeps_the_name_of_the_same_content() {
    let map = json!({"metadata": {"name": "herd"}, "data": {"a": "plain"}});
    let door = json!({"metadata": {"name": "door"}, "data": {"b": "aHVudGVyMg=="}});
    let from = json!([{"configMapRef": {"name": "herd"}}, {"secretRef": {"name": "door"}}]);
    let old = kept("base", "base-scheme1", &json!({"scheme": 1, "data": {"a": "plain"}, "secretKeys": ["b"]}));
    let beside = json!({
        "metadata": {"name": "base-scheme1", "labels": {"drover.dev/node-config": "base"}},
        "data": {"b": "aHVudGVyMg=="},
    });
    let objects = [(MAP, map), (SECRET, door), (REVISIONS, list(&[old])), (SECRETS, list(&[beside]))];
    let told = writes(config("moo", &from), &objects).await;
    assert_eq!(status(&told)["revision"], "base-scheme1");
    assert_eq!(told.len(), 1, "nothing is made: {told:?}");
    let told = writes(config("another", &from), &objects).await;
    assert_ne!(status(&told)["revision"], "base-scheme1");
}

#[test]
fn a_revision_that_was_undone_is_not_what_new_machines_start_with() {
    let config = |completed: Option<&str>| {
        let mut config = (*config("x", &json!([]))).clone();
        config.status = serde_json::from_value(json!({"revision": "base-2", "completedRevision": completed})).unwrap();
        config
    };
    let rollout = |stopped: Value| -> Rollout {
        let run = json!({
            "number": 2, "revision": "base-2", "generation": 1, "startedAt": "2030-01-01T00:00:00Z", "stopped": stopped,
        });
        serde_json::from_value(json!({
            "metadata": {"name": "base"}, "spec": {"nodeConfigRef": {"name": "base"}},
            "status": {"phase": "RollingBack", "run": run},
        }))
        .unwrap()
    };
    let undone = json!({"action": "Rollback", "reason": "somebody", "time": "2030-01-01T00:00:00Z"});
    let completed = |before: Option<&str>, stopped: &Value, machines: &[&str]| {
        let machines = machines.iter().map(|revision| match *revision {
            "" => host(),
            revision => assigned(host(), "base", revision),
        });
        let machines: Vec<Arc<drover_crds::Host>> =
            machines.map(|host| Arc::new(serde_json::from_value(host).unwrap())).collect();
        let verdict = Verdict::Missing("nothing".to_owned());
        super::status::status(&config(before), &verdict, &machines, &[], &[rollout(stopped.clone())]).completed_revision
    };
    let (new, old) = (Some("base-2"), Some("base-1".to_owned()));
    assert_eq!(completed(new, &Value::Null, &["base-2"]).as_deref(), new);
    assert_eq!(completed(new, &undone, &["base-2", "base-1"]), None, "on its way back");
    assert_eq!(completed(None, &undone, &["base-1", "base-1", ""]), old, "back, and a new machine");
    assert_eq!(completed(None, &undone, &["base-1", "base-0"]), None);
    assert_eq!(completed(Some("base-1"), &undone, &["base-2", "base-1"]), old, "it was never complete");
}
