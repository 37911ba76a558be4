use drover_core::rollout::{NodeChange, PodKey, Request, Snapshot};
use drover_crds::{Host, HostSpec, NodeRef, Rollout, RolloutSpec};
use serde_json::json;

use super::{
    carry_out::{Outcome, carry_out},
    gates::Gates,
    *,
};
use crate::testing::{self, ApiServer, status};

fn rollout() -> Rollout {
    let spec: RolloutSpec = serde_json::from_value(json!({"nodeConfigRef": {"name": "base"}})).unwrap();
    let mut rollout = Rollout::new("base", spec);
    rollout.metadata.resource_version = Some("7".into());
    rollout
}

fn snapshot() -> Snapshot {
    let mut host = Host::new("node-1", HostSpec { node_ref: NodeRef::default() });
    host.metadata.resource_version = Some("9".into());
    Snapshot {
        rollout: rollout(),
        node_config: None,
        revisions: [].into(),
        hosts: vec![host],
        own_node: None,
        costs: [].into(),
        nodes: [].into(),
        pods: [].into(),
        refused_evictions: [].into(),
        gates: [].into(),
    }
}

fn pod() -> PodKey {
    PodKey { namespace: "default".into(), name: "web-1".into(), uid: "u1".into() }
}

async fn answered(request: Request, code: u16, answer: serde_json::Value) -> (Outcome, testing::Asked) {
    let (context, mut server) = testing::context(true);
    let snapshot = snapshot();
    let (outcome, asked) = tokio::join!(carry_out(&context, &snapshot, request), server.answer(code, answer));
    (outcome.unwrap(), asked)
}

#[tokio::test]
async fn an_eviction_that_a_budget_refuses_is_an_answer_in_its_words() {
    let mut refusal =
        status(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = "The disruption budget web needs 2 healthy pods and has 2 currently";
    refusal["details"] = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
    let (outcome, asked) = answered(Request::Evict(pod()), 429, refusal).await;
    let Outcome::Refused(refused, why) = outcome else { panic!("not refused") };
    assert_eq!((refused, why), (pod(), format!("its eviction is refused: {cause}")));
    assert_eq!(asked.path, "/api/v1/namespaces/default/pods/web-1/eviction");
    assert_eq!(asked.body["deleteOptions"]["preconditions"]["uid"], "u1", "only this very pod is evicted");
}

#[tokio::test]
async fn a_pod_that_is_gone_needs_no_eviction() {
    let (outcome, _) = answered(Request::Evict(pod()), 404, status(404, "NotFound", "gone")).await;
    assert!(matches!(outcome, Outcome::Conflict));
}

#[tokio::test]
async fn a_write_names_the_version_it_was_decided_on_and_a_conflict_is_an_answer() {
    let request = Request::WriteRollout(Box::default());
    let (outcome, asked) = answered(request, 409, status(409, "Conflict", "changed")).await;
    assert!(matches!(outcome, Outcome::Conflict));
    assert_eq!(asked.body["metadata"]["resourceVersion"], "7");
    let request = Request::WriteHost { host: "node-1".into(), status: Box::default() };
    let (outcome, asked) = answered(request, 409, status(409, "Conflict", "changed")).await;
    assert!(matches!(outcome, Outcome::Conflict));
    assert_eq!(asked.body["metadata"]["resourceVersion"], "9");
}

#[tokio::test]
async fn a_cordon_and_its_mark_are_one_write() {
    let change = |change| Request::PatchNode { node: "node-1".into(), resource_version: "5".into(), change };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}});
    let (_, asked) = answered(change(NodeChange::Cordon("token".into())), 200, node.clone()).await;
    let metadata = json!({"annotations": {"drover.dev/cordoned-by": "token"}, "resourceVersion": "5"});
    assert_eq!(asked.body, json!({"metadata": metadata, "spec": {"unschedulable": true}}));
    let (_, asked) = answered(change(NodeChange::Uncordon("token".into())), 200, node.clone()).await;
    let annotations = json!({"drover.dev/cordoned-by": null, "drover.dev/released-by": "token"});
    let metadata = json!({"annotations": annotations, "resourceVersion": "5"});
    assert_eq!(asked.body, json!({"metadata": metadata, "spec": {"unschedulable": null}}));
    let (_, asked) = answered(change(NodeChange::Release("token".into())), 200, node).await;
    let metadata = json!({"annotations": {"drover.dev/released-by": "token"}, "resourceVersion": "5"});
    assert_eq!(asked.body, json!({"metadata": metadata}));
}

#[tokio::test]
async fn an_operator_that_does_not_lead_asks_nothing_and_writes_nothing() {
    let (context, mut server) = testing::context(false);
    let shared = Arc::new(Shared { context, gates: gates() });
    let (action, writes) = server.serve(&[], reconcile(Arc::new(rollout()), shared)).await;
    assert_eq!(action.unwrap(), Action::await_change());
    assert!(writes.is_empty());
}

fn gates() -> Gates {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Gates::new().unwrap()
}

async fn writes_for(
    server: &mut ApiServer,
    context: Context,
    objects: &[(&str, serde_json::Value)],
) -> Vec<testing::Asked> {
    let shared = Arc::new(Shared { context, gates: gates() });
    let (action, writes) = server.serve(objects, reconcile(Arc::new(rollout()), shared)).await;
    action.unwrap();
    writes
}

#[tokio::test]
async fn a_rollout_that_is_gone_is_left_alone() {
    let (context, mut server) = testing::context(true);
    assert!(writes_for(&mut server, context, &[]).await.is_empty());
}

#[tokio::test]
async fn a_rollout_that_has_said_all_writes_nothing_again() {
    const ROLLOUT: &str = "/apis/drover.dev/v1alpha1/namespaces/drover-system/rollouts/base";
    let mut held = rollout();
    held.metadata.finalizers = Some(vec!["drover.dev/rollout".into()]);
    // What it would write about a NodeConfig that is not there is there already.
    let decision = decide(&Snapshot { rollout: held.clone(), hosts: vec![], ..snapshot() }, now());
    let Some(Request::WriteRollout(said)) = decision.request else { panic!("{decision:?}") };
    held.status = Some(*said);
    let (context, mut server) = testing::context(true);
    let writes = writes_for(&mut server, context, &[(ROLLOUT, serde_json::to_value(&held).unwrap())]).await;
    assert!(writes.is_empty(), "{writes:?}");
}
