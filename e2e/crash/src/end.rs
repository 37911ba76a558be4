//! How a scenario ended: what of the objects must be the same, whatever happened to the operator on the way.

use serde_json::{Map, Value, json};

use crate::{
    history::{Kind, Log},
    world::service,
};

/// The end state, without times, UIDs, words, and the names that a world gives its machines.
pub(crate) fn end(log: &Log, namespace: &str) -> Value {
    let of = |kind, view: fn(&Value) -> Value| -> Map<String, Value> {
        log.all(kind).map(|(name, object)| (local(name, namespace), view(object))).collect()
    };
    json!({
        "rollouts": of(Kind::Rollout, rollout),
        "hosts": of(Kind::Host, host),
        "nodes": of(Kind::Node, service),
        "nodeConfigs": of(Kind::NodeConfig, node_config),
    })
}

/// The name of a machine without its world's.
fn local(name: &str, namespace: &str) -> String {
    name.strip_prefix(namespace).map_or(name, |rest| rest.trim_start_matches('-')).to_owned()
}

/// The number of a machine.
fn machine(name: &Value) -> Value {
    name.as_str().and_then(|name| name.rsplit('-').next()).into()
}

/// Whether everybody has said what there is to say.
pub(crate) fn is_settled(log: &Log) -> bool {
    let hosts = log.all(Kind::Host).all(|(_, host)| {
        let status = &host["status"];
        let reported =
            status["assignedGeneration"].is_null() || status["active"]["generation"] == status["assignedGeneration"];
        status["claim"].is_null()
            && reported
            && !matches!(status["phase"].as_str(), None | Some("Updating" | "Pending"))
    });
    // A Rollout may still count a machine that another one has given back.
    let cordoned = log.all(Kind::Node).filter(|(_, node)| service(node)["cordoned"] == true).count();
    let out_of_service = cordoned + log.all(Kind::Host).filter(|(_, host)| is_failing(host)).count();
    let rollouts = log.all(Kind::Rollout).all(|(_, rollout)| {
        let status = &rollout["status"];
        if status["counts"]["unavailable"].as_u64().is_some_and(|counted| counted > out_of_service as u64) {
            return false;
        }
        let name = rollout["spec"]["nodeConfigRef"]["name"].as_str().unwrap_or_default();
        let known = log.get(Kind::NodeConfig, name).map(|config| &config["status"]["completedRevision"]);
        status["phase"] != "Complete" || known == Some(&status["run"]["revision"])
    });
    let nodes = log.all(Kind::Node).all(|(_, node)| {
        let service = service(node);
        let tainted = service["taints"].as_array().is_some_and(|taints| !taints.is_empty());
        (service["cordoned"] == true) == tainted && service["cordonedBy"].is_null() && service["excludedBy"].is_null()
    });
    hosts && rollouts && nodes
}

/// Whether its agent does not converge, or a Rollout failed on it.
fn is_failing(host: &Value) -> bool {
    let status = &host["status"];
    let failed = |run: &Value| run["outcome"] == "Failed";
    status["active"]["converged"] == false || status["runs"].as_array().is_some_and(|runs| runs.iter().any(failed))
}

fn rollout(rollout: &Value) -> Value {
    let status = &rollout["status"];
    let each = |list: &Value, view: fn(&Value) -> Value| -> Vec<Value> {
        list.as_array().into_iter().flatten().map(view).collect()
    };
    json!({
        "phase": status["phase"],
        "blocked": status["display"]["blocked"],
        "counts": status["counts"],
        "batches": status["batches"],
        "inFlight": each(&status["inFlight"], |entry| machine(&entry["host"])),
        "failures": each(&status["failures"], |failure| machine(&failure["host"])),
        "run": [status["run"]["number"], status["run"]["revision"]],
        "history": each(&status["history"], |run| {
            // A run that ended before its counts were written has none: nothing was updated.
            json!([run["number"], run["revision"], run["updated"].as_i64().unwrap_or(0)])
        }),
    })
}

fn host(host: &Value) -> Value {
    let status = &host["status"];
    let runs: Vec<Value> = status["runs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|run| json!([run["rollout"], run["run"], run["batch"], run["revision"], run["outcome"]]))
        .collect();
    json!({
        "phase": status["phase"],
        "assigned": status["assigned"],
        "generation": status["assignedGeneration"],
        "active": [status["active"]["generation"], status["active"]["converged"]],
        "claim": status["claim"],
        "restore": status["restore"],
        "runs": runs,
    })
}

fn node_config(config: &Value) -> Value {
    json!({"revision": config["status"]["revision"], "completed": config["status"]["completedRevision"]})
}

/// Where two ends differ, by path.
pub(crate) fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut differences = vec![];
    compare("", expected, found, &mut differences);
    differences
}

fn compare(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(&format!("{path}/{key}"), &of(left), &of(right), differences);
            }
        }
        _ if expected != found => differences.push(format!("{path} is {found} and should be {expected}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_by_path() {
        let expected = json!({"hosts": {"a": {"claim": null, "generation": 1}}});
        assert!(differences(&expected, &expected.clone()).is_empty());
        let found = json!({"hosts": {"a": {"claim": {"step": "Drain"}, "generation": 1}, "b": {}}});
        let told = differences(&expected, &found);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("/hosts/a/claim is") && told[1].starts_with("/hosts/b is"), "{told:?}");
    }
}
