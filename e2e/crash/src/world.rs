//! A world: a namespace and Nodes of its own on the shared control plane, made anew for each run.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use futures::future::try_join_all;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    batch::v1::{CronJob, Job},
    coordination::v1::Lease,
    core::v1::{Namespace, Node},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    agents::Agents,
    history::{History, Kind, Log},
};

/// How long anything may take that a scenario waits for. A busy machine must make it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

const MANAGER: &str = "drover-crash";
const WORLD_LABEL: &str = "drover.dev/crash-world";
/// The most machines that a scenario has.
pub(crate) const MOST_MACHINES: u32 = 3;

/// What runs on the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// Nothing.
    None,
    /// A Deployment of three pods over all machines, of which one must be available.
    Spread,
    /// A Deployment of one pod on machine 1, which must not be disrupted.
    Stubborn,
}

/// A namespace, its Nodes, and who plays their masters and agents.
pub(crate) struct World {
    client: Client,
    /// What operators reach the API server by.
    pub(crate) upstream: Client,
    pub(crate) namespace: String,
    pub(crate) node_label: String,
    pub(crate) history: History,
    pub(crate) agents: Agents,
    runs: Mutex<Option<App>>,
}

impl World {
    /// Makes a world; nothing is in it yet.
    pub(crate) async fn start(client: &Client, upstream: &Client, index: usize) -> anyhow::Result<Self> {
        let namespace = format!("crash-{index}");
        let node_label = format!("{WORLD_LABEL}={namespace}");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        namespaces.patch(&namespace, &applying(), &Patch::Apply(body)).await?;
        let history = History::start(client, &namespace, &node_label).await?;
        let agents = Agents::start(client, &namespace, history.changes());
        let (client, upstream) = (client.clone(), upstream.clone());
        Ok(Self { client, upstream, namespace, node_label, history, agents, runs: Mutex::new(None) })
    }

    /// Everything is gone that a run leaves, and the machines are in service.
    pub(crate) async fn reset(&self, machines: u32, app: App) -> anyhow::Result<()> {
        self.agents.converge();
        let log = self.history.log();
        let ours = [Kind::Rollout, Kind::NodeConfig, Kind::Host];
        for kind in ours {
            let names: Vec<String> = log.all(kind).map(|(name, _)| name.to_owned()).collect();
            try_join_all(names.iter().map(|name| self.discard(kind, name))).await?;
        }
        let labelled = ListParams::default().labels("drover.dev/node-config");
        self.api::<ControllerRevision>().delete_collection(&DeleteParams::default(), &labelled).await?;
        // With their pods: whoever owned them is gone.
        self.api::<Job>().delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        self.free_lease().await?;
        self.undeploy(app).await?;
        let wanted: Vec<String> = (1..=machines).map(|number| self.machine(number)).collect();
        for (name, _) in log.all(Kind::Node).filter(|(name, _)| !wanted.iter().any(|wanted| wanted == name)) {
            self.delete(Kind::Node, name).await?;
        }
        for number in 1..=machines {
            self.put_back(&log, number).await?;
        }
        self.deploy(app).await?;
        let wanted = app;
        self.history
            .until("the world is empty", PATIENCE, |log| {
                let gone = |kind: &Kind| log.all(*kind).next().is_none();
                let empty = ours.iter().chain(&[Kind::Job]).all(gone);
                (empty && self.machines_serve(log, machines) && runs(log, wanted)).then_some(())
            })
            .await
    }

    /// The name of a machine.
    pub(crate) fn machine(&self, number: u32) -> String {
        format!("{}-{number}", self.namespace)
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// The Lease is free, as it is when its holder's time is over: nobody waits for that here.
    pub(crate) async fn free_lease(&self) -> anyhow::Result<()> {
        gone(self.api::<Lease>().delete("drover-operator", &DeleteParams::default()).await.map(drop))
    }

    /// Server-side apply of one object.
    pub(crate) async fn apply(&self, kind: Kind, object: Value) -> anyhow::Result<()> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let api = kind.api(self.client.clone(), &self.namespace);
        api.patch(&name, &applying(), &Patch::Apply(object)).await.with_context(|| format!("cannot apply {name}"))?;
        Ok(())
    }

    /// A CronJob to make Jobs of, which by itself makes none.
    pub(crate) async fn apply_task(&self, name: &str) -> anyhow::Result<()> {
        let pod = json!({
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "containers": [{"name": "task", "image": "example.invalid/task"}],
        });
        let task = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
            "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": {"spec": pod}}}},
        });
        self.api::<CronJob>().patch(name, &applying(), &Patch::Apply(task)).await?;
        Ok(())
    }

    /// Changes an object as a person does.
    pub(crate) async fn patch(&self, kind: Kind, name: &str, patch: Value) -> anyhow::Result<DynamicObject> {
        let api = kind.api(self.client.clone(), &self.namespace);
        Ok(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Deletes an object; what others keep it for is theirs.
    pub(crate) async fn delete(&self, kind: Kind, name: &str) -> anyhow::Result<()> {
        gone(kind.api(self.client.clone(), &self.namespace).delete(name, &DeleteParams::default()).await.map(drop))
    }

    async fn discard(&self, kind: Kind, name: &str) -> anyhow::Result<()> {
        self.delete(kind, name).await?;
        let patch = json!({"metadata": {"finalizers": null}});
        let api = kind.api(self.client.clone(), &self.namespace);
        gone(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
    }

    /// A machine joins: Ready, as its kubelet would say.
    pub(crate) async fn add_machine(&self, number: u32) -> anyhow::Result<()> {
        let name = self.machine(number);
        let size = json!({"cpu": "8", "memory": "32Gi", "pods": "110"});
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": name,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {WORLD_LABEL: self.namespace, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
            },
            "status": {
                "allocatable": size, "capacity": size,
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            },
        });
        self.nodes().create(&kube::api::PostParams::default(), &serde_json::from_value(node)?).await?;
        Ok(())
    }

    /// A machine leaves.
    pub(crate) async fn remove_machine(&self, number: u32) -> anyhow::Result<()> {
        gone(self.nodes().delete(&self.machine(number), &DeleteParams::default()).await.map(drop))
    }

    async fn put_back(&self, log: &Log, number: u32) -> anyhow::Result<()> {
        let name = &self.machine(number);
        match log.get(Kind::Node, name) {
            None => self.add_machine(number).await,
            Some(node) if service(node) != service(&Value::Null) => {
                let patch = json!({
                    "spec": {"unschedulable": null},
                    "metadata": {
                        "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": null},
                        "annotations": {"drover.dev/cordoned-by": null, "drover.dev/excluded-by": null},
                    },
                });
                self.patch(Kind::Node, name, patch).await?;
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    fn machines_serve(&self, log: &Log, machines: u32) -> bool {
        let there: BTreeSet<&str> = log.all(Kind::Node).map(|(name, _)| name).collect();
        let wanted: Vec<String> = (1..=machines).map(|number| self.machine(number)).collect();
        let ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array();
            conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        there.iter().copied().eq(wanted.iter().map(String::as_str))
            && log.all(Kind::Node).all(|(_, node)| service(node) == service(&Value::Null) && ready(node))
    }

    /// Ends another application, while its machines are still there.
    async fn undeploy(&self, app: App) -> anyhow::Result<()> {
        let mut runs = self.runs.lock().await;
        if *runs == Some(app) {
            return Ok(());
        }
        gone(self.api::<Deployment>().delete("web", &DeleteParams::default()).await.map(drop))?;
        gone(self.api::<PodDisruptionBudget>().delete("web", &DeleteParams::default()).await.map(drop))?;
        *runs = None;
        let gone = |log: &Log| log.all(Kind::Pod).next().is_none().then_some(());
        self.history.until("the pods are gone", PATIENCE, gone).await
    }

    async fn deploy(&self, app: App) -> anyhow::Result<()> {
        let mut runs = self.runs.lock().await;
        if let (None, Some((deployment, budget))) = (*runs, self.manifests(app)) {
            self.api::<PodDisruptionBudget>().patch("web", &applying(), &Patch::Apply(budget)).await?;
            self.api::<Deployment>().patch("web", &applying(), &Patch::Apply(deployment)).await?;
        }
        *runs = Some(app);
        Ok(())
    }

    fn manifests(&self, app: App) -> Option<(Value, Value)> {
        let (replicas, selector, limit) = match app {
            App::None => return None,
            App::Spread => (3, json!({WORLD_LABEL: self.namespace}), json!({"minAvailable": 1})),
            App::Stubborn => (1, json!({"kubernetes.io/hostname": self.machine(1)}), json!({"maxUnavailable": 0})),
        };
        let labels = json!({"app": "web"});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "nodeSelector": selector,
                        "automountServiceAccountToken": false,
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{"name": "web", "image": "example.invalid/web"}],
                        "topologySpreadConstraints": [{
                            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": labels},
                        }],
                    },
                },
            },
        });
        let mut budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
            "spec": limit,
        });
        budget["spec"]["selector"] = json!({"matchLabels": labels});
        Some((deployment, budget))
    }
}

/// Whether the pods of the application run.
fn runs(log: &Log, app: App) -> bool {
    let wanted = match app {
        App::None => 0,
        App::Spread => 3,
        App::Stubborn => 1,
    };
    let serves = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
        ready && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let pods: Vec<&Value> = log.all(Kind::Pod).map(|(_, pod)| pod).collect();
    pods.len() == wanted && pods.into_iter().all(serves)
}

/// What takes a Node out of service, and says who did.
pub(crate) fn service(node: &Value) -> Value {
    let taints: Vec<&Value> =
        node["spec"]["taints"].as_array().into_iter().flatten().map(|taint| &taint["key"]).collect();
    json!({
        "cordoned": node["spec"]["unschedulable"] == true,
        "excluded": node["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"],
        "cordonedBy": node["metadata"]["annotations"]["drover.dev/cordoned-by"],
        "excludedBy": node["metadata"]["annotations"]["drover.dev/excluded-by"],
        "taints": taints,
    })
}

fn applying() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

/// That it is not there is as good.
fn gone(result: kube::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => Ok(other?),
    }
}
