//! Reads what a NodeConfig refers to, the machines that it is for, and the revisions that are kept.

use std::{collections::BTreeMap, sync::Arc};

use drover_catalog::SensitiveBytes;
use drover_core::{
    revision::{Content, Stored},
    selector,
    sources::{self, Missing, Objects},
};
use drover_crds::{Host, NodeConfig, Rollout, keys};
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
    /// The NodeConfig as it was read for this.
    pub(super) config: Arc<NodeConfig>,
    /// What the newest revision would consist of.
    pub(super) input: Result<Content, Missing>,
    /// The machines that it is for, by name, without their facts.
    pub(super) hosts: Vec<Arc<Host>>,
    /// All NodeConfigs, this one among them.
    pub(super) configs: Vec<NodeConfig>,
    pub(super) rollouts: Vec<Rollout>,
    pub(super) revisions: Revisions,
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

    /// The revision of a NodeConfig that has this content already, whatever scheme it was named by: the one that is
    /// preferred, else the newest.
    pub(super) fn same_as(&self, node_config: &str, content: &Content, preferred: Option<&str>) -> Option<String> {
        let is_same = |name: &String| self.content(name).is_some_and(|kept| kept.is_same_as(content));
        let mut names: Vec<String> = self.of(node_config).into_iter().map(ResourceExt::name_any).collect();
        names.sort_by_key(|name| Some(name.as_str()) == preferred);
        names.into_iter().rev().find(is_same)
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

pub(super) async fn gather(context: &Context, known: &Arc<NodeConfig>) -> Result<Gathered, Error> {
    let (client, namespace) = (&context.client, context.namespace.as_str());
    let everything = ListParams::default();
    let configs: Api<NodeConfig> = Api::namespaced(client.clone(), namespace);
    let configs = configs.list(&everything).await.map_err(|error| Error::List("NodeConfigs", error))?.items;
    // What is known can be behind.
    let read = configs.iter().find(|other| other.metadata.uid == known.metadata.uid);
    let config = read.map_or_else(|| Arc::clone(known), |read| Arc::new(read.clone()));
    let config = &config;
    let mut hosts = context.fleet.hosts.all();
    hosts.retain(|host| is_for(config, host));
    let rollouts: Api<Rollout> = Api::namespaced(client.clone(), namespace);
    let rollouts = rollouts.list(&everything).await.map_err(|error| Error::List("Rollouts", error))?.items;
    let revisions = revisions(context).await?;
    let input = sources::content(&config.spec, &objects(context, config).await?);
    Ok(Gathered { config: Arc::clone(config), input, hosts, configs, rollouts, revisions })
}

/// How many machines are whole in memory at once.
const PAGE: u32 = 250;

/// The next machines that a NodeConfig selects, with their facts, and where to go on.
pub(super) async fn next_hosts(
    context: &Context,
    config: &NodeConfig,
    from: Option<String>,
) -> Result<(Vec<Host>, Option<String>), Error> {
    let api: Api<Host> = Api::namespaced(context.client.clone(), &context.namespace);
    let params = ListParams { continue_token: from, ..ListParams::default().limit(PAGE) };
    let page = api.list(&params).await.map_err(|error| Error::List("Hosts", error))?;
    let mut hosts = page.items;
    hosts.retain(|host| is_for(config, host));
    Ok((hosts, page.metadata.continue_.filter(|token| !token.is_empty())))
}

fn is_for(config: &NodeConfig, host: &Host) -> bool {
    selector::matches(config.spec.host_selector.as_ref(), host.metadata.labels.as_ref())
}

async fn revisions(context: &Context) -> Result<Revisions, Error> {
    let labelled = ListParams::default().labels(keys::NODE_CONFIG_LABEL);
    let objects: Api<ControllerRevision> = Api::namespaced(context.client.clone(), &context.namespace);
    let objects = objects.list(&labelled).await.map_err(|error| Error::List("ControllerRevisions", error))?.items;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let secrets = secrets.list(&labelled).await.map_err(|error| Error::List("Secrets", error))?.items;
    let values: BTreeMap<String, BTreeMap<String, SensitiveBytes>> = secrets
        .into_iter()
        .map(|secret| {
            let data = secret.data.clone().unwrap_or_default();
            (secret.name_any(), data.into_iter().map(|(key, value)| (key, SensitiveBytes::new(value.0))).collect())
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

/// The objects that a NodeConfig refers to, as far as they are there.
async fn objects(context: &Context, config: &NodeConfig) -> Result<Objects, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let names = sources::names(&config.spec);
    let mut objects = Objects::default();
    for name in names.config_maps {
        let map = maps.get_opt(&name).await.map_err(|error| Error::ConfigMap(name.clone(), error))?;
        objects.config_maps.extend(map.map(|map| (name, map)));
    }
    for name in names.secrets {
        let secret = secrets.get_opt(&name).await.map_err(|error| Error::Secret(name.clone(), error))?;
        objects.secrets.extend(secret.map(|secret| (name, secret)));
    }
    Ok(objects)
}
