//! Gates on a machine's Node.

use drover_crds::NodeConditionGate;
use k8s_openapi::api::core::v1::Node;

use super::Told;
use crate::host::is_ready;

pub(super) fn ready(node: &Node) -> Told {
    if is_ready(node) { Told::passed() } else { Told::failed("the node is NotReady") }
}

/// All conditions have the status that is asked for. One that is not there is no evidence.
pub(super) fn conditions(node: &Node, wanted: &[NodeConditionGate]) -> Told {
    let found = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut missing = None;
    for wanted in wanted {
        match found.iter().find(|condition| condition.type_ == wanted.type_) {
            Some(condition) if condition.status == wanted.status => {}
            Some(condition) => {
                return Told::failed(format!(
                    "condition {} is {}, not {}",
                    wanted.type_, condition.status, wanted.status
                ));
            }
            None => missing = missing.or(Some(&wanted.type_)),
        }
    }
    match missing {
        Some(type_) => Told::inconclusive(format!("the node has no condition {type_}")),
        None => Told::passed(),
    }
}

#[cfg(test)]
mod tests {
    use drover_core::rollout::GateAnswer::{self, Failed, Inconclusive, Passed};
    use serde_json::json;

    use super::*;

    fn check(wanted: &[(&str, &str)], expected: &GateAnswer) {
        let node: Node = serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "KernelDeadlock", "status": "True"},
        ]}}))
        .unwrap();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(type_, status)| NodeConditionGate { type_: (*type_).into(), status: (*status).into() })
            .collect();
        assert_eq!(conditions(&node, &wanted).answer, *expected);
    }

    #[test]
    fn each_condition_has_the_status_asked_for_and_a_missing_one_is_no_evidence() {
        check(&[("Ready", "True"), ("KernelDeadlock", "True")], &Passed);
        check(
            &[("Ready", "True"), ("KernelDeadlock", "False")],
            &Failed("condition KernelDeadlock is True, not False".into()),
        );
        check(&[("Else", "True"), ("Ready", "True")], &Inconclusive("the node has no condition Else".into()));
        check(&[("Else", "True"), ("Ready", "False")], &Failed("condition Ready is True, not False".into()));
    }
}
