use drover_catalog::Sensitive;
use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::revision::{Layer, Source};

fn subject() -> Subject {
    Subject {
        host: HostIdentity { name: "node-1".into(), uid: "h1".into() },
        node_name: "node-1".into(),
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        facts: Facts::default(),
        generation: 7,
        reboot: None,
        commands: vec![],
    }
}

fn resources(list: serde_json::Value) -> Vec<NodeConfigResource> {
    serde_json::from_value(list).unwrap()
}

fn content(interval_seconds: u32, list: serde_json::Value) -> Content {
    Content { resources: resources(list), interval_seconds, ..Content::default() }
}

fn layer(source: Source, format: drover_crds::DataFormat, values: &[(&str, &str)]) -> Layer {
    let values = values.iter().map(|(key, value)| ((*key).to_owned(), Sensitive::new(*value))).collect();
    Layer::new(source, None, format, values)
}

fn checked(list: serde_json::Value) -> Result<BTreeMap<String, Disruption>, CompileError> {
    check(&content(60, list))
}

fn revision(node_config: &str, content: &Content) -> RevisionRef {
    RevisionRef { node_config: node_config.into(), revision: content.name(node_config, None).unwrap() }
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
        {"id":"web/package","type":"package","parts":[{"part":"package","spec":{"package":"package","state":"Present","version":null,"held":null,"allow_downgrade":false}}],"drift":"Correct","disruption":"Restart","sensitive":false}
        {"id":"web/config","type":"file","parts":[{"part":"file","spec":{"path":"/etc/web","content":"zone a of node-1\n","mode":420,"owner":"root","group":"root"}}],"require":["web/package"],"notify":["web/service"],"drift":"Correct","disruption":"Restart","sensitive":false}
        {"id":"web/service","type":"service","parts":[{"part":"service","spec":{"unit":"web.service","state":"Running","enabled":null,"masked":null,"reload_on_notify":false}}],"drift":"Correct","disruption":"Restart","sensitive":false}"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn conditions_that_take_turns_may_claim_one_thing() {
    let one =
        |name: &str, when: &str| json!({"name": name, "when": when, "file": {"path": "/etc/app", "content": name}});
    let turns = [one("a", "facts.os.family == 'Debian'"), one("b", "facts.os.family != 'Debian'")];
    checked(json!(turns)).unwrap();
    let catalog = compiled(&[("base", content(60, json!(turns)))]).unwrap();
    assert_eq!(catalog.resources.len(), 1);
    let both = [one("a", "true"), one("b", "true")];
    checked(json!(both)).unwrap();
    let error = compiled(&[("base", content(60, json!(both)))]).unwrap_err().to_string();
    assert!(error.starts_with("base/b: path:/etc/app is base/a's already"), "{error}");
}

#[test]
fn edits_count_as_content() {
    let block = |n: usize| json!({"name": format!("b{n}"), "block": {"path": "/x", "template": "{{ 'x' * 1000000 }}"}});
    let error = compiled(&[("base", content(60, (0..20).map(block).collect()))]).unwrap_err().to_string();
    assert!(error.contains("with this file the catalog has more than"), "{error}");
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
        let error = checked(json!([named("a", a), named("b", b)])).unwrap_err().to_string();
        assert!(error.starts_with("b: ") && error.contains(" is a's already"), "{error}");
    }
    let commands = json!([
        {"name": "a", "exec": {"command": ["true"], "refreshOnly": true}},
        {"name": "b", "exec": {"command": ["true"], "refreshOnly": true}},
    ]);
    checked(commands).unwrap();
}

#[test]
fn parts_of_things_get_along_and_equal_directories_too() {
    let drop_in = |name: &str| json!({"name": name, "systemdDropIn": {"unit": "x.service", "content": ""}});
    let entry = |name: &str| json!({"name": name, "hostsEntry": {"ip": "10.0.0.1", "names": [name]}});
    checked(json!([drop_in("a"), drop_in("b"), entry("c"), entry("d")])).unwrap();
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
        let error = checked(json!([drop_in("a"), entry("c"), other])).unwrap_err().to_string();
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
            let content = Content { resources: spec.resources, ..Content::default() };
            check(&content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
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
        let error = checked(list).unwrap_err().to_string();
        assert!(error.starts_with(told), "{error}");
    }
    let needs_a_host = json!([{"name": "a", "file": {"path": "/x", "template": "{{ data.x }}{{ facts.os.id }}"}}]);
    checked(needs_a_host).unwrap();
}

#[test]
fn no_error_shows_a_secret() {
    const SECRET: &str = "hunter2";
    let layers = vec![
        layer(Source::secret("door"), drover_crds::DataFormat::Text, &[("password", SECRET)]),
        layer(Source::secret("tree"), drover_crds::DataFormat::Yaml, &[("tree", "{hunter2: {hunter2: 1}}")]),
    ];
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
        "{{ data.tree.x }}",
        "{{ data.tree['x'].y }}",
        "{{ data.password | round(data.password) }}",
        "{{ 'x' | replace(data.password) }}",
        "{{ data.password | tojson | fromjson }}",
        "{% for i in range(99999) %}{% for j in range(99) %}{{ data.password }}{% endfor %}{% endfor %}",
    ] {
        let list = json!([{"name": "a", "file": {"path": "/x", "template": template}}]);
        let content = Content { layers: layers.clone(), ..content(60, list) };
        let error = compiled(&[("base", content)]).expect_err(template);
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(shown.contains("base/a") && !shown.contains(SECRET), "{template}: {shown}");
    }
    let file = |name: &str, path: &str| json!({"name": name, "render": true, "file": {"path": path, "content": ""}});
    for list in [
        json!([{"name": "a", "when": "data.password", "package": {}}]),
        json!([{"name": "a", "when": "data.password / 2", "package": {}}]),
        json!([{"name": "a", "when": "data.tree.x == 1", "package": {}}]),
        json!([{"name": "a", "render": true, "file": {"path": "/x", "content": "", "mode": "{{ data.password }}"}}]),
        json!([{"name": "a", "render": true, "service": {"unit": "x", "state": "Running", "onNotify": "Reload"}},
            {"name": "b", "render": true, "package": {"package": "{{ data.password }}x", "ensure": "Present"}},
            {"name": "c", "render": true, "package": {"package": "{{ data.password }}x"}}]),
        json!([file("a", "/{{ data.password }}"), file("b", "/{{ data.password }}")]),
    ] {
        let content = Content { layers: layers.clone(), ..content(60, list.clone()) };
        let error = compiled(&[("base", content)]).expect_err(&list.to_string());
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(shown.contains("base/") && !shown.contains(SECRET), "{list}: {shown}");
    }
}

#[test]
fn what_reads_a_secret_is_sensitive_and_says_where_from() {
    use drover_crds::DataFormat::{Text, Yaml};
    let layers = vec![
        layer(Source::config_map("herd"), Text, &[("owner", "us")]),
        layer(Source::config_map("site"), Yaml, &[("db", "{host: h}")]),
        layer(Source::secret("door"), Yaml, &[("db", "{password: hunter2}")]),
    ];
    let herd = "data.owner < ConfigMap herd";
    let db = "data.db < ConfigMap site, data.db < Secret door";
    for (template, sensitive, origins) in [
        ("plain", false, ""),
        ("{{ data.owner }}", false, herd),
        ("{{ data['owner'] }}", false, herd),
        ("{{ data.db.host }}", true, db),
        ("{{ data.nothing | default('') }}", false, ""),
        ("{% set data = data %}{{ data.db }}", true, db),
        ("{% with data = data %}{{ data.db }}{% endwith %}", true, db),
        ("{% filter replace('x', data.db | tojson) %}x{% endfilter %}", true, db),
        ("{% for key in data %}{{ data[key] }}{% endfor %}", true, "*"),
        ("{{ data | tojson }}", true, "*"),
        ("{{ data }}", true, "*"),
        ("{% for k, v in data | items %}{{ v }}{% endfor %}", true, "*"),
        ("{{ data | dictsort }}", true, "*"),
        ("{% if data == {} %}{% endif %}", false, ""),
    ] {
        let list = json!([
            {"name": "by-template", "file": {"path": "/a", "template": template}},
            {"name": "by-render", "render": true, "file": {"path": "/b", "content": template}},
        ]);
        let catalog = compiled(&[("base", Content { layers: layers.clone(), ..content(60, list) })]);
        let catalog = catalog.unwrap_or_else(|error| panic!("{template}: {error}"));
        for resource in &catalog.resources {
            let told: Vec<String> = resource.origins.iter().map(|o| format!("{} < {}", o.key, o.source)).collect();
            let all = format!("{db}, {herd}");
            let wanted = if origins == "*" { all.as_str() } else { origins };
            assert_eq!(
                (resource.sensitive, told.join(", ").as_str()),
                (sensitive, wanted),
                "{template} {}",
                resource.id
            );
        }
    }
    let said = json!([{"name": "a", "sensitive": true, "file": {"path": "/a", "content": "x"}}]);
    assert!(compiled(&[("base", content(60, said))]).unwrap().resources[0].sensitive);
    let condition = json!([{"name": "a", "when": "data.db.host == 'h'", "file": {"path": "/a", "content": "x"}}]);
    let catalog = compiled(&[("base", Content { layers, ..content(60, condition) })]).unwrap();
    assert!(catalog.resources[0].sensitive, "that it is there says something of the secret");
}

#[test]
fn content_that_is_referred_to_is_part_of_the_revision() {
    let source = |kind: &str, name: &str| -> drover_crds::ContentSource {
        serde_json::from_value(json!({kind: {"name": name, "key": "k"}})).unwrap()
    };
    let references = BTreeMap::from([
        (source("configMapKeyRef", "m"), drover_catalog::SensitiveBytes::new(&[0xff][..])),
        (source("secretKeyRef", "s"), drover_catalog::SensitiveBytes::new("hunter2")),
    ]);
    let subject = subject();
    let machine = Machine::new(&subject.facts, "node-1", &subject.labels);
    let templates = Templates::new(&template::Parsed::new([]), &machine, &crate::data::Data::default());
    let read = |source: &drover_crds::ContentSource| {
        let mut inputs = OfHost::new(OfRevision::new("base/a", &references), &templates, &subject.facts);
        inputs.content(source).map(|content| {
            let read = inputs.into_read();
            let origin = read.origins.first().map(|o| format!("{} < {}", o.key, o.source)).unwrap_or_default();
            (content.expose().to_vec(), read.secret, origin)
        })
    };
    let (content, secret, origin) = read(&source("configMapKeyRef", "m")).unwrap();
    assert_eq!((content, secret, origin.as_str()), (vec![0xff], false, "key k < ConfigMap m"));
    let (content, secret, origin) = read(&source("secretKeyRef", "s")).unwrap();
    assert_eq!((content, secret, origin.as_str()), (b"hunter2".to_vec(), true, "key k < Secret s"));
    let error = read(&source("secretKeyRef", "other")).unwrap_err().to_string();
    assert!(error.starts_with("base/a: key k of Secret other is not part of the revision"), "{error}");
}

#[test]
fn a_condition_takes_a_resource_and_the_references_to_it_away() {
    let list = json!([
        {"name": "there", "when": "facts.os.family == ''", "package": {}, "notify": ["gone", "last"]},
        {"name": "gone", "when": "facts.os.family == 'Debian'", "package": {}},
        {"name": "last", "service": {"unit": "x", "enabled": true}, "require": ["gone", "there"]},
    ]);
    let catalog = compiled(&[("base", content(60, list))]).unwrap();
    let told: Vec<String> =
        catalog.resources.iter().map(|r| format!("{} {:?} {:?}", r.id, r.require, r.notify)).collect();
    expect![[r#"
        base/there [] [ResourceId("base/last")]
        base/last [ResourceId("base/there")] []"#]]
    .assert_eq(&told.join("\n"));
    for (condition, told) in [
        (
            "'true'",
            "base/a: `when` gives a string; write a comparison, such as data.tier == 'web', which is true or false",
        ),
        ("1", "base/a: `when` gives a number;"),
        (
            "facts.os.famly == 'debian'",
            "base/a: line 1 of its template: `facts.os.famly` is not known; did you mean `family`?",
        ),
        ("data.x", "base/a: line 1 of its template: `data.x` is not known; data is empty"),
        ("facts.load_averages['1m'] < 1", "base/a: its template reads `facts.load_averages"),
        ("range(99999) | list | length == 1 and", "base/a: line 1 of its template: unexpected end of input"),
    ] {
        let list = json!([{"name": "a", "when": condition, "package": {}}]);
        let error = compiled(&[("base", content(60, list))]).expect_err(condition).to_string();
        assert!(error.starts_with(told), "{condition}: {error}");
    }
}

#[test]
fn what_changes_by_itself_is_no_part_of_a_catalog() {
    for path in ["facts.load_averages", "facts.memory.system.available_bytes", "facts.system_uptime.days"] {
        let list = json!([{"name": "a", "file": {"path": "/x", "template": format!("{{{{ {path} }}}}")}}]);
        for error in [checked(list.clone()).unwrap_err(), compiled(&[("base", content(60, list))]).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains("changes by itself, so it is no part of a catalog"), "{path}: {error}");
        }
    }
    checked(json!([{"name": "a", "file": {"path": "/x", "template": "{{ facts.load_averages_of_old }}"}}])).unwrap();
}

#[test]
fn render_makes_templates_of_all_strings_of_a_type() {
    let list = json!([
        {"name": "a", "render": true, "file": {"path": "/etc/{{ node.name }}", "content": "{{ 1 + 1 }}", "owner": "{{ data.owner }}"}},
        {"name": "b", "render": true, "exec": {"command": ["echo", "{{ node.labels.zone }}"], "refreshOnly": true, "environment": {"A": "{{ 1 }}"}}},
        {"name": "c", "file": {"path": "/etc/{{ x }}", "content": "{{"}},
        {"name": "d", "render": true, "file": {"path": "/d", "template": "{% raw %}{{ x }}{% endraw %}"}},
    ]);
    let layers = vec![layer(Source::config_map("herd"), drover_crds::DataFormat::Text, &[("owner", "ann")])];
    let catalog = compiled(&[("base", Content { layers, ..content(60, list) })]).unwrap();
    let told: Vec<String> = catalog.resources.iter().map(|r| serde_json::to_string(&r.parts).unwrap()).collect();
    for (number, wanted) in [
        (0, r#""path":"/etc/node-1","content":"2","mode":420,"owner":"ann""#),
        (1, r#""argv":["echo","a"]"#),
        (1, r#""environment":{"A":"1"}"#),
        (2, r#""path":"/etc/{{ x }}","content":"{{""#),
        (3, r#""content":"{{ x }}""#),
    ] {
        assert!(told[number].contains(wanted), "{wanted}: {told:?}");
    }
    let bad = json!([{"name": "a", "render": true, "file": {"path": "/{{ fact.x }}", "content": ""}}]);
    assert!(checked(bad).unwrap_err().to_string().starts_with("a: its template reads `fact`"));
    let untouched =
        json!({"name": "a", "render": true, "file": {"path": "/x", "contentFrom": {"secretKeyRef": {"name": "{{"}}}});
    let mut seen = Vec::new();
    let mut note = |text: &mut String| {
        seen.push(text.clone());
        Ok(())
    };
    render::each_string(&mut untouched.clone(), &mut note).unwrap();
    assert_eq!(seen, ["/x"]);
}

#[test]
fn a_higher_priority_comes_first_and_revisions_stay_in_the_order_of_their_names() {
    let with = |name: &str, priority: i32| {
        let list = json!([{"name": "x", "file": {"path": format!("/{name}"), "content": ""}}]);
        Content { priority, ..content(60, list) }
    };
    let catalog =
        compiled(&[("a", with("a", 0)), ("b", with("b", 5)), ("c", with("c", 0)), ("d", with("d", -1))]).unwrap();
    let order: Vec<&str> = catalog.resources.iter().map(|resource| resource.id.node_config()).collect();
    assert_eq!(order, ["b", "a", "c", "d"]);
    assert_eq!(catalog.revisions.iter().map(|r| r.node_config.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
}

#[test]
fn drift_is_that_of_the_resource_else_of_the_node_config() {
    let list = json!([{"name": "a", "package": {}}, {"name": "b", "drift": "Ignore", "package": {}}]);
    let content = Content { drift: drover_crds::DriftMode::Report, ..content(60, list) };
    let catalog = compiled(&[("base", content)]).unwrap();
    assert_eq!(catalog.resources.iter().map(|r| r.drift).collect::<Vec<_>>(), [DriftMode::Report, DriftMode::Ignore]);
}

#[test]
fn a_conflict_has_two_sides() {
    let file = || content(60, json!([{"name": "f", "file": {"path": "/srv/x", "content": ""}}]));
    let error = compiled(&[("web", file()), ("base", file())]).unwrap_err();
    assert_eq!(error.conflict("web"), Some(("base", "path:/srv/x")));
    assert_eq!(error.conflict("base"), Some(("web", "path:/srv/x")));
    assert_eq!(error.conflict("other"), None);
    let twice = json!([{"name": "a", "package": {"package": "x1"}}, {"name": "b", "package": {"package": "x1"}}]);
    assert_eq!(compiled(&[("web", content(60, twice))]).unwrap_err().conflict("web"), None);
}

#[test]
fn data_that_is_no_yaml_names_its_node_config() {
    let layers = vec![layer(Source::config_map("herd"), drover_crds::DataFormat::Yaml, &[("k", "{")])];
    let bad = Content { layers, ..content(60, json!([])) };
    assert!(check(&bad).unwrap_err().to_string().starts_with("dataFrom: key k of ConfigMap herd is no YAML"));
    let error = compiled(&[("base", bad)]).unwrap_err().to_string();
    assert!(error.starts_with("NodeConfig base: key k of ConfigMap herd is no YAML"), "{error}");
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
