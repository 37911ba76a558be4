use drover_core::rollout::{NodeChange, Nodes, PodKey, Snapshot};
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

pub(super) fn snapshot() -> Snapshot {
    let mut host = Host::new("node-1", HostSpec { node_ref: NodeRef::default() });
    host.metadata.resource_version = Some("9".into());
    Snapshot {
        rollout: rollout(),
        node_config: None,
        revisions: [].into(),
        hosts: vec![host].into(),
        reported: None,
        own_node: None,
        costs: [].into(),
        budgets: vec![],
        ledgers: vec![],
        nodes: Nodes::default(),
        pods: [].into(),
        volumes: [].into(),
        load_balancers: [].into(),
        refused_evictions: [].into(),
        gates: [].into(),
        run_gates: vec![],
        jobs: [].into(),
        refused_jobs: [].into(),
        other_rollouts: [].into(),
        unanswered: [].into(),
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
async fn what_no_budget_says_is_said_in_words() {
    let mut terminating = status(403, "Forbidden", "pods is forbidden: unable to create new content in namespace x");
    terminating["details"] =
        json!({"causes": [{"reason": "NamespaceTerminating", "message": "namespace x is being terminated"}]});
    for (code, answer, words) in [
        (403, terminating, "its namespace is being deleted, which takes the pod with it"),
        (403, status(403, "Forbidden", "no right"), "its eviction is refused: no right"),
        (
            500,
            status(500, "InternalError", "This pod has more than one PodDisruptionBudget"),
            "its eviction is refused: This pod has",
        ),
    ] {
        let (outcome, _) = answered(Request::Evict(pod()), code, answer).await;
        let Outcome::Refused(_, why) = outcome else { panic!("not refused") };
        assert!(why.starts_with(words), "{why}");
    }
}

#[tokio::test]
async fn the_grace_period_of_the_spec_goes_with_evictions_and_deletions_and_only_this_very_pod_goes() {
    let spec = json!({"nodeConfigRef": {"name": "base"}, "disruption": {"drain": {"gracePeriodSeconds": 7}}});
    for (request, path, options) in [
        (Request::Evict(pod()), "/api/v1/namespaces/default/pods/web-1/eviction", "/deleteOptions"),
        (Request::DeletePod(pod()), "/api/v1/namespaces/default/pods/web-1", ""),
    ] {
        let (context, mut server) = testing::context(true);
        let mut snapshot = snapshot();
        snapshot.rollout.spec = serde_json::from_value(spec.clone()).unwrap();
        let answer = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        let carried = carry_out(&context, &snapshot, request);
        let serve = async {
            let asked = server.answer(200, answer).await;
            // A deletion is told of by an event.
            if asked.method == http::Method::DELETE {
                let event = server.answer(201, json!({"metadata": {}, "eventTime": null})).await;
                assert_eq!(event.body["reason"], "PodDeleted");
                assert!(event.body["note"].as_str().unwrap().starts_with("pod default/web-1 "), "{}", event.body);
            }
            asked
        };
        let (outcome, asked) = tokio::join!(carried, serve);
        assert!(matches!(outcome.unwrap(), Outcome::Done(None)));
        assert_eq!(asked.path, path);
        let options = asked.body.pointer(options).unwrap();
        assert_eq!((&options["gracePeriodSeconds"], &options["preconditions"]["uid"]), (&json!(7), &json!("u1")));
    }
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
    let shared = shared(context);
    let (action, writes) = server.serve(&[], reconcile(Arc::new(rollout()), shared)).await;
    assert_eq!(action.unwrap(), Action::await_change());
    assert!(writes.is_empty());
}

fn shared(context: Context) -> Arc<Shared> {
    Arc::new(Shared {
        gates: gates(&context),
        context,
        stop: tokio_util::sync::CancellationToken::new(),
        costs: cost::Costs::default(),
        load_balancers: load_balancer::LoadBalancers::default(),
        memories: Mutex::default(),
    })
}

fn gates(context: &Context) -> Gates {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Gates::new(context.client.clone(), context.namespace.clone()).unwrap()
}

async fn writes_for(
    server: &mut ApiServer,
    context: Context,
    objects: &[(&str, serde_json::Value)],
) -> Vec<testing::Asked> {
    let shared = shared(context);
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
    let decision = decide(&Snapshot { rollout: held.clone(), hosts: vec![].into(), ..snapshot() }, now());
    let Some(Request::WriteRollout(said)) = decision.request else { panic!("{decision:?}") };
    held.status = Some(*said);
    let (context, mut server) = testing::context(true);
    let writes = writes_for(&mut server, context, &[(ROLLOUT, serde_json::to_value(&held).unwrap())]).await;
    assert!(writes.is_empty(), "{writes:?}");
}

#[tokio::test]
async fn a_further_machine_is_begun_on_what_was_read_for_it_and_not_on_what_was_known() {
    const OURS: &str = "/apis/drover.dev/v1alpha1/namespaces/drover-system";
    let (rollout_path, config_path) = (format!("{OURS}/rollouts/base"), format!("{OURS}/nodeconfigs/base"));
    let hosts_path = format!("{OURS}/hosts");
    let mut held = rollout();
    held.metadata.uid = Some("r1".into());
    held.metadata.finalizers = Some(vec!["drover.dev/rollout".into()]);
    held.status = Some(
        serde_json::from_value(json!({
            "run": {"number": 1, "revision": "base-1", "generation": 0, "startedAt": "2026-01-01T00:00:00Z"},
            "stage": {"batch": 0, "step": "Hosts", "since": "2026-01-01T00:00:00Z"},
        }))
        .unwrap(),
    );
    let config = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "base"},
        "spec": {"resources": []}, "status": {"revision": "base-1"},
    });
    let host = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Host",
        "metadata": {"name": "node-1", "uid": "h1", "resourceVersion": "5"},
        "spec": {"nodeRef": {"name": "node-1", "uid": "n1"}}, "status": {},
    });
    let node = |version: &str, ready: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "node-1", "uid": "n1", "resourceVersion": version},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": null}]},
        })
    };
    for (ready, begun) in [("True", true), ("False", false)] {
        let (context, mut server) = testing::context(true);
        context.fleet.observe_host(serde_json::from_value(host.clone()).unwrap());
        // It was ready when the watch last told of it.
        context.fleet.observe_node(serde_json::from_value(node("6", "True")).unwrap());
        let objects = [
            (rollout_path.as_str(), serde_json::to_value(&held).unwrap()),
            (config_path.as_str(), config.clone()),
            (hosts_path.as_str(), testing::list(std::slice::from_ref(&host))),
            ("/api/v1/nodes", testing::list(&[node("7", ready)])),
            ("/api/v1/nodes/node-1", node("7", ready)),
        ];
        let shared = shared(context);
        let reconciled = tokio::time::timeout(Duration::from_secs(3), reconcile(Arc::new(held.clone()), shared));
        let (_, writes) = server.serve(&objects, reconciled).await;
        let admitted =
            |asked: &testing::Asked| asked.body["status"]["inFlight"].as_array().is_some_and(|all| !all.is_empty());
        assert_eq!(writes.iter().any(admitted), begun, "Ready: {ready}");
        assert!(!writes.is_empty());
    }
}
