use drover_catalog::{Catalog, HostIdentity, Os, RevisionRef, Sensitive};
use drover_crds::{DataFormat, DisruptionRule};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    compile::{Subject, compile, write},
    revision::{Layer, Source},
};

fn subject(name: &str) -> Subject {
    Subject {
        host: HostIdentity { name: name.into(), uid: format!("host-{name}") },
        node_name: name.into(),
        labels: BTreeMap::from([("zone".to_owned(), name.to_owned())]),
        facts: Facts { os: Os { family: "Debian".into(), ..Os::default() }, ..Facts::default() },
        generation: 7,
        reboot: None,
        commands: vec![],
    }
}

/// Of each type one, and of each way to read something.
fn types() -> Vec<Value> {
    let secret = json!({"secretKeyRef": {"name": "door", "key": "k"}});
    let map = json!({"configMapKeyRef": {"name": "herd", "key": "k"}});
    let missing = json!({"configMapKeyRef": {"name": "herd", "key": "other"}});
    vec![
        json!({"file": {"path": "/etc/PLACE", "content": "moo"}}),
        json!({"file": {"path": "/etc/same", "content": "moo"}}),
        json!({"file": {"path": "/etc/PLACE", "template": "{{ node.name }}"}}),
        json!({"file": {"path": "/etc/PLACE", "template": "{{ data.word }} {{ data.password }}"}}),
        json!({"file": {"path": "/etc/PLACE", "template": "{{ facts.os.famly }}"}}),
        json!({"file": {"path": "/etc/PLACE", "template": "{{"}}),
        json!({"file": {"path": "/etc/PLACE", "contentFrom": secret}}),
        json!({"file": {"path": "/etc/PLACE", "contentFrom": map}}),
        json!({"file": {"path": "/etc/PLACE", "contentFrom": missing}}),
        json!({"file": {"path": "etc", "content": ""}}),
        json!({"render": true, "file": {"path": "/etc/{{ node.name }}", "content": "PLACE"}}),
        json!({"render": true, "service": {"unit": "{{ node.name }}", "state": "Running"}}),
        json!({"directory": {"path": "/etc", "purge": true}}),
        json!({"service": {"unit": "PLACE", "state": "Running"}}),
        json!({"exec": {"command": ["true"], "refreshOnly": true}}),
        json!({"package": {}}),
        json!({"aptRepository": {"ensure": "Absent"}}),
        json!({"sudoers": {"content": "ann ALL=(ALL) ALL\n"}}),
        json!({"systemdDropIn": {"unit": "x.service", "content": "[Service]\n"}}),
        json!({"reboot": {"reason": "because"}}),
    ]
}

/// A resource of some type, whom it names, and what is said of it.
type Wish = (usize, Vec<(usize, usize)>, usize);

/// Resources that read what they read, name each other, and say this and that of themselves.
fn resources(wishes: &[Wish]) -> Vec<NodeConfigResource> {
    let types = types();
    let said = [
        json!({}),
        json!({}),
        json!({"disruption": "Drain"}),
        json!({"drift": "Ignore", "sensitive": true}),
        json!({"when": "data.word == 'one'"}),
        json!({"when": "node.name == 'a'"}),
    ];
    let one = |(number, (kind, named, what)): (usize, &Wish)| {
        let mut resource = json!({"name": format!("r{number}")});
        let text = types[*kind].to_string().replace("PLACE", &format!("place-{number}"));
        for more in [serde_json::from_str(&text).unwrap(), said[*what].clone()] {
            let Value::Object(more) = more else { panic!("{more}") };
            resource.as_object_mut().unwrap().extend(more);
        }
        for (field, other) in named {
            let field = ["require", "before", "notify", "notifyAtEnd"][*field];
            // Mostly from the later to the earlier, so that cycles are rare.
            let other = if field == "require" { other % (number + 1) } else { number + other };
            let name = json!(format!("r{}", other.min(wishes.len() - 1)));
            resource
                .as_object_mut()
                .unwrap()
                .entry(field)
                .or_insert_with(|| json!([]))
                .as_array_mut()
                .unwrap()
                .push(name);
        }
        serde_json::from_value(resource).unwrap()
    };
    wishes.iter().enumerate().map(one).collect()
}

fn content(resources: Vec<NodeConfigResource>) -> Content {
    let layer = |source, key: &str, value: &str| {
        let values = BTreeMap::from([(key.to_owned(), Sensitive::new(value))]);
        Layer::new(source, None, DataFormat::Text, values)
    };
    let reference = |from: Value| (serde_json::from_value(from).unwrap(), SensitiveBytes::new("content"));
    let rule: DisruptionRule = serde_json::from_value(json!({"resources": ["*1"], "disruption": "Reload"})).unwrap();
    Content {
        resources,
        interval_seconds: 60,
        layers: vec![
            layer(Source::config_map("herd"), "word", "one"),
            layer(Source::secret("door"), "password", "hunter2"),
        ],
        references: BTreeMap::from([
            reference(json!({"secretKeyRef": {"name": "door", "key": "k"}})),
            reference(json!({"configMapKeyRef": {"name": "herd", "key": "k"}})),
        ]),
        disruption: drover_crds::DisruptionPolicy { rules: vec![rule], ..Default::default() },
        ..Content::default()
    }
}

/// Compiled for this machine, as if there were no other.
fn alone(contents: &[(RevisionRef, Content)], subject: &Subject) -> Result<Catalog, String> {
    let revisions: Vec<_> = contents.iter().map(|(revision, content)| (revision.clone(), content)).collect();
    compile(subject, &revisions).map_err(|error| error.to_string())
}

/// The contents with a condition for each resource that has none, which holds everywhere: nothing is prepared then.
fn unprepared(contents: &[(RevisionRef, Content)]) -> Vec<(RevisionRef, Content)> {
    let always = |resource: &NodeConfigResource| {
        let when = Some(resource.when.clone().unwrap_or_else(|| "true".to_owned()));
        NodeConfigResource { when, ..resource.clone() }
    };
    let content =
        |content: &Content| Content { resources: content.resources.iter().map(always).collect(), ..content.clone() };
    contents.iter().map(|(revision, old)| (revision.clone(), content(old))).collect()
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let named = prop::collection::vec((0..4_usize, 0..4_usize), 0..3);
    // What is wrong ends a catalog, so it is asked for less often than all the rest.
    let kind = prop_oneof![9 => prop::sample::select(vec![0, 2, 3, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]), 1 => 0..types().len()];
    prop::collection::vec((kind, named, 0..6_usize), 1..8)
}

proptest! {
    #[test]
    fn what_is_prepared_is_as_if_it_were_made_for_each_machine(lists in prop::collection::vec(wishes(), 1..3)) {
        let contents: Vec<(RevisionRef, Content)> = lists.iter().enumerate().map(|(number, wishes)| {
            let reference = RevisionRef { node_config: format!("config-{number}"), revision: format!("{number}") };
            (reference, content(resources(wishes)))
        }).collect();
        let prepared: Vec<_> =
            contents.iter().map(|(revision, content)| Prepared::new(&revision.node_config, Cow::Borrowed(content))).collect();
        let revisions: Vec<_> = contents.iter().map(|(revision, _)| revision.clone()).zip(&prepared).collect();
        for subject in ["a", "b", "a"].map(subject) {
            let wanted = alone(&unprepared(&contents), &subject);
            prop_assert_eq!(alone(&contents, &subject), wanted.clone());
            let written = write(&subject, &revisions).map_err(|error| error.to_string());
            match (written, wanted) {
                (Ok(written), Ok(wanted)) => {
                    prop_assert_eq!(String::from_utf8(written.json).unwrap(), serde_json::to_string(&wanted).unwrap());
                    prop_assert_eq!((written.etag, &written.digest), (wanted.etag(), &wanted.digest));
                    prop_assert!(wanted.is_intact());
                }
                (written, wanted) => prop_assert_eq!(written.err(), wanted.err()),
            }
        }
    }
}

#[test]
fn only_what_reads_nothing_of_a_machine_is_the_same_on_all() {
    let list = json!([
        {"name": "template", "file": {"path": "/a", "template": "x"}},
        {"name": "tells-a-template", "file": {"path": "/b", "content": ""}, "notifyAtEnd": ["template"]},
        {"name": "tells-that", "file": {"path": "/c", "content": ""}, "notify": ["tells-a-template"]},
        {"name": "sometimes", "when": "true", "package": {}},
        {"name": "after-sometimes", "require": ["sometimes"], "file": {"path": "/d", "content": ""}},
        {"name": "cleans", "directory": {"path": "/e", "purge": true}},
        {"name": "wrong", "file": {"path": "f", "content": ""}},
        {"name": "fixed", "notify": ["service"], "file": {"path": "/g", "contentFrom": {"secretKeyRef": {"name": "door", "key": "k"}}}},
        {"name": "service", "service": {"unit": "x", "state": "Running"}},
    ]);
    let content = content(serde_json::from_value(list).unwrap());
    let prepared = Prepared::new("base", Cow::Borrowed(&content));
    let steps = &prepared.program().ok().unwrap().steps;
    let fixed = steps.iter().filter_map(|step| match step {
        Step::Fixed(fixed) => Some(fixed.resource.id.as_str()),
        Step::Varying(_) => None,
    });
    assert_eq!(fixed.collect::<Vec<_>>(), ["base/fixed", "base/service"]);
}
