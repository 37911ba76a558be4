//! Layers of data, merged for one machine: the most specific wins.
//!
//! Values are secret wherever they come from a Secret, and stay so when they are merged with others: a top-level key is
//! secret when any layer that is left in it is one of a Secret. No error and no debug form shows a value.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::OnceLock,
};

use drover_catalog::Sensitive;
use drover_crds::DataFormat;
use serde_json::Value;

use crate::{
    revision::{Layer, Source},
    selector,
};

/// A value that is not what its layer's format says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {key} of {origin} is no YAML{place}; correct it, or leave format out to read it as text")]
pub struct DataError {
    /// The key.
    pub key: String,
    /// The object, in words.
    pub origin: String,
    /// Where in the value, if that is known.
    pub place: String,
}

/// What the templates of one machine read as `data`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data(BTreeMap<String, Datum>);

/// What stands under one key.
#[derive(Clone, PartialEq)]
pub struct Datum {
    /// The value. Never pass it to a log, an error or a report.
    pub value: Value,
    /// Whether a Secret is in it.
    pub secret: bool,
    /// The layers that are in it, from the least specific.
    pub sources: BTreeSet<Source>,
}

impl fmt::Debug for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(not shown, from {:?})", self.sources)
    }
}

impl Data {
    /// By key.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Datum)> {
        self.0.iter()
    }

    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&Datum> {
        self.0.get(key)
    }

    /// Whether the other has the same values, equally secret, wherever they are from.
    pub fn has_values_of(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().all(|(key, ours)| {
                other.0.get(key).is_some_and(|theirs| ours.value == theirs.value && ours.secret == theirs.secret)
            })
    }
}

/// Merges the layers that are for a machine with these labels.
///
/// The one whose selector has more requirements wins; among equals, the later one. Maps are merged key by key, at any
/// depth; everything else is replaced as a whole.
pub fn merge(layers: &[Layer], labels: &BTreeMap<String, String>) -> Result<Data, DataError> {
    let mut chosen: Vec<&Layer> =
        layers.iter().filter(|layer| selector::matches(layer.selector.as_ref(), Some(labels))).collect();
    // The sort is stable: equals stay as they are written.
    chosen.sort_by_key(|layer| selector::requirements(layer.selector.as_ref()));
    let mut merged: BTreeMap<String, Datum> = BTreeMap::new();
    for layer in chosen {
        for (key, value) in layer.parsed().of(layer)? {
            let source = layer.source.clone();
            match merged.get_mut(key) {
                Some(datum) if datum.value.is_object() && value.is_object() => {
                    overlay(&mut datum.value, value);
                    datum.secret |= source.is_secret();
                    datum.sources.insert(source);
                }
                _ => {
                    let secret = source.is_secret();
                    let datum = Datum { value: value.clone(), secret, sources: BTreeSet::from([source]) };
                    merged.insert(key.clone(), datum);
                }
            }
        }
    }
    Ok(Data(merged))
}

/// The first value of all layers that can not be read.
pub fn check(layers: &[Layer]) -> Result<(), DataError> {
    layers.iter().try_for_each(|layer| layer.parsed().of(layer).map(drop))
}

fn overlay(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                match below.get_mut(key) {
                    Some(existing) => overlay(existing, value),
                    None => {
                        below.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (below, above) => *below = above.clone(),
    }
}

/// A layer's values, read once: a revision is compiled for many machines. It is no part of what a layer is.
#[derive(Clone, Default)]
pub(crate) struct Parsed(OnceLock<Result<BTreeMap<String, Value>, DataError>>);

impl Parsed {
    fn of(&self, layer: &Layer) -> Result<&BTreeMap<String, Value>, DataError> {
        let read = || layer.values.iter().map(|(key, value)| Ok((key.clone(), parse(layer, key, value)?))).collect();
        self.0.get_or_init(read).as_ref().map_err(Clone::clone)
    }
}

impl PartialEq for Parsed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

fn parse(layer: &Layer, key: &str, value: &Sensitive) -> Result<Value, DataError> {
    match layer.format {
        DataFormat::Text => Ok(Value::String(value.expose().to_owned())),
        // The parser's own words may quote the value; the place does not.
        DataFormat::Yaml => serde_saphyr::from_str(value.expose()).map_err(|error| DataError {
            key: key.to_owned(),
            origin: layer.source.to_string(),
            place: error.location().map(|at| format!(" at line {}", at.line())).unwrap_or_default(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn selector(requirements: usize) -> Option<LabelSelector> {
        let labels: BTreeMap<String, String> = (0..requirements).map(|i| (format!("l{i}"), "x".into())).collect();
        (requirements > 0).then(|| LabelSelector { match_labels: Some(labels), ..LabelSelector::default() })
    }

    fn labels() -> BTreeMap<String, String> {
        (0..4).map(|i| (format!("l{i}"), "x".to_owned())).collect()
    }

    fn layer(source: Source, requirements: usize, format: DataFormat, values: &[(&str, &str)]) -> Layer {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), Sensitive::new(*value))).collect();
        Layer::new(source, selector(requirements), format, values)
    }

    fn check(layers: &[Layer], expected: &Value) {
        let data = merge(layers, &labels()).unwrap();
        let told: Value = data
            .iter()
            .map(|(key, datum)| {
                let sources: Vec<&str> = datum.sources.iter().map(|source| source.name.as_str()).collect();
                (key.clone(), json!([datum.value, datum.secret, sources.join(",")]))
            })
            .collect();
        assert_eq!(&told, expected);
    }

    #[test]
    fn the_most_specific_layer_wins_and_among_equals_the_later() {
        use DataFormat::Text;
        let map = Source::config_map;
        check(
            &[layer(map("a"), 0, Text, &[("x", "1")]), layer(map("b"), 0, Text, &[("x", "2"), ("y", "3")])],
            &json!({"x": ["2", false, "b"], "y": ["3", false, "b"]}),
        );
        check(
            &[layer(map("a"), 2, Text, &[("x", "1")]), layer(map("b"), 1, Text, &[("x", "2")])],
            &json!({"x": ["1", false, "a"]}),
        );
        let mut elsewhere = layer(map("a"), 1, Text, &[("x", "1")]);
        elsewhere.selector.as_mut().unwrap().match_labels = Some([("l0".into(), "y".into())].into());
        check(&[elsewhere], &json!({}));
        let mut expressions = layer(map("a"), 1, Text, &[("x", "1")]);
        let exists = |key: &str| json!({"key": key, "operator": "Exists"});
        expressions.selector =
            serde_json::from_value(json!({"matchExpressions": [exists("l0"), exists("l1")]})).unwrap();
        check(&[expressions, layer(map("b"), 1, Text, &[("x", "2")])], &json!({"x": ["1", false, "a"]}));
    }

    #[test]
    fn maps_are_merged_and_the_rest_is_replaced() {
        use DataFormat::{Text, Yaml};
        let map = Source::config_map;
        check(
            &[
                layer(map("a"), 0, Yaml, &[("x", "{a: 1, b: {c: [1, 2], d: 3}}"), ("y", "- 1")]),
                layer(map("b"), 0, Yaml, &[("x", r#"{"b": {"c": [9]}, "e": true}"#), ("y", "{}")]),
            ],
            &json!({"x": [{"a": 1, "b": {"c": [9], "d": 3}, "e": true}, false, "a,b"], "y": [{}, false, "b"]}),
        );
        check(
            &[layer(map("a"), 0, Yaml, &[("x", "{a: 1}")]), layer(map("b"), 0, Text, &[("x", "{a: 2}")])],
            &json!({"x": ["{a: 2}", false, "b"]}),
        );
    }

    #[test]
    fn a_secret_stays_one_until_it_is_replaced() {
        use DataFormat::Yaml;
        let secret = layer(Source::secret("s"), 0, Yaml, &[("x", "{a: hunter2}")]);
        let plain = layer(Source::config_map("m"), 0, Yaml, &[("x", "{b: 1}")]);
        let both = json!({"x": [{"a": "hunter2", "b": 1}, true, "m,s"]});
        check(&[secret.clone(), plain.clone()], &both);
        check(&[plain, secret.clone()], &both);
        check(&[secret, layer(Source::config_map("m"), 0, Yaml, &[("x", "1")])], &json!({"x": [1, false, "m"]}));
    }

    #[test]
    fn what_is_no_yaml_is_named_and_not_shown() {
        for value in ["{a: hunter2", "a: hunter2: x", "hunter2: 1\nhunter2: 2", "!!int hunter2"] {
            let layer = layer(Source::secret("door"), 0, DataFormat::Yaml, &[("k", value)]);
            let error = merge(std::slice::from_ref(&layer), &labels()).expect_err(value);
            let shown = format!("{error} {error:?} {layer:?}");
            assert!(
                shown.starts_with("key k of Secret door is no YAML at line ") && !shown.contains("hunter2"),
                "{shown}"
            );
        }
        let good = layer(Source::secret("door"), 0, DataFormat::Yaml, &[("k", "hunter2")]);
        let shown = format!("{good:?} {:?}", merge(std::slice::from_ref(&good), &labels()).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    /// Merged anew, by asking for each path which layer has the last word on it.
    fn leaf(layers: &[(usize, Value)], path: &[&str]) -> Option<Value> {
        let mut sorted: Vec<&(usize, Value)> = layers.iter().collect();
        sorted.sort_by_key(|(requirements, _)| *requirements);
        let mut result: Option<Value> = None;
        for (_, value) in sorted {
            let (mut at, mut cut) = (value, false);
            for step in path {
                // Something that is no map stands in the way: it replaced what was below.
                let Some(map) = at.as_object() else {
                    (result, cut) = (None, true);
                    break;
                };
                let Some(below) = map.get(*step) else {
                    cut = true;
                    break;
                };
                at = below;
            }
            if !cut {
                result = (!at.is_object()).then(|| at.clone());
            }
        }
        result
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![(0..9_i32).prop_map(|n| json!(n)), Just(json!([1, 2]))];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[ab]", inner, 1..3).prop_map(|map| json!(map))
        })
    }

    proptest! {
        #[test]
        fn each_leaf_is_that_of_the_layer_with_the_last_word(layers in prop::collection::vec((0_usize..4, tree()), 1..5)) {
            let as_layers: Vec<Layer> = layers.iter().map(|(requirements, value)| {
                layer(Source::config_map("m"), *requirements, DataFormat::Yaml, &[("k", &value.to_string())])
            }).collect();
            let merged = merge(&as_layers, &labels()).unwrap();
            let value = &merged.get("k").unwrap().value;
            for path in [&[][..], &["a"], &["b"], &["a", "a"], &["a", "b"], &["b", "a"], &["b", "b"], &["a", "b", "a"]] {
                let pointer = path.iter().fold(String::new(), |pointer, step| pointer + "/" + step);
                let found = value.pointer(&pointer).filter(|found| !found.is_object()).cloned();
                prop_assert_eq!(found, leaf(&layers, path), "{}", pointer);
            }
        }
    }
}
