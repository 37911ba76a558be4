use drover_catalog::Sensitive;
use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::revision::DataValue;

fn subject() -> Subject {
    Subject {
        host: HostIdentity { name: "node-1".into(), uid: "h1".into() },
        node_name: "node-1".into(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        facts: Facts::default(),
        generation: 7,
    }
}

fn resources(list: serde_json::Value) -> Vec<NodeConfigResource> {
    serde_json::from_value(list).unwrap()
}

fn content(interval_seconds: u32, list: serde_json::Value) -> Content {
    Content { resources: resources(list), interval_seconds, data: BTreeMap::new() }
}

fn revision(node_config: &str, content: &Content) -> RevisionRef {
    RevisionRef { node_config: node_config.into(), revision: content.name(node_config).unwrap() }
}

fn compiled(contents: &[(&str, Content)]) -> Result<Catalog, CompileError> {
    let revisions: Vec<_> = contents.iter().map(|(name, content)| (revision(name, content), content)).collect();
    compile(&subject(), &revisions)
}

#[test]
fn a_catalog_names_its_host_its_revisions_and_its_resources() {
    let base = content(
        600,
        json!([
            {"name": "service", "service": {"unit": "web", "state": "Running"}},
            {"name": "config", "file": {"path": "/etc/web", "template": "zone {{ node.labels.zone }} of {{ node.name }}\n"}, "notify": ["service"], "require": ["package", "package"]},
            {"name": "package", "package": {}},
        ]),
    );
    let motd = content(60, json!([{"name": "config", "file": {"path": "/etc/motd", "content": "moo"}}]));
    let catalog = compiled(&[("web", base), ("a", motd)]).unwrap();
    assert!(catalog.is_intact());
    assert_eq!((catalog.generation, catalog.interval_seconds, catalog.host), (7, 60, subject().host));
    assert_eq!(catalog.revisions.iter().map(|r| r.node_config.as_str()).collect::<Vec<_>>(), ["a", "web"]);
    let lines: Vec<String> = catalog.resources.iter().map(|r| serde_json::to_string(r).unwrap()).collect();
    expect![[r#"
        {"id":"a/config","type":"file","parts":[{"part":"file","spec":{"path":"/etc/motd","content":"moo","mode":420,"owner":"root","group":"root"}}],"drift":"Correct","disruption":"None","sensitive":false}
        {"id":"web/package","type":"package","parts":[{"part":"package","spec":{"package":"package","state":"Present","version":null,"held":null,"allow_downgrade":false}}],"drift":"Correct","disruption":"None","sensitive":false}
        {"id":"web/config","type":"file","parts":[{"part":"file","spec":{"path":"/etc/web","content":"zone a of node-1\n","mode":420,"owner":"root","group":"root"}}],"require":["web/package"],"notify":["web/service"],"drift":"Correct","disruption":"None","sensitive":false}
        {"id":"web/service","type":"service","parts":[{"part":"service","spec":{"unit":"web.service","state":"Running","enabled":null,"masked":null,"reload_on_notify":false}}],"drift":"Correct","disruption":"None","sensitive":false}"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn nothing_assigned_is_an_empty_catalog() {
    let catalog = compile(&subject(), &[]).unwrap();
    assert_eq!((catalog.resources.len(), catalog.interval_seconds), (0, 1800));
}

#[test]
fn two_claims_on_one_thing_name_both_sides() {
    let file = content(60, json!([{"name": "f", "file": {"path": "/srv/x", "content": ""}}]));
    let directory = content(60, json!([{"name": "d", "directory": {"path": "/srv/x"}}]));
    expect!["web/d: path:/srv/x is base/f's already; keep one of the two, or let the hostSelectors of their NodeConfigs select different hosts"]
        .assert_eq(&compiled(&[("web", directory), ("base", file)]).unwrap_err().to_string());
    for (a, b) in [
        (
            json!({"service": {"unit": "x", "enabled": true}}),
            json!({"service": {"unit": "x.service", "state": "Stopped"}}),
        ),
        (json!({"package": {"package": "b"}}), json!({"package": {}})),
        (json!({"sysctl": {"key": "a.b", "value": "1"}}), json!({"sysctl": {"key": "a/b", "value": "1"}})),
    ] {
        let named = |name: &str, mut resource: serde_json::Value| {
            resource["name"] = json!(name);
            resource
        };
        let both = resources(json!([named("a", a), named("b", b)]));
        let error = check(&both).unwrap_err().to_string();
        assert!(error.starts_with("b: ") && error.contains(" is a's already"), "{error}");
    }
    let commands = json!([
        {"name": "a", "exec": {"command": ["true"], "refreshOnly": true}},
        {"name": "b", "exec": {"command": ["true"], "refreshOnly": true}},
    ]);
    check(&resources(commands)).unwrap();
}

#[test]
fn parts_of_things_get_along_and_equal_directories_too() {
    let drop_in = |name: &str| json!({"name": name, "systemdDropIn": {"unit": "x.service", "content": ""}});
    let entry = |name: &str| json!({"name": name, "hostsEntry": {"ip": "10.0.0.1", "names": [name]}});
    check(&resources(json!([drop_in("a"), drop_in("b"), entry("c"), entry("d")]))).unwrap();
    for (other, told) in [
        (json!({"name": "z", "file": {"path": "/etc/hosts", "content": ""}}), "z: path:/etc/hosts is c's already"),
        (
            json!({"name": "z", "directory": {"path": "/etc/systemd/system/x.service.d", "mode": "0700"}}),
            "z: path:/etc/systemd/system/x.service.d is a's already",
        ),
        (
            json!({"name": "z", "systemdUnit": {"name": "x.service.d/a.conf", "content": ""}}),
            "z: systemdUnit.name must be a unit",
        ),
        (
            json!({"name": "z", "file": {"path": "/etc/systemd/system/x.service.d/a.conf", "content": ""}}),
            "z: path:/etc/systemd/system/x.service.d/a.conf is a's already",
        ),
    ] {
        let error = check(&resources(json!([drop_in("a"), entry("c"), other]))).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
}

#[test]
fn before_and_the_end_of_a_run_reach_the_catalog() {
    let base = content(
        60,
        json!([
            {"name": "late", "sysctl": {"key": "a.b", "value": "1"}, "require": ["other"]},
            {"name": "early", "sysctl": {"key": "a.c", "value": "1"}, "before": ["late", "other"], "notifyAtEnd": ["early", "late"]},
            {"name": "other", "sysctl": {"key": "a.d", "value": "1"}},
        ]),
    );
    let catalog = compiled(&[("base", base)]).unwrap();
    let names = |ids: &[ResourceId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = catalog
        .resources
        .iter()
        .map(|r| format!("{}: require [{}], at end [{}]", r.id, names(&r.require), names(&r.notify_at_end)))
        .collect();
    expect![[r"
        base/early: require [], at end [base/early base/late]
        base/other: require [base/early], at end []
        base/late: require [base/other base/early], at end []"]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn a_purged_directory_keeps_what_other_node_configs_put_there() {
    let purged = content(60, json!([{"name": "d", "directory": {"path": "/srv/x", "purge": true}}]));
    let file = content(60, json!([{"name": "f", "file": {"path": "/srv/x/y/z", "content": ""}}]));
    let catalog = compiled(&[("a", purged), ("b", file)]).unwrap();
    let Part::Directory(directory) = &catalog.resources[0].parts[0] else { panic!("{catalog:?}") };
    assert_eq!(directory.keep, ["y"]);
}

#[test]
fn the_samples_compile() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/samples");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        for document in documents.iter().filter(|document| document["kind"] == "NodeConfig") {
            let spec: drover_crds::NodeConfigSpec = serde_json::from_value(document["spec"].clone()).unwrap();
            // What is misspelt would be lost on the way.
            assert_eq!(serde_json::to_value(&spec).unwrap(), document["spec"], "{}", path.display());
            check(&spec.resources).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.push(document["metadata"]["name"].as_str().unwrap().to_owned());
        }
    }
    found.sort();
    assert_eq!(found, ["base", "baseline"]);
}

#[test]
fn many_large_files_are_refused_together() {
    let list: Vec<_> = (0..17)
        .map(|i| json!({"name": format!("f{i}"), "file": {"path": format!("/{i}"), "template": "{{ 'x' * 1048576 }}"}}))
        .collect();
    let fits = content(60, json!(list[..16]));
    assert_eq!(compiled(&[("base", fits)]).unwrap().resources.len(), 16);
    let error = compiled(&[("base", content(60, json!(list)))]).unwrap_err().to_string();
    assert!(error.starts_with("base/f16: with this file the catalog has more than 16777216 bytes"), "{error}");
}

#[test]
fn one_node_config_has_one_revision() {
    let old = content(60, json!([]));
    let new = content(61, json!([]));
    let error = compiled(&[("base", old), ("base", new)]).unwrap_err().to_string();
    assert!(error.starts_with("NodeConfig base is assigned twice, as base-"), "{error}");
}

#[test]
fn what_no_host_could_apply_is_found_without_one() {
    for (list, told) in [
        (json!([{"name": "a", "package": {}, "require": ["b"]}]), "a: require names `b`"),
        (
            json!([{"name": "a", "package": {}, "notify": ["a"]}]),
            "a: it would have to come before itself: a -> a (a notifies a)",
        ),
        (json!([{"name": "a", "file": {"path": "/x", "template": "{{"}}]), "a: line 1 of its template: "),
        (json!([{"name": "a", "file": {"path": "/x", "template": "{{ x }}"}}]), "a: its template reads `x`"),
        (json!([{"name": "a"}]), "a: a resource has exactly one type"),
    ] {
        let error = check(&resources(list)).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
    let needs_a_host = json!([{"name": "a", "file": {"path": "/x", "template": "{{ data.x }}{{ facts.os.id }}"}}]);
    check(&resources(needs_a_host)).unwrap();
}

#[test]
fn no_error_shows_a_secret() {
    const SECRET: &str = "hunter2";
    let value = DataValue { value: Sensitive::new(SECRET), secret: true };
    let data = BTreeMap::from([("password".to_owned(), value)]);
    for template in [
        "{{ data.password }}{{ data.nothing }}",
        "{{ data.password + 1 }}",
        "{{ data.password - 1 }}",
        "{{ data.password | int }}",
        "{{ data.password.nothing.more }}",
        "{{ data.password(1) }}",
        "{{ data[data.password] }}",
        "{{ facts[data.password].x }}",
        "{{ [data.password] | map(data.password) | list }}",
        "{{ 1 | indent(data.password) }}",
        "{{ dict(**{data.password: 1})(2) }}",
        "{{ range(data.password) }}",
        "{% for x in data %}{{ x[data.password] }}{% endfor %}",
        "{% set facts = data.password %}{{ facts.nothing.x }}",
        "{{ namespace(x=data.password).y.z }}",
        "{{ data.password | round(data.password) }}",
        "{{ 'x' | replace(data.password) }}",
        "{{ data.password | tojson | fromjson }}",
        "{% for i in range(99999) %}{% for j in range(99) %}{{ data.password }}{% endfor %}{% endfor %}",
    ] {
        let resources = resources(json!([{"name": "a", "file": {"path": "/x", "template": template}}]));
        let content = Content { resources, interval_seconds: 60, data: data.clone() };
        let error = compiled(&[("base", content)]).expect_err(template);
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(shown.contains("base/a") && !shown.contains(SECRET), "{template}: {shown}");
    }
}

proptest! {
    /// The order in which assignments are listed, and how often one compiles, changes nothing.
    #[test]
    fn equal_inputs_give_equal_digests(
        names in prop::collection::btree_set("[a-z]{1,6}", 1..6).prop_shuffle_list(),
        links in prop::collection::vec((0_usize..6, 0_usize..6), 0..6),
    ) {
        let contents: Vec<(String, Content)> = names.iter().enumerate().map(|(number, name)| {
            let list: Vec<_> = (0..6).map(|i| {
                // Only from a later to an earlier resource: no cycles.
                let require: Vec<String> = links.iter().filter(|(a, b)| a.max(b) == &i && a != b).map(|(a, b)| format!("r{}", a.min(b))).collect();
                json!({"name": format!("r{i}"), "require": require, "file": {"path": format!("/{name}/{i}"), "template": "{{ facts | tojson }}{{ node.labels }}"}})
            }).collect();
            (name.clone(), content(60 + u32::try_from(number).unwrap(), json!(list)))
        }).collect();
        let mut revisions: Vec<_> = contents.iter().map(|(name, content)| (revision(name, content), content)).collect();
        let one = compile(&subject(), &revisions).unwrap();
        revisions.sort_by(|(a, _), (b, _)| b.cmp(a));
        let other = compile(&subject(), &revisions).unwrap();
        prop_assert_eq!(&one.digest, &other.digest);
        prop_assert_eq!(one.etag(), other.etag());
        prop_assert_eq!(one.interval_seconds, 60);
        let at = |id: &ResourceId| one.resources.iter().position(|r| &r.id == id).unwrap();
        for resource in &one.resources {
            prop_assert!(resource.require.iter().all(|first| at(first) < at(&resource.id)));
            prop_assert!(resource.notify.iter().all(|then| at(then) > at(&resource.id)));
        }
    }
}

/// A set, in any order.
trait ShuffleList {
    fn prop_shuffle_list(self) -> impl Strategy<Value = Vec<String>>;
}

impl<S: Strategy<Value = std::collections::BTreeSet<String>>> ShuffleList for S {
    fn prop_shuffle_list(self) -> impl Strategy<Value = Vec<String>> {
        self.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle()
    }
}
