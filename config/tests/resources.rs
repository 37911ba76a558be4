//! The examples of the reference of resource types.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;

use drover_catalog::{Facts, HostIdentity};
use drover_config::{definition::definitions, resources};
use drover_core::{compile::Subject, local};
use drover_crds::NodeConfigResource;
use serde_json::{Value, json};

/// The names of all types.
fn types() -> Vec<String> {
    let definitions = definitions().unwrap();
    let node_config = definitions.iter().find(|definition| definition.name().starts_with("nodeconfigs")).unwrap();
    let fields = &node_config.schema()["properties"]["spec"]["properties"]["resources"]["items"]["properties"];
    let objects = fields.as_object().unwrap().iter().filter(|(_, field)| field["properties"].is_object());
    objects.map(|(name, _)| name.clone()).collect()
}

#[test]
fn each_type_has_one_example_without_unknown_fields() {
    let examples: Vec<Value> = serde_saphyr::from_str(resources::EXAMPLES).unwrap();
    let types = types();
    let mut shown = Vec::new();
    for example in &examples {
        let resource: NodeConfigResource = serde_json::from_value(example.clone()).unwrap();
        // A field that the type does not have is lost on the way.
        assert_eq!(&serde_json::to_value(resource).unwrap(), example);
        shown.extend(example.as_object().unwrap().keys().filter(|field| types.contains(field)).cloned());
    }
    shown.sort();
    assert_eq!(shown, types);
    assert!(types.len() > 30, "{types:?}");
}

#[test]
fn the_examples_are_the_resources_of_one_node_config_that_compiles() {
    let resources: Value = serde_saphyr::from_str(resources::EXAMPLES).unwrap();
    let node_config = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "examples"},
        "spec": {"resources": resources},
    });
    let vendor = json!({"metadata": {"name": "vendor"}, "data": {
        "release.asc": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
        "ca.crt": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    }});
    let passwords = json!({"metadata": {"name": "passwords"}, "stringData": {"ann": "$6$salt$hash"}});
    // One resource is for the other family.
    for family in ["Debian", "RedHat"] {
        let mut facts = Facts::default();
        facts.os.family = family.to_owned();
        let subject = Subject {
            host: HostIdentity { name: "node-1".to_owned(), uid: "1".to_owned() },
            node_name: "node-1".to_owned(),
            labels: BTreeMap::new(),
            facts,
            generation: 1,
            reboot: None,
            commands: vec![],
        };
        let catalog = local::assemble(
            &[serde_json::from_value(node_config.clone()).unwrap()],
            &[serde_json::from_value(vendor.clone()).unwrap()],
            &[serde_json::from_value(passwords.clone()).unwrap()],
            &subject,
        );
        let catalog = catalog.unwrap_or_else(|error| panic!("{family}: {error}"));
        assert_eq!(catalog.resources.len(), types().len() - 1);
    }
}
