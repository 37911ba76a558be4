//! `drover-agent facts`: what templates may know of this machine, for people.

use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use drover_apply::{
    StateDir,
    facts::{Gathered, Gatherer, gather_volatile},
};
use serde_json::Value;
use tracing::warn;

use crate::{
    cli::{Exit, FactsOptions},
    one_shot::{is_booted, print},
};

/// Prints all facts, or one.
pub(crate) async fn run(options: FactsOptions) -> anyhow::Result<Exit> {
    let FactsOptions { name, root, state_dir, volatile, refresh, facts_ttl } = options;
    let state = StateDir::new(&root, &state_dir)?;
    let booted = is_booted(&root);
    let gatherer = Gatherer { root: &root, booted, state: &state, ttl: facts_ttl.duration(), refresh };
    let Gathered { facts, warnings } = gatherer.gather().await;
    for warning in warnings {
        warn!("{warning}");
    }
    let mut tree = serde_json::to_value(&facts).context("could not write the facts as JSON")?;
    if volatile && booted {
        let volatile = gather_volatile(&root, SystemTime::now());
        merge(&mut tree, serde_json::to_value(volatile).context("could not write the facts as JSON")?);
    }
    match name {
        None => print(&pretty(&tree)?)?,
        Some(name) => match find(&tree, &name).map_err(|hint| anyhow!(hint))? {
            Value::String(text) => print(text)?,
            other => print(&pretty(other)?)?,
        },
    }
    Ok(Exit::Ok)
}

fn pretty(value: &Value) -> anyhow::Result<String> {
    serde_json::to_string_pretty(value).context("could not write the facts as JSON")
}

/// Adds the fields of one tree to another.
fn merge(tree: &mut Value, more: Value) {
    match (tree, more) {
        (Value::Object(tree), Value::Object(more)) => {
            for (name, value) in more {
                merge(tree.entry(name).or_insert(Value::Null), value);
            }
        }
        (place, value) => *place = value,
    }
}

/// The fact at a dotted path, also with `facts.` before it, as templates write it. A name with dots of its own
/// (`mountpoints./srv/v1.2`) is found as well. Else a message that says what there is.
fn find<'a>(facts: &'a Value, path: &str) -> Result<&'a Value, String> {
    let path = path.strip_prefix("facts.").unwrap_or(path);
    let mut at = facts;
    let mut rest = path;
    loop {
        let names = names(at);
        let matching = |name: &&String| {
            rest.strip_prefix(name.as_str()).is_some_and(|after| after.is_empty() || after.starts_with('.'))
        };
        // The longest: `eth0.100` before `eth0`.
        let Some(name) = names.iter().filter(matching).max_by_key(|name| name.len()) else {
            let parent = path.strip_suffix(rest).unwrap_or_default().trim_end_matches('.');
            let (before, dot) = if parent.is_empty() { ("facts", "") } else { (parent, ".") };
            let known = if names.is_empty() { "nothing below it".to_owned() } else { names.join(", ") };
            let first = rest.split('.').next().unwrap_or_default();
            return Err(format!("{parent}{dot}{first} is not known; {before} has: {known}"));
        };
        at = match at {
            Value::Array(values) => name.parse().ok().and_then(|index: usize| values.get(index)),
            other => other.get(name),
        }
        .unwrap_or(at);
        rest = rest.get(name.len()..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(at);
        }
        rest = rest.trim_start_matches('.');
    }
}

/// The names below a value: those of fields, or the numbers of a list's items.
fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields.keys().cloned().collect(),
        Value::Array(values) => (0..values.len()).map(|index| index.to_string()).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fact_is_found_by_its_path() {
        let facts = json!({
            "os": {"name": "Debian", "release": {"major": "12"}},
            "networking": {"interfaces": {"eth0": {"mtu": 1500}, "eth0.100": {"mtu": 1400}}},
            "processors": {"models": ["Fast"]},
        });
        for (path, expected) in [
            ("os.name", "\"Debian\""),
            ("os.release", r#"{"major":"12"}"#),
            ("facts.os.release.major", "\"12\""),
            ("networking.interfaces.eth0.mtu", "1500"),
            ("networking.interfaces.eth0.100.mtu", "1400"),
            ("processors.models.0", "\"Fast\""),
            ("oss.name", "oss is not known; facts has: networking, os, processors"),
            ("os.relase.major", "os.relase is not known; os has: name, release"),
            ("os.release.major.x", "os.release.major.x is not known; os.release.major has: nothing below it"),
            ("processors.models.7", "processors.models.7 is not known; processors.models has: 0"),
            ("", " is not known; facts has: networking, os, processors"),
        ] {
            let found = find(&facts, path).map_or_else(|hint| hint, ToString::to_string);
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn volatile_facts_are_added_beside_the_stable_ones() {
        let mut tree = json!({"memory": {"system": {"total_bytes": 2}}, "kernel": "Linux"});
        merge(&mut tree, json!({"memory": {"system": {"available_bytes": 1}}, "time": 7}));
        let expected =
            json!({"memory": {"system": {"total_bytes": 2, "available_bytes": 1}}, "kernel": "Linux", "time": 7});
        assert_eq!(tree, expected);
    }
}
