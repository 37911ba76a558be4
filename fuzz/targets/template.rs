//! A template renders within its bounds or says why not, always the same; and no error shows a value of its data.
#![no_main]

use std::collections::BTreeMap;

use drover_catalog::{Facts, HostIdentity, Part, RevisionRef, Sensitive};
use drover_core::{
    compile::{self, CompileError, Subject, TemplateError},
    revision::{Content, Layer, Source},
};
use drover_crds::{DataFormat, File, NodeConfigResource};

/// No template holds it by chance.
const SECRET: &str = "zq-canary-7391";

/// The limit of a file from a template.
const MOST: usize = 1 << 20;

libfuzzer_sys::fuzz_target!(|template: &str| {
    if template.contains(SECRET) {
        return;
    }
    let file = File { path: "/etc/motd".into(), template: Some(template.to_owned()), ..File::default() };
    let resources = vec![NodeConfigResource { name: "motd".into(), file: Some(file.into()), ..NodeConfigResource::default() }];
    let layer = |source, format, values: &[(&str, &str)]| {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), Sensitive::new(*value))).collect();
        Layer::new(source, None, format, values)
    };
    let layers = vec![
        layer(Source::secret("door"), DataFormat::Text, &[("password", SECRET)]),
        layer(Source::config_map("herd"), DataFormat::Yaml, &[("port", "8080"), ("list", "[a, {b: c}]")]),
    ];
    let content = Content { resources, interval_seconds: 60, layers, ..Content::default() };
    let checked = compile::check(&content);
    let subject = Subject {
        host: HostIdentity { name: "cow".into(), uid: "u1".into() },
        node_name: "cow".into(),
        labels: BTreeMap::from([("zone".to_owned(), "north".to_owned())]),
        facts: Facts::default(),
        generation: 1,
        reboot: None,
        commands: vec![],
    };
    let revision = RevisionRef { node_config: "base".into(), revision: "base-1".into() };
    let compiled = compile::compile(&subject, &[(revision.clone(), &content)]);
    for error in [checked.as_ref().err(), compiled.as_ref().err()].into_iter().flatten() {
        assert!(!format!("{error} {error:?}").contains(SECRET), "an error shows a value");
    }
    let is_syntax = |error: &CompileError| {
        matches!(error, CompileError::Template { problem: TemplateError::Syntax { .. }, resource: _ })
    };
    if checked.as_ref().is_err_and(is_syntax) {
        assert!(compiled.as_ref().is_err_and(is_syntax), "checked as wrong, and compiled");
    }
    let Ok(catalog) = compiled else { return };
    for part in catalog.resources.iter().flat_map(|resource| &resource.parts) {
        if let Part::File(file) = part {
            assert!(file.content.as_ref().is_some_and(|content| content.expose().len() <= MOST));
        }
    }
    assert_eq!(compile::compile(&subject, &[(revision, &content)]).expect("it compiled before"), catalog);
});
