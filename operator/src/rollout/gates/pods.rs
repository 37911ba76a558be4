//! The gate on the pods of a machine.

use drover_crds::PodsReadyGate;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt as _,
    api::ListParams,
    core::{Selector, SelectorExt as _},
};

use super::{Asker, Told};
use crate::objects;

impl Asker {
    pub(super) async fn pods(&self, gate: &PodsReadyGate, node: &Node) -> Told {
        let api = match &gate.namespace {
            Some(namespace) => Api::<Pod>::namespaced(self.client.clone(), namespace),
            None => Api::<Pod>::all(self.client.clone()),
        };
        let selector: Selector = match gate.selector.clone().map_or(Ok(Selector::default()), TryInto::try_into) {
            Ok(selector) => selector,
            Err(error) => return Told::inconclusive(format!("the selector can not be read: {error}")),
        };
        let params = ListParams::default().fields(&format!("spec.nodeName={}", node.name_any()));
        match api.list(&params).await {
            Ok(pods) => judge(&pods.items, &selector, gate),
            Err(error) => Told::inconclusive(format!("pods can not be listed: {}", objects::chain(&error))),
        }
    }
}

/// All pods that are selected and not finished are ready.
fn judge(pods: &[Pod], selector: &Selector, gate: &PodsReadyGate) -> Told {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let selected: Vec<&Pod> = pods
        .iter()
        .filter(|pod| selector.matches(pod.labels()) && !matches!(phase(pod).as_str(), "Succeeded" | "Failed"))
        .collect();
    let mut unready: Vec<String> = selected
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some() || !is_ready(pod))
        .map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()))
        .collect();
    unready.sort();
    let least = usize::try_from(gate.at_least.unwrap_or(0)).unwrap_or_default();
    match unready.first() {
        Some(first) if unready.len() == 1 => Told::failed(format!("pod {first} is not ready")),
        Some(first) => Told::failed(format!("{} pods are not ready, the first is {first}", unready.len())),
        None if selected.len() < least => Told::failed(format!("there are {} such pods, not {least}", selected.len())),
        None => Told::passed(),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use drover_core::rollout::GateAnswer::{Failed, Passed};
    use serde_json::json;

    use super::*;

    fn pod(name: &str, app: &str, phase: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "web", "labels": {"app": app}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn all_pods_that_are_selected_are_ready_and_enough_of_them() {
        let pods = [
            pod("a", "web", "Running", "True"),
            pod("b", "web", "Succeeded", "False"),
            pod("c", "db", "Running", "False"),
        ];
        for (gate, expected) in [
            (json!({"selector": {"matchLabels": {"app": "web"}}}), Passed),
            (json!({"selector": {"matchLabels": {"app": "web"}}, "atLeast": 1}), Passed),
            (
                json!({"selector": {"matchLabels": {"app": "web"}}, "atLeast": 2}),
                Failed("there are 1 such pods, not 2".into()),
            ),
            (json!({}), Failed("pod web/c is not ready".into())),
            (json!({"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["none"]}]}}), Passed),
        ] {
            let gate: PodsReadyGate = serde_json::from_value(gate).unwrap();
            let selector = gate.selector.clone().map_or(Ok(Selector::default()), TryInto::try_into).unwrap();
            assert_eq!(judge(&pods, &selector, &gate).answer, expected, "{gate:?}");
        }
    }
}
