//! An application that must not notice a Rollout: the one of `config/samples/web.yaml`, three pods with a budget.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    Fleet,
    cluster::{delete, objects_of},
    fleet::is_serving,
    record::Record,
    wait::{SOON, eventually, until},
};

const NAMESPACE: &str = "default";
const NAME: &str = "web";
const PODS: &str = "app.kubernetes.io/name=web";
const REPLICAS: i32 = 3;

/// The application, running.
pub struct Web {
    deployments: Api<Deployment>,
    budgets: Api<PodDisruptionBudget>,
    pods: Api<Pod>,
    services: Api<Service>,
}

/// The application's pods at one moment, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// All that are there.
    pub all: BTreeSet<String>,
    /// Those that serve.
    pub serving: BTreeSet<String>,
}

impl Web {
    /// Starts it with a budget that lets one pod go at a time, and waits until all of it serves.
    pub async fn start(fleet: &Fleet) -> Self {
        let client = &fleet.cluster.client;
        let web = Self {
            deployments: Api::namespaced(client.clone(), NAMESPACE),
            budgets: Api::namespaced(client.clone(), NAMESPACE),
            pods: Api::namespaced(client.clone(), NAMESPACE),
            services: Api::namespaced(client.clone(), NAMESPACE),
        };
        for object in objects_of("config/samples/web.yaml") {
            match object["kind"].as_str() {
                Some("Deployment") => drop(fleet.cluster.apply(&web.deployments, &object).await),
                Some("PodDisruptionBudget") => drop(fleet.cluster.apply(&web.budgets, &object).await),
                Some("Service") => drop(fleet.cluster.apply(&web.services, &object).await),
                kind => panic!("config/samples/web.yaml has a {kind:?}"),
            }
        }
        web.is_whole().await;
        web
    }

    /// Waits until all pods serve and the budget knows.
    pub async fn is_whole(&self) {
        until(&self.deployments, NAME, "available", SOON, |web| {
            let status = web.status.as_ref()?;
            (status.available_replicas == Some(REPLICAS) && status.replicas == Some(REPLICAS)).then_some(())
        })
        .await;
        self.budget_is_known().await;
    }

    /// The port of each node at which the application answers.
    pub async fn node_port(&self) -> i32 {
        let patch = Patch::Merge(json!({"spec": {"type": "NodePort"}}));
        let service = self.services.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        ports.first().and_then(|port| port.node_port).unwrap()
    }

    /// How many pods must serve at every moment.
    pub async fn keep(&self, pods: i32) {
        let patch = Patch::Merge(json!({"spec": {"minAvailable": pods}}));
        self.budgets.patch(NAME, &PatchParams::default(), &patch).await.unwrap();
        self.budget_is_known().await;
    }

    /// Writes down which pods are there and which of them serve, from now on.
    pub async fn record(&self) -> Record<Moment> {
        Record::start(self.pods.clone(), PODS, |pods| Moment {
            all: pods.keys().cloned().collect(),
            serving: pods.iter().filter(|(_, pod)| is_serving(pod)).map(|(name, _)| name.clone()).collect(),
        })
        .await
    }

    async fn budget_is_known(&self) {
        until(&self.budgets, NAME, "known to the disruption controller", SOON, |budget| {
            let status = budget.status.as_ref()?;
            let known =
                status.observed_generation == budget.metadata.generation && status.current_healthy == Some(REPLICAS);
            known.then_some(())
        })
        .await;
    }
}

/// Ends it, and waits until its pods are gone.
pub(crate) async fn remove(fleet: &Fleet) {
    let client = &fleet.cluster.client;
    delete(&Api::<PodDisruptionBudget>::namespaced(client.clone(), NAMESPACE), NAME).await;
    delete(&Api::<Deployment>::namespaced(client.clone(), NAMESPACE), NAME).await;
    delete(&Api::<Service>::namespaced(client.clone(), NAMESPACE), NAME).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    eventually("the web is gone", SOON, async || {
        let left = pods.list(&ListParams::default().labels(PODS)).await.map_err(|error| error.to_string())?.items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} pods are left")) }
    })
    .await;
}

/// Rollout fields that take nodes out of service as an administrator would; add what the story needs.
pub fn disruption() -> Value {
    json!({"loadBalancer": {"settleSeconds": 1}, "drain": {"timeoutSeconds": 60}})
}
