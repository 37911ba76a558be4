//! The watcher can find each thing that it looks for: a good history passes, and each bad one is told.

use serde_json::{Value, json};

use super::*;

#[derive(Clone)]
struct Write {
    label: &'static str,
    kind: Kind,
    deleted: bool,
    object: Value,
}

/// A history that can be spoiled.
#[derive(Clone)]
struct Story {
    before: Vec<Write>,
    writes: Vec<Write>,
}

fn write(label: &'static str, kind: Kind, object: Value) -> Write {
    Write { label, kind, deleted: false, object }
}

fn rollout(label: &'static str, ledger: &[&str], counts: [i64; 4]) -> Write {
    let entries: Vec<Value> = ledger
        .iter()
        .map(|host| json!({"host": host, "uid": host, "batch": 0, "token": format!("base.r.{host}.1.{host}"), "since": "t"}))
        .collect();
    let [pending, busy, updated, failed] = counts;
    let object = json!({
        "metadata": {"name": "base", "uid": "r"},
        "spec": {"strategy": {"maxParallel": 1, "maxUnavailable": 1, "batches": [{"size": 2}]}, "disruption": {"drain": {}}},
        "status": {
            "phase": if updated == 2 { "Complete" } else { "Progressing" },
            "run": {"number": 1, "revision": "base-1", "startedAt": "t"},
            "counts": {"total": 2, "pending": pending, "inFlight": busy, "updated": updated, "failed": failed, "unavailable": busy},
            "inFlight": entries,
        },
    });
    write(label, Kind::Rollout, object)
}

fn host(label: &'static str, name: &str, step: Option<&str>, generation: i64, active: bool) -> Write {
    let claim = step.map(|step| {
        json!({
            "rollout": "base", "rolloutUid": "r", "run": 1, "batch": 0, "token": format!("base.r.{name}.1.{name}"),
            "target": {"nodeConfig": "base", "revision": "base-1"}, "step": step, "stepStartedAt": step,
        })
    });
    let assigned = if generation == 1 { json!([{"nodeConfig": "base", "revision": "base-1"}]) } else { Value::Null };
    let report = json!({"generation": 1, "converged": true, "revisions": assigned});
    let object = json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"nodeRef": {"name": name, "uid": format!("node-{name}")}},
        "status": {
            "claim": claim, "restore": if step.is_some() { json!({"cordoned": false}) } else { Value::Null },
            "assigned": assigned, "assignedGeneration": generation,
            "active": if active { report } else { Value::Null },
        },
    });
    write(label, Kind::Host, object)
}

fn node(label: &'static str, name: &str, excluded: bool, cordoned: bool) -> Write {
    let mark = |set: bool| if set { json!(format!("base.r.{name}.1.{name}")) } else { Value::Null };
    let object = json!({
        "metadata": {
            "name": name, "uid": format!("node-{name}"),
            "labels": {nodes::EXCLUDED_LABEL: if excluded { json!("") } else { Value::Null }},
            "annotations": {"drover.dev/cordoned-by": mark(cordoned), "drover.dev/excluded-by": mark(excluded)},
        },
        "spec": {"unschedulable": cordoned},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    write(label, Kind::Node, object)
}

fn pod(label: &'static str, evicted: bool) -> Write {
    let conditions =
        if evicted { json!([{"type": "DisruptionTarget", "reason": "EvictionByEvictionAPI"}]) } else { json!([]) };
    let object = json!({
        "metadata": {"name": "web", "uid": "web"}, "spec": {"nodeName": "a"}, "status": {"conditions": conditions},
    });
    write(label, Kind::Pod, object)
}

fn job(label: &'static str, uid: &str) -> Write {
    let object = json!({
        "metadata": {
            "name": "base-leave-1", "uid": uid,
            "labels": {"drover.dev/rollout": "base", "drover.dev/run": "1"},
            "annotations": {"drover.dev/hold-token": "base.r.a.1.a"},
        },
        "status": {"conditions": [{"type": "Complete", "status": "True"}]},
    });
    write(label, Kind::Job, object)
}

/// The same with a hook before the machine.
fn hooked() -> Story {
    let hooks = json!({"beforeHost": [{"name": "leave"}]});
    good().always(Kind::Rollout, "base", "spec/hooks", hooks).after("claimed", job("done", "task"))
}

/// One machine of two, from its admission to the end; the other one has the revision already.
fn good() -> Story {
    let before = vec![
        node("", "a", false, false),
        node("", "b", false, false),
        host("", "a", None, 0, false),
        host("", "b", None, 1, true),
        pod("", false),
        rollout("", &[], [1, 0, 1, 0]),
    ];
    let writes = vec![
        rollout("entered", &["a"], [0, 1, 1, 0]),
        host("claimed", "a", Some("Claim"), 0, false),
        host("leaves", "a", Some("LeaveLoadBalancer"), 0, false),
        node("excluded", "a", true, false),
        host("cordons", "a", Some("Cordon"), 0, false),
        node("cordoned", "a", true, true),
        host("drains", "a", Some("Drain"), 0, false),
        pod("evicted", true),
        Write { deleted: true, ..pod("gone", true) },
        host("applies", "a", Some("Apply"), 1, false),
        host("reported", "a", Some("Apply"), 1, true),
        host("verifies", "a", Some("Verify"), 1, true),
        host("restores", "a", Some("Restore"), 1, true),
        node("uncordoned", "a", true, false),
        node("included", "a", false, false),
        host("released", "a", None, 1, true),
        rollout("left", &[], [0, 0, 2, 0]),
    ];
    Story { before, writes }
}

impl Story {
    fn without(mut self, label: &str) -> Self {
        self.writes.retain(|write| write.label != label);
        self
    }

    fn after(mut self, label: &str, write: Write) -> Self {
        let place = self.writes.iter().position(|write| write.label == label).unwrap();
        self.writes.insert(place + 1, write);
        self
    }

    /// Sets a field from this write on.
    #[allow(clippy::needless_pass_by_value, reason = "a test writes its values in place")]
    fn from(mut self, label: &str, kind: Kind, name: &str, path: &str, value: Value) -> Self {
        let place = self.writes.iter().position(|write| write.label == label).unwrap();
        for write in &mut self.writes[place..] {
            if write.kind == kind && super::name(&write.object) == name {
                set(&mut write.object, path, value.clone());
            }
        }
        self
    }

    /// Sets a field of one write.
    fn at(mut self, label: &str, path: &str, value: Value) -> Self {
        let write = self.writes.iter_mut().find(|write| write.label == label).unwrap();
        set(&mut write.object, path, value);
        self
    }

    /// Sets a field of an object as it was at the beginning, and ever after.
    #[allow(clippy::needless_pass_by_value, reason = "a test writes its values in place")]
    fn always(mut self, kind: Kind, name: &str, path: &str, value: Value) -> Self {
        for write in self.before.iter_mut().chain(&mut self.writes) {
            if write.kind == kind && super::name(&write.object) == name {
                set(&mut write.object, path, value.clone());
            }
        }
        self
    }

    fn judged(self) -> Vec<String> {
        let mut revision = 0;
        let mut version = |write: Write| {
            revision += 1;
            let Write { kind, deleted, object, .. } = write;
            Arc::new(Version { revision, kind, name: name(&object).to_owned(), deleted, object })
        };
        let before: Vec<_> = self.before.into_iter().map(&mut version).collect();
        let versions: Vec<_> = self.writes.into_iter().map(&mut version).collect();
        judge_versions(&before, &versions)
    }
}

fn set(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for part in path.split('/') {
        place = match part.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[part],
        };
    }
    *place = value;
}

#[test]
fn a_good_history_passes() {
    assert_eq!(good().judged(), Vec::<String>::new());
    assert_eq!(hooked().judged(), Vec::<String>::new());
}

#[test]
fn the_order_in_which_watches_told_it_does_not_matter() {
    let mut versions = vec![];
    for (revision, Write { kind, deleted, object, .. }) in (101..).zip(good().writes) {
        versions.push(Arc::new(Version { revision, kind, name: name(&object).to_owned(), deleted, object }));
    }
    versions.sort_by_key(|version| (version.kind, version.revision));
    let before: Vec<_> = good()
        .before
        .into_iter()
        .map(|Write { kind, deleted, object, .. }| {
            Arc::new(Version { revision: 1, kind, name: name(&object).to_owned(), deleted, object })
        })
        .collect();
    assert_eq!(judge_versions(&before, &versions), Vec::<String>::new());
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table")]
fn each_bad_history_is_told() {
    use Kind::{Host, Node, Rollout};
    let counts = |total: i64, updated: i64| json!({"total": total, "pending": 0, "inFlight": 0, "updated": updated, "failed": 0});
    let entry = |host: &str, batch: i64| json!({"host": host, "uid": host, "batch": batch, "token": format!("base.r.{host}.1.{host}"), "since": "t"});
    let broken = json!([{"rolloutUid": "r", "run": 0, "outcome": "Failed"}]);
    for (story, expected) in [
        // 1: the limits, and who holds what.
        (good().at("entered", "status/inFlight", json!([entry("a", 0), entry("b", 0)])), "maxParallel is 1"),
        (good().always(Node, "b", "spec/unschedulable", json!(true)), "maxUnavailable is 1"),
        (good().always(Node, "b", "status/conditions", json!([])), "maxUnavailable is 1"),
        (good().at("entered", "status/inFlight/0/uid", json!("another")), "there is no such Host"),
        (good().after("claimed", host("", "b", Some("Claim"), 1, true)), "2 machines are claimed"),
        (good().from("cordons", Host, "a", "status/claim/token", json!("rival.1")), "from one hold to another"),
        // 2: nothing before its intent.
        (good().without("entered"), "whose ledger does not have it"),
        (good().at("claimed", "status/claim/step", json!("Drain")), "was claimed at step \"Drain\""),
        (good().at("claimed", "status/restore", Value::Null), "what it was like was recorded as null"),
        (good().at("claimed", "status/restore/cordoned", json!(true)), "what it was like"),
        (good().without("leaves"), "was excluded by"),
        (good().without("cordons").without("drains"), "was cordoned by"),
        (good().after("included", node("", "a", false, true)), "was cordoned by"),
        (good().after("left", node("", "b", false, true)), "which no ledger has"),
        (good().without("drains"), "pod web was evicted while a was at step \"Cordon\""),
        (good().without("evicted").without("gone"), "pod web is still there"),
        (good().without("cordoned"), "its node is not cordoned"),
        (good().from("drains", Host, "a", "status/assignedGeneration", json!(1)), "changed at step \"Drain\""),
        (good().from("applies", Host, "a", "status/assignedGeneration", json!(3)), "generation 3 follows 0"),
        (
            good().from("applies", Host, "a", "status/assigned/0/revision", json!("base-9")),
            "something else than its claim",
        ),
        (
            good().after("left", host("", "b", None, 1, true)).at("", "status/assignedGeneration", json!(2)).at(
                "",
                "status/assigned/0/revision",
                json!("base-9"),
            ),
            "nobody holds it",
        ),
        (
            good().from("applies", Host, "a", "status/claim/target/revision", json!("base-9")),
            "became another one under the same token",
        ),
        // 3: as it was before.
        (good().without("uncordoned").without("included"), "its node is not as it was"),
        (good().without("included"), "its node is not as it was: cordoned false"),
        (good().after("drains", node("", "a", true, false)), "no longer cordoned while its claim is at"),
        (good().always(Node, "a", "metadata/annotations", json!({})), "nobody says so"),
        // 4: paused, or deleted.
        (good().always(Rollout, "base", "spec/paused", json!(true)), "while the Rollout was paused"),
        (
            good().always(Rollout, "base", "metadata/deletionTimestamp", json!("t")),
            "while the Rollout was being deleted",
        ),
        (
            good().always(Rollout, "base", "metadata/annotations", json!({"drover.dev/pause": ""})),
            "in spite of drover.dev/pause",
        ),
        (
            good().from("entered", Rollout, "base", "status/run/stopped", json!({"action": "Abort"})),
            "after the run was stopped",
        ),
        (
            good().from("entered", Rollout, "base", "status/run/stopped", json!({"action": "Rollback"})).from(
                "entered",
                Rollout,
                "base",
                "status/run/revision",
                Value::Null,
            ),
            "the revision that is rolled back",
        ),
        (good().after("claimed", Write { deleted: true, ..rollout("", &["a"], [0, 1, 1, 0]) }), "is gone and holds a"),
        // 5: batches and counts.
        (good().at("entered", "status/counts/pending", json!(1)), "do not add up"),
        (good().at("left", "status/counts", counts(0, 0)), "complete at 0/0"),
        (
            good().at("left", "status/counts/failed", json!(1)).at("left", "status/counts/updated", json!(1)),
            "complete at 1/2",
        ),
        (good().without("reported").from("verifies", Host, "a", "status/active", Value::Null), "and 1 have reported"),
        (
            good().always(Rollout, "base", "spec/strategy/batches", json!([{"size": 0}])),
            "machine 1 of batch 0, which has 0",
        ),
        (
            good().at("entered", "status/batches", json!([{"total": 3, "updated": 0, "failed": 0}])),
            "more machines than there are",
        ),
        (good().at("entered", "status/batches", json!([{"total": 1, "updated": 1, "failed": 1}])), "more done than"),
        (good().after("drains", rollout("", &[], [1, 0, 1, 0])), "left the ledger while it is claimed"),
        (good().from("drains", Rollout, "base", "status/run/number", json!(3)), "run 3 follows run 1"),
        (good().from("left", Rollout, "base", "status/run/revision", json!("base-2")), "run 1 became another one"),
        (good().at("left", "status/run", Value::Null), "the run was forgotten"),
        // 6: deadlines.
        (
            good().after("drains", host("", "a", Some("Drain"), 0, false)).at(
                "",
                "status/claim/stepStartedAt",
                json!("later"),
            ),
            "began anew",
        ),
        (
            good().after("claimed", rollout("again", &["a"], [0, 1, 1, 0])).at(
                "again",
                "status/inFlight/0/since",
                json!("later"),
            ),
            "admitted at another time",
        ),
        (good().after("drains", host("", "a", Some("Cordon"), 0, false)), "went back from"),
        // One at a time after a failure.
        (
            good()
                .always(Rollout, "base", "spec/strategy/maxParallel", json!(2))
                .always(Rollout, "base", "spec/strategy/maxUnavailable", json!(2))
                .always(
                    Host,
                    "b",
                    "status/runs",
                    json!([{"rolloutUid": "r", "run": 1, "outcome": "Failed", "finishedAt": "t"}]),
                )
                .at("entered", "status/inFlight", json!([entry("a", 0), entry("b", 0)])),
            "nothing succeeded since the last failure",
        ),
        // What comes first.
        (
            good().always(Rollout, "base", "spec/dependsOn", json!([{"name": "database"}])),
            "began before Rollout database was complete",
        ),
        (
            good().always(Rollout, "base", "spec/hooks", json!({"beforeRun": [{"name": "migrate"}]})),
            "hook \"migrate\" of the run was passed",
        ),
        (
            good().always(Rollout, "base", "spec/hooks", json!({"afterRun": [{"name": "smoke"}]})),
            "hook \"smoke\" of the run was passed",
        ),
        (
            good().always(Rollout, "base", "spec/hooks", json!({"beforeHost": [{"name": "leave"}]})),
            "hook \"leave\" of base.r.a.1.a was passed",
        ),
        (
            good().always(Rollout, "base", "spec/hooks", json!({"afterHost": [{"name": "join"}]})).from(
                "released",
                Host,
                "a",
                "status/runs",
                json!([{"rolloutUid": "r", "run": 1, "outcome": "Succeeded"}]),
            ),
            "hook \"join\" of base.r.a.1.a was passed",
        ),
        (hooked().at("done", "status/conditions", json!([])), "its Job had not succeeded"),
        (hooked().after("done", job("", "another")), "was run twice"),
        (good().after("left", job("", "task")), "which no ledger has"),
        // 7: what is broken comes first.
        (good().always(Host, "b", "status/runs", broken), "admitted before b, which an earlier run broke"),
    ] {
        let told = story.judged();
        let found = told.iter().any(|violation| violation.contains(expected));
        assert!(found, "expected '{expected}', was told {told:#?}");
    }
}
