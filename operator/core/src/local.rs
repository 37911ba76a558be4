//! A machine's catalog without a master: from NodeConfigs, ConfigMaps and Secrets that somebody has at hand, such as in a
//! folder. It is made of the same parts as the operator's and the masters', so it is the same catalog, but for the names
//! of revisions that hold secrets, which have no key here.

use drover_catalog::{Catalog, RevisionRef};
use drover_crds::NodeConfig;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::{
    compile::{self, CompileError, Subject},
    metadata,
    revision::Content,
    selector,
    sources::{self, Missing, Objects},
};

/// Why there is no catalog.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Something that a NodeConfig refers to is not among what was given.
    #[error("NodeConfig {node_config}: {missing}")]
    Missing {
        /// The NodeConfig.
        node_config: String,
        /// What.
        missing: Missing,
    },
    /// A NodeConfig is wrong on any machine.
    #[error("NodeConfig {node_config}: {problem}")]
    Invalid {
        /// The NodeConfig.
        node_config: String,
        /// Why.
        problem: CompileError,
    },
    /// It does not compile for this machine.
    #[error("{0}")]
    Compile(CompileError),
    /// The revision could not be named.
    #[error("the revision could not be written as JSON; this is a defect of Drover, please report it")]
    Name(#[source] serde_json::Error),
}

/// Makes the catalog of a machine from the NodeConfigs whose `hostSelector` matches the subject's labels. Namespaces play no
/// part: all that is given is taken for one. Of two ConfigMaps or Secrets of one name, the later counts.
pub fn assemble(
    configs: &[NodeConfig],
    config_maps: &[ConfigMap],
    secrets: &[Secret],
    subject: &Subject,
) -> Result<Catalog, AssembleError> {
    let objects = Objects {
        config_maps: config_maps.iter().map(|map| (metadata::name(&map.metadata).to_owned(), map.clone())).collect(),
        secrets: secrets.iter().map(|secret| (metadata::name(&secret.metadata).to_owned(), secret.clone())).collect(),
    };
    let ours = |config: &&NodeConfig| selector::matches(config.spec.host_selector.as_ref(), Some(&subject.labels));
    let mut contents: Vec<(RevisionRef, Content)> = Vec::new();
    for config in configs.iter().filter(ours) {
        let node_config = metadata::name(&config.metadata).to_owned();
        let content = sources::content(&config.spec, &objects)
            .map_err(|missing| AssembleError::Missing { node_config: node_config.clone(), missing })?;
        compile::check(&content)
            .map_err(|problem| AssembleError::Invalid { node_config: node_config.clone(), problem })?;
        let revision = content.name(&node_config, None).map_err(AssembleError::Name)?;
        contents.push((RevisionRef { node_config, revision }, content));
    }
    let revisions: Vec<_> = contents.iter().map(|(revision, content)| (revision.clone(), content)).collect();
    compile::compile(subject, &revisions).map_err(AssembleError::Compile)
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Facts, HostIdentity, Part};
    use serde_json::{Value, json};

    use super::*;

    fn subject() -> Subject {
        Subject {
            host: HostIdentity { name: "node-1".into(), uid: String::new() },
            node_name: "node-1".into(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            facts: Facts::default(),
            generation: 1,
            reboot: None,
            commands: vec![],
        }
    }

    fn config(name: &str, zone: &str, data_from: &Value, template: &str) -> NodeConfig {
        serde_json::from_value(json!({
            "apiVersion": "drover.dev/v1alpha1", "kind": "NodeConfig", "metadata": {"name": name},
            "spec": {
                "hostSelector": {"matchLabels": {"zone": zone}}, "dataFrom": data_from,
                "resources": [{"name": "f", "file": {"path": format!("/{name}"), "template": template}}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_node_configs_of_the_machine_are_compiled_with_their_data() {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "herd"}, "data": {"owner": "us"}})).unwrap();
        let door: Secret =
            serde_json::from_value(json!({"metadata": {"name": "door"}, "stringData": {"key": "hunter2"}})).unwrap();
        let from = json!([{"configMapRef": {"name": "herd"}}, {"secretRef": {"name": "door"}}]);
        let configs =
            [config("here", "a", &from, "{{ data.owner }} {{ data.key }}"), config("there", "b", &from, "{{ x }}")];
        let catalog = assemble(&configs, std::slice::from_ref(&map), &[door], &subject()).unwrap();
        assert!(catalog.is_intact() && catalog.resources.len() == 1 && catalog.resources[0].sensitive);
        let Part::File(file) = &catalog.resources[0].parts[0] else { panic!("a file") };
        assert_eq!(file.content.as_ref().unwrap().expose(), b"us hunter2");
        assert!(catalog.revisions[0].revision.starts_with("here-"));

        let error = assemble(&configs, &[map], &[], &subject()).unwrap_err().to_string();
        assert_eq!(error, "NodeConfig here: dataFrom names Secret door, which is not there");
        let broken = [config("here", "a", &json!([]), "{{ x }}")];
        let error = assemble(&broken, &[], &[], &subject()).unwrap_err().to_string();
        assert!(error.starts_with("NodeConfig here: f: its template reads `x`"), "{error}");
    }
}
