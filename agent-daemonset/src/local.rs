//! Without a cluster: a catalog from NodeConfigs in files, compiled as a master does it.

use anyhow::{anyhow, bail};
use drover_apply::{
    StateDir,
    facts::{Gathered, Gatherer},
};
use drover_catalog::{Catalog, Digest, HostIdentity};
use drover_core::{
    compile::Subject,
    local::{self, AssembleError},
};
use tracing::{info, warn};

use crate::{cli::ApplyOptions, manifests::Manifests, one_shot};

/// What the UID of a host begins with that no cluster knows.
const UID_PREFIX: &str = "local-";

/// Compiles the catalog of the machine at a root from manifests.
pub(crate) async fn catalog(options: &ApplyOptions, state: &StateDir) -> anyhow::Result<Catalog> {
    let manifests = Manifests::read(&options.files)?;
    if !manifests.left_out.is_empty() {
        info!(left_out = manifests.left_out.join(", "), "only NodeConfigs, ConfigMaps and Secrets are of use here");
    }
    let subject = subject(options, state).await;
    if manifests.node_configs.is_empty() {
        bail!("there is no NodeConfig in what was named; a file or folder with one is wanted");
    }
    let Manifests { node_configs, config_maps, secrets, left_out: _ } = &manifests;
    let catalog = local::assemble(node_configs, config_maps, secrets, &subject).map_err(|error| match error {
        AssembleError::Missing { .. } => anyhow!("{error} among what was named; name its file by -f as well"),
        error => error.into(),
    })?;
    if catalog.revisions.is_empty() {
        bail!(
            "no NodeConfig selects this machine; its labels are {}; add some by --label key=value, or take out the hostSelector",
            subject.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(catalog)
}

/// Whether a catalog was compiled on the machine itself.
pub(crate) fn is_local(catalog: &Catalog) -> bool {
    catalog.host.uid.starts_with(UID_PREFIX)
}

/// The machine, with the labels that a Node of it would have.
async fn subject(options: &ApplyOptions, state: &StateDir) -> Subject {
    let ApplyOptions { root, labels, facts_ttl, .. } = options;
    let booted = one_shot::is_booted(root);
    let gatherer = Gatherer { root, booted, state, ttl: facts_ttl.duration(), refresh: false };
    let Gathered { facts, warnings } = gatherer.gather().await;
    for warning in warnings {
        warn!("{warning}");
    }
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
        commands: vec![],
    }
}
