use drover_crds::{AppliedReport, Assignment, HostSpec, HostStatus, NodeRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;

fn host(name: &str, assigned: &[(&str, &str)]) -> Host {
    let mut host = Host::new(name, HostSpec { node_ref: NodeRef::default() });
    host.metadata.uid = Some(format!("uid-{name}"));
    let assigned: Vec<Assignment> = assigned
        .iter()
        .map(|(config, revision)| Assignment { node_config: (*config).into(), revision: (*revision).into() })
        .collect();
    host.status = Some(HostStatus {
        facts: Some(serde_json::Map::new()),
        active: Some(AppliedReport { revisions: assigned.clone(), converged: true, ..AppliedReport::default() }),
        assigned,
        ..HostStatus::default()
    });
    host
}

fn config(name: &str, created: i64, priority: i32, revision: Option<&str>) -> NodeConfig {
    let spec = serde_json::from_value(json!({"resources": [], "priority": priority})).unwrap();
    let mut config = NodeConfig::new(name, spec);
    config.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
    config.status = Some(NodeConfigStatus { revision: revision.map(Into::into), ..NodeConfigStatus::default() });
    config
}

fn content(priority: i32, resources: Value) -> Content {
    Content { priority, resources: serde_json::from_value(resources).unwrap(), ..Content::default() }
}

fn file(path: &str, content: &str) -> Value {
    json!({"name": "f", "file": {"path": path, "content": content}})
}

/// Two NodeConfigs, `a` and `b`, that claim one file; whether each of them gives way.
fn gives_way(a: &NodeConfig, b: &NodeConfig, hosts: &[Host]) -> (bool, bool) {
    let configs = [a.clone(), b.clone()];
    let of = |config: &NodeConfig| content(config.spec.resolved_priority(), json!([file("/x", "")]));
    let (content_a, content_b) = (of(a), of(b));
    let kept = |name: &str| match name {
        "a-1" => Some(&content_a),
        "b-1" => Some(&content_b),
        _ => None,
    };
    let refused =
        |config, content| matches!(try_out(config, content, hosts, &configs, kept), Err(Refusal::Conflict(_)));
    (refused(a, &content_a), refused(b, &content_b))
}

#[test]
fn of_two_claims_exactly_the_later_one_gives_way() {
    let (a, b) = (("a", "a-1"), ("b", "b-1"));
    let new = config("a", 1, 0, Some("a-1"));
    for (what, other, assigned, wanted) in [
        ("the older one stays", config("b", 2, 0, Some("b-1")), &[][..], (false, true)),
        ("a higher priority counts more than age", config("b", 2, 1, Some("b-1")), &[], (true, false)),
        ("of one age, the name decides", config("b", 1, 0, Some("b-1")), &[], (false, true)),
        ("who is assigned stays", config("b", 2, 0, Some("b-1")), &[b], (true, false)),
        ("whatever its priority", config("b", 2, -5, Some("b-1")), &[b], (true, false)),
        ("both are assigned", config("b", 2, 1, Some("b-1")), &[a, b], (true, false)),
        ("one without a revision takes nothing yet", config("b", 0, 0, None), &[], (false, false)),
    ] {
        assert_eq!(gives_way(&new, &other, &[host("n", assigned)]), wanted, "{what}");
    }
    let mut elsewhere = config("b", 0, 0, Some("b-1"));
    elsewhere.spec.host_selector = serde_json::from_value(json!({"matchLabels": {"a": "b"}})).unwrap();
    // `b` is tried on this host by the test alone: the operator passes the hosts that it selects.
    assert!(!gives_way(&new, &elsewhere, &[host("n", &[])]).0);
}

/// Revisions by name: each is one file at a path, or at several.
fn files(paths: &[&str]) -> Content {
    let one =
        |path: &&str| json!({"name": format!("f{}", path.replace('/', "-")), "file": {"path": path, "content": ""}});
    content(0, paths.iter().map(one).collect())
}

#[test]
fn what_is_assigned_counts_whatever_its_rank_and_so_does_the_newest_of_those_that_precede() {
    let (with, without, both) = (files(&["/x"]), files(&["/y"]), files(&["/z", "/x"]));
    let other = files(&["/z"]);
    let kept = |name: &str| match name {
        "low-x" => Some(&with),
        "low-y" => Some(&without),
        "high-z" => Some(&other),
        "high-x" => Some(&both),
        _ => None,
    };
    let nodes = |assigned: &[(&str, &str)]| [host("n", assigned)];
    let refused = |result| matches!(result, Err(Refusal::Conflict(_)));
    let high = config("high", 1, 9, Some("high-z"));
    let low = config("low", 2, 0, Some("low-x"));
    // The machine has x from `low` now: `high` does not take it, although it ranks higher.
    let has_low = nodes(&[("high", "high-z"), ("low", "low-x")]);
    let configs = [high, low];
    assert!(refused(try_out(&configs[0], &both, &has_low, &configs, kept)));
    assert!(!refused(try_out(&configs[1], &with, &has_low, &configs, kept)));
    // Neither has it yet, and `high` will: `low` does not take it.
    let configs = [config("high", 1, 9, Some("high-x")), config("low", 2, 0, Some("low-y"))];
    let neither = nodes(&[("high", "high-z"), ("low", "low-y")]);
    assert!(refused(try_out(&configs[1], &with, &neither, &configs, kept)));
    assert!(!refused(try_out(&configs[0], &both, &neither, &configs, kept)));
}

#[test]
fn two_that_are_at_odds_or_broken_are_no_fault_of_a_third() {
    let (x, y) = (files(&["/x"]), files(&["/y"]));
    let broken = content(0, json!([{"name": "f", "file": {"path": "/b", "template": "{{ facts.os.id + 1 }}"}}]));
    let kept = |name: &str| match name {
        "a-1" | "b-1" => Some(&x),
        "d-1" => Some(&broken),
        _ => None,
    };
    let mut gave_way = config("e", 1, 0, Some("b-1"));
    gave_way.status.as_mut().unwrap().conflicts =
        vec![ClaimConflict { node_config: "a".into(), claim: "path:/x".into(), host: "n".into(), hosts: 1 }];
    let third = config("z", 9, 0, None);
    let others =
        [config("a", 1, 1, Some("a-1")), config("b", 1, 0, Some("b-1")), config("d", 1, 0, Some("d-1")), gave_way];
    assert!(try_out(&third, &y, &[host("n", &[])], &others, kept).is_ok());
    assert!(try_out(&third, &x, &[host("n", &[])], &others[3..], kept).is_ok(), "who gave way claims nothing");
    // Of the two at odds, the one that precedes has it.
    let Err(Refusal::Conflict(conflicts)) = try_out(&third, &x, &[host("n", &[])], &others, kept) else {
        panic!("a conflict")
    };
    assert_eq!(conflicts[0].node_config, "a");
}

#[test]
fn a_conflict_names_the_other_the_thing_and_the_hosts_and_both_say_so() {
    let mut a = config("a", 1, 0, None);
    let b = config("b", 2, 0, Some("b-1"));
    let ours = content(0, json!([file("/x", "")]));
    let theirs = ours.clone();
    let hosts = [host("n1", &[("b", "b-1")]), host("n2", &[]), host("n3", &[("b", "b-1")])];
    let configs = [a.clone(), b.clone()];
    let refusal = try_out(&a, &ours, &hosts, &configs, |name| (name == "b-1").then_some(&theirs)).unwrap_err();
    let Refusal::Conflict(conflicts) = refusal else { panic!("{refusal:?}") };
    let wanted = ClaimConflict { node_config: "b".into(), claim: "path:/x".into(), host: "n1".into(), hosts: 2 };
    assert_eq!(conflicts, [wanted]);

    let said = |config: &NodeConfig, configs: &[NodeConfig]| {
        let mut status = config.status.clone().unwrap();
        conflict_condition(&mut status, config, configs, Timestamp::UNIX_EPOCH);
        condition::find(&status.conditions, CONFLICT).map(|condition| condition.message.clone())
    };
    assert_eq!(said(&a, &configs), None);
    a.status.as_mut().unwrap().conflicts = conflicts;
    let configs = [a.clone(), b.clone()];
    let ours = said(&a, &configs).unwrap();
    assert!(
        ours.starts_with("path:/x on Host n1 (and 1 more) is NodeConfig b's already; nothing of the newest"),
        "{ours}"
    );
    let theirs = said(&b, &configs).unwrap();
    assert!(theirs.starts_with("NodeConfig a claims path:/x on Host n1 (and 1 more) as well, and is not"), "{theirs}");
    assert!(concerns(&a, &b) && !concerns(&a, &a) && !concerns(&b, &a));

    let mut solved = b.clone();
    conflict_condition(solved.status.as_mut().unwrap(), &b, &configs, Timestamp::UNIX_EPOCH);
    assert!(concerns(&config("a", 1, 0, None), &solved), "the condition must go");
    conflict_condition(solved.status.as_mut().unwrap(), &b, &[config("a", 1, 0, None)], Timestamp::UNIX_EPOCH);
    assert_eq!(solved.status, b.status);
}

#[test]
fn the_cost_counts_each_machine_that_has_another_revision() {
    let service = json!({"name": "s", "service": {"unit": "x", "state": "Running"}});
    let with = |text: &str, notify: bool| {
        let mut file = file("/x", text);
        if notify {
            file["notify"] = json!(["s"]);
        }
        content(0, json!([file, service]))
    };
    let old = with("1", true);
    let new = with("2", true);
    let mut noop = new.clone();
    noop.interval_seconds = 7;
    let config = config("a", 1, 0, Some("a-1"));
    let kept = |name: &str| match name {
        "a-old" => Some(&old),
        "a-new" => Some(&new),
        "a-noop" => Some(&noop),
        _ => None,
    };
    let mut blind = host("blind", &[]);
    blind.status.as_mut().unwrap().facts = None;
    let hosts = [
        host("none", &[]),
        host("old", &[("a", "a-old")]),
        host("new", &[("a", "a-new")]),
        host("noop", &[("a", "a-noop")]),
        host("lost", &[("a", "a-lost")]),
        blind,
    ];
    let trial = try_out(&config, &new, &hosts, &[], kept).unwrap();
    assert_eq!(disruption::in_words(&trial.pending.unwrap()), "3 Restart, 1 no-op");
    assert_eq!(try_out(&config, &new, &hosts[2..3], &[], kept).unwrap().pending, None);
    assert_eq!(
        serde_json::to_value(effective_in_status(&trial.effective)).unwrap(),
        json!([{"disruption": "Restart", "count": 2, "resources": ["f", "s"]}]),
    );
    let without_host = try_out(&config, &with("2", false), &[], &[], kept).unwrap();
    assert_eq!(
        serde_json::to_value(effective_in_status(&without_host.effective)).unwrap(),
        json!([{"disruption": "Restart", "count": 1, "resources": ["s"]}, {"disruption": "None", "count": 1, "resources": ["f"]}]),
    );
}

#[test]
fn what_does_not_compile_names_the_host() {
    let bad = content(0, json!([{"name": "f", "file": {"path": "/x", "template": "{{ data.x }}"}}]));
    let refusal = try_out(&config("a", 1, 0, None), &bad, &[host("n", &[])], &[], |_| None).unwrap_err();
    let Refusal::Invalid(why) = refusal else { panic!("{refusal:?}") };
    assert!(why.starts_with("Host n: a/f: line 1 of its template: `data.x` is not known"), "{why}");
}
