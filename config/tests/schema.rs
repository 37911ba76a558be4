//! What holds for each definition, whatever kinds there are.
#![allow(clippy::unwrap_used, reason = "a test")]

use drover_config::definition::{Definition, definitions};
use serde_json::Value;

fn all() -> Vec<Definition> {
    definitions().unwrap()
}

/// Calls `visit` with each schema and its path; `.spec.batches[].size` is the size of an item of a list.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, visit);
    }
    for keyword in ["items", "additionalProperties"] {
        if schema[keyword].is_object() {
            walk(&format!("{path}[]"), &schema[keyword], visit);
        }
    }
}

/// Fails with a list of the schemas, of all kinds, that `wrong` holds for.
fn check(wrong: impl Fn(&str, &Value) -> bool) {
    let mut found = Vec::new();
    let mut seen = 0;
    for definition in all() {
        walk("", definition.schema(), &mut |path, schema| {
            seen += 1;
            if wrong(path, schema) {
                found.push(format!("{}: {path}", definition.name()));
            }
        });
    }
    assert!(seen > 200, "only {seen} schemas were looked at");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn each_field_is_described() {
    // An item that is a plain value is described by its list.
    check(|path, schema| {
        let plain_item = path.ends_with("[]") && schema["properties"].is_null();
        !plain_item && schema["description"].as_str().is_none_or(|text| text.trim().is_empty())
    });
}

#[test]
fn no_spec_has_defaults() {
    check(|path, schema| path != ".status" && !schema["default"].is_null());
}

#[test]
fn numbers_are_signed() {
    check(|_, schema| schema["format"].as_str().is_some_and(|format| format.starts_with("uint")));
}

#[test]
fn no_field_may_be_null() {
    check(|_, schema| !schema["nullable"].is_null());
}

#[test]
fn an_enum_says_what_each_value_means() {
    check(|_, schema| {
        let description = schema["description"].as_str().unwrap_or_default();
        let values = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
        values.into_iter().any(|value| !description.contains(&format!("`{value}`: ")))
    });
}

#[test]
fn a_refusal_says_what_to_write() {
    check(|_, schema| {
        let rules = schema["x-kubernetes-validations"].as_array();
        rules.into_iter().flatten().any(|rule| rule["message"].as_str().is_none_or(str::is_empty))
    });
}

#[test]
fn definitions_are_small() {
    for definition in all() {
        let size = definition.as_json().to_string().len();
        assert!(size <= 100 * 1024, "{} has {size} bytes", definition.name());
    }
}

#[test]
fn each_column_shows_a_field() {
    for definition in all() {
        let paths = definition.column_paths();
        assert!(paths.len() > 3);
        for path in paths {
            assert!(has_field(&definition, path), "{} has no {path}", definition.name());
        }
    }
}

#[test]
fn a_field_that_is_not_there_is_noticed() {
    let definition = all().remove(0);
    assert!(!has_field(&definition, ".status.mood"));
    assert!(!has_field(&definition, ".status.facts.os.mood"));
}

/// Whether the path names something that objects of this kind can have. Of `metadata`, the schema says nothing; of facts,
/// their type does.
fn has_field(definition: &Definition, path: &str) -> bool {
    if path.starts_with(".metadata.") {
        return true;
    }
    if let Some(fact) = path.strip_prefix(".status.facts.") {
        let facts = serde_json::to_value(drover_catalog::Facts::default()).unwrap();
        return facts.pointer(&format!("/{}", fact.replace('.', "/"))).is_some();
    }
    let mut schema = definition.schema();
    for step in path.split('.').skip(1) {
        // `conditions[?(@` and `type=='Ready')]`: an item of a list, chosen by its type.
        if step.starts_with("type==") {
            continue;
        }
        let (name, chosen) = step.split_once('[').map_or((step, false), |(name, _)| (name, true));
        schema = &schema["properties"][name];
        if chosen {
            schema = &schema["items"];
        }
        if schema.is_null() {
            return false;
        }
    }
    true
}
