//! What Drover promises, on real machines. Each test is a story: what a user does, and what is then so, seen from
//! outside.
//!
//! The stories share one cluster. They take turns, and each leaves it as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "this is test code")]
#![allow(
    clippy::large_futures,
    clippy::needless_pass_by_value,
    reason = "a story is told once, and writes its objects in place"
)]

mod access;
mod certificates;
mod churn;
mod configs;
mod crashes;
mod disruption;
mod engine;
mod gates;
mod main_job;
mod masters;
mod people;
mod rollouts;
mod time;
mod visitors;
mod zones;

use drover_e2e::{Fleet, NODES, machine::FOLDER};
use serde_json::{Value, json};

/// A resource: a file in the stories' folder.
fn file(name: &str, content: &str) -> Value {
    json!({"name": name, "file": {"path": format!("{FOLDER}/{name}"), "content": content}})
}

/// What each machine has as that file, in their order.
async fn files(fleet: &Fleet, name: &str) -> Vec<Option<String>> {
    let mut found = vec![];
    for node in NODES {
        found.push(fleet.machine(node).read(&format!("{FOLDER}/{name}")).await);
    }
    found
}

/// A ConfigMap or a Secret that goes with the story.
fn data(kind: &str, name: &str, values: Value) -> Value {
    let field = if kind == "Secret" { "stringData" } else { "data" };
    json!({
        "apiVersion": "v1", "kind": kind, field: values,
        "metadata": {"name": name, "namespace": "drover-system", "labels": {"drover.dev/e2e": "true"}},
    })
}

/// The same content on each machine.
fn everywhere(content: &str) -> Vec<Option<String>> {
    vec![Some(content.to_owned()); NODES.len()]
}

/// A selector of one Host.
fn only(node: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/hostname": node}})
}
