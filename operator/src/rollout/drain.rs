//! Reads what a drain looks at: the pods of a node, who keeps them, the budgets that protect them, and the volumes that are
//! still attached. Nothing is decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use drover_core::{
    rollout::{BudgetView, PodKeeper, PodKey, PodView},
    selector,
};
use drover_crds::{RolloutSpec, keys};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{Namespace, PersistentVolumeClaim, Pod},
        policy::v1::PodDisruptionBudget,
        storage::v1::VolumeAttachment,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Resource, ResourceExt, api::ListParams};

use super::gather::{Error, list};
use crate::context::Context;

/// What the drains of a Rollout have in common, read once for all of them.
pub(super) struct Drains<'a> {
    context: &'a Context,
    budgets: Vec<PodDisruptionBudget>,
    /// The labels of Namespaces, where a rule asks for them.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether a DaemonSet is there, by namespace, name and UID.
    daemon_sets: Mutex<BTreeMap<(String, String, String), bool>>,
}

impl<'a> Drains<'a> {
    pub(super) async fn read(context: &'a Context, spec: &RolloutSpec) -> Result<Self, Error> {
        let rules = spec.drain().map_or(&[][..], |drain| &drain.pod_rules);
        let mut namespaces = BTreeMap::new();
        if rules.iter().any(|rule| rule.namespace_selector.is_some()) {
            let found = list(&all::<Namespace>(context), "Namespaces", ListParams::default()).await?;
            let labels = |found: &Namespace| (found.name_any(), found.labels().clone());
            namespaces = found.iter().map(labels).collect();
        }
        let budgets = list(&all(context), "PodDisruptionBudgets", ListParams::default()).await?;
        Ok(Self { context, budgets, namespaces, daemon_sets: Mutex::default() })
    }

    /// The pods of a Node.
    pub(super) async fn pods(&self, node: String) -> Result<(String, Vec<PodView>), Error> {
        let mut views = vec![];
        for pod in pods_of(self.context, &node).await? {
            let keeper = self.keeper(&pod).await?;
            let namespace_labels = self.namespaces.get(&pod.namespace().unwrap_or_default()).cloned();
            let namespace_labels = namespace_labels.unwrap_or_default();
            views.push(PodView { namespace_labels, ..pod_view(&pod, keeper, &self.budgets) });
        }
        Ok((node, views))
    }

    async fn keeper(&self, pod: &Pod) -> Result<PodKeeper, Error> {
        if pod.annotations().contains_key(keys::MIRROR_POD_ANNOTATION) {
            return Ok(PodKeeper::Kubelet);
        }
        match pod.owner_references().iter().find(|owner| owner.controller == Some(true)) {
            Some(owner) if owner.kind == "DaemonSet" => {
                let is_there = self.has_daemon_set(&pod.namespace().unwrap_or_default(), owner).await?;
                Ok(if is_there { PodKeeper::DaemonSet } else { PodKeeper::GoneDaemonSet })
            }
            Some(_) => Ok(PodKeeper::Controller),
            None => Ok(PodKeeper::Nobody),
        }
    }

    async fn has_daemon_set(&self, namespace: &str, owner: &OwnerReference) -> Result<bool, Error> {
        let known = || self.daemon_sets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), owner.name.clone(), owner.uid.clone());
        let remembered = known().get(&key).copied();
        if let Some(is_there) = remembered {
            return Ok(is_there);
        }
        let sets: Api<DaemonSet> = Api::namespaced(self.context.client.clone(), namespace);
        let found = sets.get_metadata_opt(&owner.name).await;
        let found = found.map_err(|error| Error::Read("DaemonSet", format!("{namespace}/{}", owner.name), error))?;
        let is_there = found.is_some_and(|set| set.metadata.uid.as_ref() == Some(&owner.uid));
        known().insert(key, is_there);
        Ok(is_there)
    }
}

/// The volumes that are attached to each of these Nodes, without those of pods that stay on it: they stay attached.
pub(super) async fn volumes(context: &Context, nodes: &[String]) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let attachments: Vec<VolumeAttachment> = list(&all(context), "VolumeAttachments", ListParams::default()).await?;
    let mut volumes = BTreeMap::new();
    for node in nodes {
        let volume = |found: &VolumeAttachment| found.spec.source.persistent_volume_name.clone();
        let on_node = attachments.iter().filter(|found| found.spec.node_name == *node);
        let mut attached: BTreeSet<String> =
            on_node.map(|found| volume(found).unwrap_or_else(|| found.name_any())).collect();
        if !attached.is_empty() {
            for used in volumes_of(context, &pods_of(context, node).await?).await? {
                attached.remove(&used);
            }
        }
        volumes.insert(node.clone(), attached.into_iter().collect());
    }
    Ok(volumes)
}

fn all<K: Resource<DynamicType = ()>>(context: &Context) -> Api<K> {
    Api::all(context.client.clone())
}

async fn pods_of(context: &Context, node: &str) -> Result<Vec<Pod>, Error> {
    list(&all(context), "Pods", ListParams::default().fields(&format!("spec.nodeName={node}"))).await
}

/// The volumes that these pods use, as far as they have not finished.
async fn volumes_of(context: &Context, pods: &[Pod]) -> Result<BTreeSet<String>, Error> {
    let mut used = BTreeSet::new();
    for pod in pods.iter().filter(|pod| !is_finished(pod)) {
        let namespace = pod.namespace().unwrap_or_default();
        for claim in claims(pod) {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &namespace);
            let found = claims.get_opt(&claim).await;
            let found =
                found.map_err(|error| Error::Read("PersistentVolumeClaim", format!("{namespace}/{claim}"), error))?;
            used.extend(found.and_then(|found| found.spec?.volume_name));
        }
    }
    Ok(used)
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The claims that a pod uses, by name; a generic ephemeral volume's claim is named after the pod.
fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let ephemeral = volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name));
        volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone()).or(ephemeral)
    };
    volumes.filter_map(claim).collect()
}

fn pod_view(pod: &Pod, keeper: PodKeeper, budgets: &[PodDisruptionBudget]) -> PodView {
    let status = pod.status.as_ref();
    let namespace = pod.namespace().unwrap_or_default();
    let is_ready =
        |condition: &k8s_openapi::api::core::v1::PodCondition| condition.type_ == "Ready" && condition.status == "True";
    let selects = |budget: &&PodDisruptionBudget| {
        let wanted = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        // A budget without a selector selects nothing, other than elsewhere.
        budget.namespace().as_ref() == Some(&namespace)
            && wanted.is_some_and(|wanted| selector::matches(Some(wanted), Some(pod.labels())))
    };
    // The API server asks no budget about a pod that does not run yet.
    let is_pending = status.and_then(|status| status.phase.as_deref()) == Some("Pending");
    let mut asked: Vec<BudgetView> = budgets.iter().filter(|_| !is_pending).filter(selects).map(budget_view).collect();
    asked.sort_by(|a, b| a.name.cmp(&b.name));
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    PodView {
        key: PodKey { namespace, name: pod.name_any(), uid: pod.uid().unwrap_or_default() },
        keeper,
        finished: is_finished(pod),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        ready: status.iter().flat_map(|status| status.conditions.iter().flatten()).any(is_ready),
        empty_dir: volumes.any(|volume| volume.empty_dir.is_some()),
        labels: pod.labels().clone(),
        namespace_labels: BTreeMap::new(),
        budgets: asked,
    }
}

fn budget_view(budget: &PodDisruptionBudget) -> BudgetView {
    let status = budget.status.clone().unwrap_or_default();
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    BudgetView {
        name: budget.name_any(),
        allowed: status.disruptions_allowed.unwrap_or_default(),
        needs: status.desired_healthy.unwrap_or_default(),
        has: status.current_healthy.unwrap_or_default(),
        unhealthy_may_go: policy == Some("AlwaysAllow"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(extra: &Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "web-1", "namespace": "default", "uid": "u1", "labels": {"app": "web"}},
            "spec": {"containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        for part in ["metadata", "spec", "status"] {
            let added = extra.get(part).and_then(Value::as_object).cloned().unwrap_or_default();
            pod[part].as_object_mut().unwrap().extend(added);
        }
        serde_json::from_value(pod).unwrap()
    }

    fn budget(name: &str, namespace: &str, selector: &Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": namespace}, "spec": {"selector": selector},
            "status": {"disruptionsAllowed": 1, "desiredHealthy": 2, "currentHealthy": 3, "expectedPods": 3},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_has_the_budgets_of_its_namespace_that_select_it() {
        let web = json!({"matchLabels": {"app": "web"}});
        let budgets = [
            budget("b", "default", &web),
            budget("a", "default", &json!({})),
            budget("other", "default", &json!({"matchLabels": {"app": "db"}})),
            budget("elsewhere", "kube-system", &web),
            budget("nothing", "default", &Value::Null),
        ];
        let asked = |pod: &Pod| -> Vec<String> {
            pod_view(pod, PodKeeper::Controller, &budgets).budgets.into_iter().map(|budget| budget.name).collect()
        };
        assert_eq!(asked(&pod(&json!({}))), ["a", "b"]);
        assert!(asked(&pod(&json!({"status": {"phase": "Pending"}}))).is_empty(), "the API server asks none");
        let view = budget_view(&budgets[0]);
        assert_eq!((view.allowed, view.needs, view.has), (1, 2, 3));
    }

    #[test]
    fn a_pod_is_seen_as_the_api_server_has_it() {
        let seen = |extra: Value| pod_view(&pod(&extra), PodKeeper::Controller, &[]);
        let plain = seen(json!({}));
        assert_eq!((plain.ready, plain.finished, plain.terminating, plain.empty_dir), (true, false, false, false));
        assert!(seen(json!({"status": {"phase": "Failed"}})).finished);
        assert!(seen(json!({"metadata": {"deletionTimestamp": "2030-01-01T00:00:00Z"}})).terminating);
        assert!(seen(json!({"spec": {"containers": [], "volumes": [{"name": "a", "emptyDir": {}}]}})).empty_dir);
        assert!(!seen(json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})).ready);
    }

    #[test]
    fn the_claims_of_a_pod_are_those_it_names_and_those_named_after_it() {
        let volumes = json!([
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "c", "emptyDir": {}},
        ]);
        assert_eq!(claims(&pod(&json!({"spec": {"containers": [], "volumes": volumes}}))), ["data", "web-1-scratch"]);
    }
}
