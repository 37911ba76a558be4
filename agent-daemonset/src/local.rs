//! Without a cluster: a catalog from NodeConfigs in files, compiled as a master does it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use drover_apply::facts;
use drover_catalog::{Catalog, Digest, HostIdentity, RevisionRef, Sensitive};
use drover_core::{
    compile::{self, Subject},
    revision::{Content, DataValue},
    selector,
};
use drover_crds::NodeConfig;
use tracing::info;

use crate::{manifests::Manifests, one_shot};

/// What the UID of a host begins with that no cluster knows.
const UID_PREFIX: &str = "local-";

/// Compiles the catalog of the machine at a root from manifests. `labels` are those of its Host, for `hostSelector`.
pub(crate) fn catalog(paths: &[PathBuf], root: &Path, labels: &[(String, String)]) -> anyhow::Result<Catalog> {
    let manifests = Manifests::read(paths)?;
    if !manifests.left_out.is_empty() {
        info!(left_out = manifests.left_out.join(", "), "only NodeConfigs, ConfigMaps and Secrets are of use here");
    }
    let subject = subject(root, labels);
    if manifests.node_configs.is_empty() {
        bail!("there is no NodeConfig in what was named; a file or folder with one is wanted");
    }
    let selected = |config: &&NodeConfig| selector::matches(config.spec.host_selector.as_ref(), Some(&subject.labels));
    let mut contents = Vec::new();
    for config in manifests.node_configs.iter().filter(selected) {
        let content = content(config, &manifests)?;
        let node_config = config.metadata.name.clone().unwrap_or_default();
        let revision = content.name(&node_config).context("could not name the revision")?;
        contents.push((RevisionRef { node_config, revision }, content));
    }
    if contents.is_empty() {
        bail!(
            "no NodeConfig selects this machine; its labels are {}; add some by --label key=value, or take out the hostSelector",
            subject.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
        );
    }
    let revisions: Vec<_> = contents.iter().map(|(revision, content)| (revision.clone(), content)).collect();
    Ok(compile::compile(&subject, &revisions)?)
}

/// What a NodeConfig consists of, with the data that it reads; later layers win.
fn content(config: &NodeConfig, manifests: &Manifests) -> anyhow::Result<Content> {
    let mut data = BTreeMap::new();
    for source in &config.spec.data_from {
        if let Some(reference) = &source.config_map_ref {
            let name = &reference.name;
            let found = manifests.config_maps.iter().find(|map| map.metadata.name.as_ref() == Some(name));
            let map = found.with_context(|| missing("ConfigMap", name))?;
            for (key, value) in map.data.iter().flatten() {
                data.insert(key.clone(), DataValue { value: Sensitive::new(value), secret: false });
            }
        }
        if let Some(reference) = &source.secret_ref {
            let name = &reference.name;
            let found = manifests.secrets.iter().find(|secret| secret.metadata.name.as_ref() == Some(name));
            let secret = found.with_context(|| missing("Secret", name))?;
            for (key, value) in secret.data.iter().flatten() {
                let text = String::from_utf8(value.0.clone());
                let text = text.map_err(|_| anyhow!("key {key} of Secret {name} is not text (UTF-8)"))?;
                data.insert(key.clone(), DataValue { value: Sensitive::new(text), secret: true });
            }
            // As the API server has it, stringData wins over data.
            for (key, value) in secret.string_data.iter().flatten() {
                data.insert(key.clone(), DataValue { value: Sensitive::new(value), secret: true });
            }
        }
    }
    let (resources, interval_seconds) = (config.spec.resources.clone(), config.spec.resolved_interval_seconds());
    Ok(Content { resources, interval_seconds, data })
}

fn missing(kind: &str, name: &str) -> String {
    format!("dataFrom names {kind} {name}, which is not among what was named; add its file")
}

/// Whether a catalog was compiled on the machine itself.
pub(crate) fn is_local(catalog: &Catalog) -> bool {
    catalog.host.uid.starts_with(UID_PREFIX)
}

/// The machine, with the labels that a Node of it would have.
fn subject(root: &Path, labels: &[(String, String)]) -> Subject {
    let facts = facts::gather(root, one_shot::is_booted(root));
    let name = match facts.networking.hostname.as_str() {
        "" => "localhost",
        name => name,
    }
    .to_owned();
    let usual = [("kubernetes.io/hostname", name.clone()), ("kubernetes.io/os", "linux".to_owned())];
    let usual = usual.map(|(key, value)| (key.to_owned(), value));
    Subject {
        host: HostIdentity {
            uid: format!("{UID_PREFIX}{}", Digest::of(facts.machine_id.as_bytes()).short(12)),
            name: name.clone(),
        },
        node_name: name,
        labels: usual.into_iter().chain(labels.iter().cloned()).collect(),
        facts,
        generation: 0,
        reboot: None,
    }
}
