//! Reads what a NodeConfig refers to, the machines that it is for, and the revisions that are kept.

use std::collections::BTreeMap;

use drover_catalog::Sensitive;
use drover_core::{
    revision::{Content, DataValue, Stored},
    selector,
};
use drover_crds::{Host, NodeConfig, NodeConfigSpec, Rollout, keys};
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{ConfigMap, Secret},
};
use kube::{Api, ResourceExt, api::ListParams};

use crate::context::Context;

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read ConfigMap {0}")]
    ConfigMap(String, #[source] kube::Error),
    #[error("cannot read Secret {0}")]
    Secret(String, #[source] kube::Error),
    #[error("cannot list {0}")]
    List(&'static str, #[source] kube::Error),
}

/// Everything that is to be known of a NodeConfig.
pub(super) struct Gathered {
    pub(super) input: Input,
    /// The machines that it is for, by name.
    pub(super) hosts: Vec<Host>,
    pub(super) rollouts: Vec<Rollout>,
    pub(super) revisions: Revisions,
}

/// What the newest revision would consist of.
pub(super) enum Input {
    Content(Content),
    /// Something is not there; said in words.
    Missing(String),
}

/// The revisions of all NodeConfigs that are kept.
pub(super) struct Revisions {
    pub(super) objects: Vec<ControllerRevision>,
    contents: BTreeMap<String, Content>,
}

impl Revisions {
    /// What a revision consists of.
    pub(super) fn content(&self, revision: &str) -> Option<&Content> {
        self.contents.get(revision)
    }

    /// The revisions of a NodeConfig, in the order in which they were made.
    pub(super) fn of(&self, node_config: &str) -> Vec<&ControllerRevision> {
        let ours = |revision: &&ControllerRevision| {
            revision.labels().get(keys::NODE_CONFIG_LABEL).is_some_and(|label| label == node_config)
        };
        let mut revisions: Vec<_> = self.objects.iter().filter(ours).collect();
        revisions.sort_by_key(|revision| revision.revision);
        revisions
    }
}

pub(super) async fn gather(context: &Context, config: &NodeConfig) -> Result<Gathered, Error> {
    let (client, namespace) = (&context.client, context.namespace.as_str());
    let everything = ListParams::default();
    let hosts: Api<Host> = Api::namespaced(client.clone(), namespace);
    let mut hosts = hosts.list(&everything).await.map_err(|error| Error::List("Hosts", error))?.items;
    hosts.retain(|host| selector::matches(config.spec.host_selector.as_ref(), host.metadata.labels.as_ref()));
    hosts.sort_by_key(ResourceExt::name_any);
    let rollouts: Api<Rollout> = Api::namespaced(client.clone(), namespace);
    let rollouts = rollouts.list(&everything).await.map_err(|error| Error::List("Rollouts", error))?.items;
    let revisions = revisions(context).await?;
    Ok(Gathered { input: input(context, config).await?, hosts, rollouts, revisions })
}

async fn revisions(context: &Context) -> Result<Revisions, Error> {
    let labelled = ListParams::default().labels(keys::NODE_CONFIG_LABEL);
    let objects: Api<ControllerRevision> = Api::namespaced(context.client.clone(), &context.namespace);
    let objects = objects.list(&labelled).await.map_err(|error| Error::List("ControllerRevisions", error))?.items;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let secrets = secrets.list(&labelled).await.map_err(|error| Error::List("Secrets", error))?.items;
    let values: BTreeMap<String, BTreeMap<String, Sensitive>> = secrets
        .into_iter()
        .map(|secret| {
            let data = secret.data.clone().unwrap_or_default();
            let text = data
                .into_iter()
                .filter_map(|(key, value)| Some((key, Sensitive::new(String::from_utf8(value.0).ok()?))));
            (secret.name_any(), text.collect())
        })
        .collect();
    let none = BTreeMap::new();
    let contents = objects.iter().filter_map(|object| {
        let name = object.name_any();
        let stored: Stored = serde_json::from_value(object.data.as_ref()?.0.clone()).ok()?;
        let content = stored.restore(values.get(&name).unwrap_or(&none))?;
        Some((name, content))
    });
    Ok(Revisions { contents: contents.collect(), objects })
}

/// Merges the layers of data; later ones win.
async fn input(context: &Context, config: &NodeConfig) -> Result<Input, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let mut data = BTreeMap::new();
    for source in &config.spec.data_from {
        if let Some(reference) = &source.config_map_ref {
            let name = &reference.name;
            let map = maps.get_opt(name).await.map_err(|error| Error::ConfigMap(name.clone(), error))?;
            let Some(map) = map else {
                return Ok(Input::Missing(format!("dataFrom names ConfigMap {name}, which is not there")));
            };
            for (key, value) in map.data.unwrap_or_default() {
                data.insert(key, DataValue { value: Sensitive::new(value), secret: false });
            }
        }
        if let Some(reference) = &source.secret_ref {
            let name = &reference.name;
            let secret = secrets.get_opt(name).await.map_err(|error| Error::Secret(name.clone(), error))?;
            let Some(secret) = secret else {
                return Ok(Input::Missing(format!("dataFrom names Secret {name}, which is not there")));
            };
            for (key, value) in secret.data.unwrap_or_default() {
                let Ok(value) = String::from_utf8(value.0) else {
                    return Ok(Input::Missing(format!("key {key} of Secret {name} is not text (UTF-8)")));
                };
                data.insert(key, DataValue { value: Sensitive::new(value), secret: true });
            }
        }
    }
    Ok(Input::Content(Content {
        resources: config.spec.resources.clone(),
        interval_seconds: config.spec.resolved_interval_seconds(),
        data,
    }))
}

/// The ConfigMaps that a NodeConfig names.
pub(super) fn config_maps(spec: &NodeConfigSpec) -> impl Iterator<Item = &str> {
    spec.data_from.iter().filter_map(|source| Some(source.config_map_ref.as_ref()?.name.as_str()))
}

/// The Secrets that a NodeConfig names.
pub(super) fn secrets(spec: &NodeConfigSpec) -> impl Iterator<Item = &str> {
    spec.data_from.iter().filter_map(|source| Some(source.secret_ref.as_ref()?.name.as_str()))
}
