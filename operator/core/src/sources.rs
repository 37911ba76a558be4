//! What a NodeConfig refers to, and the content that it makes of that: the same for the operator, which reads the objects
//! from the API server, and for a machine without one, which reads them from files.

use std::collections::{BTreeMap, BTreeSet};

use drover_catalog::{Sensitive, SensitiveBytes};
use drover_crds::{ContentSource, KeyRef, NodeConfigResource, NodeConfigSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::Value;

use crate::{
    compile::referred,
    revision::{Content, Layer, Source},
};

/// The names of the objects that a NodeConfig refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

/// The objects themselves, by name; those that are not there are left out.
#[derive(Clone, Default)]
pub struct Objects {
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets.
    pub secrets: BTreeMap<String, Secret>,
}

/// Something that a NodeConfig refers to is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// An object.
    #[error("{by} names {object}, which is not there")]
    Object {
        /// What refers to it.
        by: String,
        /// The object, in words.
        object: String,
    },
    /// A key of an object.
    #[error("{by} names key {key} of {object}, which is not there; the object is")]
    Key {
        /// What refers to it.
        by: String,
        /// The object, in words.
        object: String,
        /// The key.
        key: String,
    },
    /// A value that templates could not read.
    #[error(
        "key {key} of {object}, which dataFrom names, is not text (UTF-8); encode it, or refer to it by contentFrom"
    )]
    NotText {
        /// The object, in words.
        object: String,
        /// The key.
        key: String,
    },
    /// A reference to nothing.
    #[error("{by} names neither a ConfigMap nor a Secret, or both; name one of them")]
    Nothing {
        /// What refers to it.
        by: String,
    },
}

/// What a NodeConfig refers to.
pub fn names(spec: &NodeConfigSpec) -> Names {
    let mut names = Names::default();
    for source in &spec.data_from {
        names.config_maps.extend(source.config_map_ref.iter().map(|reference| reference.name.clone()));
        names.secrets.extend(source.secret_ref.iter().map(|reference| reference.name.clone()));
    }
    for source in spec.resources.iter().flat_map(references) {
        names.config_maps.extend(source.config_map_key_ref.map(|reference| reference.name));
        names.secrets.extend(source.secret_key_ref.map(|reference| reference.name));
    }
    names
}

/// The content of the newest revision.
pub fn content(spec: &NodeConfigSpec, objects: &Objects) -> Result<Content, Missing> {
    let mut layers = Vec::with_capacity(spec.data_from.len());
    for entry in &spec.data_from {
        let source = match (&entry.config_map_ref, &entry.secret_ref) {
            (Some(reference), None) => Source::config_map(&reference.name),
            (None, Some(reference)) => Source::secret(&reference.name),
            _ => return Err(Missing::Nothing { by: "dataFrom".to_owned() }),
        };
        let values = objects.texts(&source)?;
        layers.push(Layer::new(source, entry.host_selector.clone(), entry.format.unwrap_or_default(), values));
    }
    let mut contents = BTreeMap::new();
    for resource in &spec.resources {
        for source in references(resource) {
            let by = format!("resource {}", resource.name);
            let (from, KeyRef { name: _, key }) =
                referred(&source).ok_or_else(|| Missing::Nothing { by: by.clone() })?;
            let value = objects.value(&from, key, &by)?;
            contents.insert(source, value);
        }
    }
    Ok(Content {
        resources: spec.resources.clone(),
        interval_seconds: spec.resolved_interval_seconds(),
        drift: spec.resolved_drift_mode(),
        disruption: spec.disruption.clone().unwrap_or_default(),
        priority: spec.resolved_priority(),
        layers,
        references: contents,
    })
}

impl Objects {
    /// All values of an object that templates can read.
    fn texts(&self, source: &Source) -> Result<BTreeMap<String, Sensitive>, Missing> {
        let object = || Missing::Object { by: "dataFrom".to_owned(), object: source.to_string() };
        if !source.is_secret() {
            let map = self.config_maps.get(&source.name).ok_or_else(object)?;
            let data = map.data.iter().flatten();
            return Ok(data.map(|(key, value)| (key.clone(), Sensitive::new(value))).collect());
        }
        let secret = self.secrets.get(&source.name).ok_or_else(object)?;
        let text = |(key, value): (String, SensitiveBytes)| match String::from_utf8(value.expose().to_vec()) {
            Ok(text) => Ok((key, Sensitive::new(text))),
            Err(_) => Err(Missing::NotText { object: source.to_string(), key }),
        };
        values_of(secret).into_iter().map(text).collect()
    }

    /// One value of an object.
    fn value(&self, source: &Source, key: &str, by: &str) -> Result<SensitiveBytes, Missing> {
        let (by, object) = (by.to_owned(), source.to_string());
        let values = if source.is_secret() {
            self.secrets.get(&source.name).map(values_of)
        } else {
            self.config_maps.get(&source.name).map(|map| {
                let text =
                    map.data.iter().flatten().map(|(key, text)| (key.clone(), SensitiveBytes::new(text.as_str())));
                let bytes = map.binary_data.iter().flatten();
                text.chain(bytes.map(|(key, value)| (key.clone(), SensitiveBytes::new(value.0.clone())))).collect()
            })
        };
        let Some(mut values) = values else { return Err(Missing::Object { by, object }) };
        values.remove(key).ok_or_else(|| Missing::Key { by, object, key: key.to_owned() })
    }
}

/// The values of a Secret. `stringData` is of manifests only: the API server puts it into `data`, and so does this.
fn values_of(secret: &Secret) -> BTreeMap<String, SensitiveBytes> {
    let data = secret.data.iter().flatten().map(|(key, value)| (key.clone(), SensitiveBytes::new(value.0.clone())));
    let text = secret.string_data.iter().flatten();
    data.chain(text.map(|(key, text)| (key.clone(), SensitiveBytes::new(text.as_str())))).collect()
}

/// What a resource refers to, whatever its type: each `configMapKeyRef` and `secretKeyRef` in it.
fn references(resource: &NodeConfigResource) -> Vec<ContentSource> {
    let mut found = Vec::new();
    if let Ok(value) = serde_json::to_value(resource) {
        collect(&value, &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut Vec<ContentSource>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => {
            for (field, below) in fields {
                // An environment variable may have this name as well; its value is no reference.
                let reference = || serde_json::from_value::<KeyRef>(below.clone()).ok();
                match field.as_str() {
                    "configMapKeyRef" => found.extend(
                        reference().map(|r| ContentSource { config_map_key_ref: Some(r), secret_key_ref: None }),
                    ),
                    "secretKeyRef" => found.extend(
                        reference().map(|r| ContentSource { config_map_key_ref: None, secret_key_ref: Some(r) }),
                    ),
                    _ => collect(below, found),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects() -> Objects {
        let map: ConfigMap = serde_json::from_value(
            json!({"metadata": {"name": "m"}, "data": {"a": "text"}, "binaryData": {"b": "/wA="}}),
        )
        .unwrap();
        let secret: Secret = serde_json::from_value(
            json!({"metadata": {"name": "s"}, "data": {"a": "aHVudGVyMg=="}, "stringData": {"b": "hunter3"}}),
        )
        .unwrap();
        let binary: Secret = serde_json::from_value(json!({"metadata": {"name": "b"}, "data": {"k": "/wA="}})).unwrap();
        Objects {
            config_maps: [("m".to_owned(), map)].into(),
            secrets: [("s".to_owned(), secret), ("b".to_owned(), binary)].into(),
        }
    }

    fn spec(data_from: &Value) -> NodeConfigSpec {
        serde_json::from_value(json!({"resources": [], "dataFrom": data_from})).unwrap()
    }

    #[test]
    fn data_comes_layer_by_layer() {
        let from = json!([
            {"configMapRef": {"name": "m"}, "format": "Yaml", "hostSelector": {"matchLabels": {"a": "b"}}},
            {"secretRef": {"name": "s"}},
        ]);
        let content = content(&spec(&from), &objects()).unwrap();
        let told: Vec<String> = content
            .layers
            .iter()
            .map(|layer| {
                let keys: Vec<&str> = layer.values.keys().map(String::as_str).collect();
                format!("{} {:?} {} {}", layer.source, layer.format, layer.selector.is_some(), keys.join(","))
            })
            .collect();
        assert_eq!(told, ["ConfigMap m Yaml true a", "Secret s Text false a,b"]);
        assert_eq!(content.layers[1].values["b"].expose(), "hunter3");
        let names = names(&spec(&from));
        assert!(names.config_maps.contains("m") && names.secrets.contains("s"));
    }

    #[test]
    fn what_is_not_there_is_named_and_no_value_is_shown() {
        for (from, told) in [
            (json!([{"configMapRef": {"name": "x"}}]), "dataFrom names ConfigMap x, which is not there"),
            (json!([{"secretRef": {"name": "x"}}]), "dataFrom names Secret x, which is not there"),
            (
                json!([{"secretRef": {"name": "b"}}]),
                "key k of Secret b, which dataFrom names, is not text (UTF-8); encode it, or refer to it by contentFrom",
            ),
            (json!([{}]), "dataFrom names neither a ConfigMap nor a Secret, or both; name one of them"),
        ] {
            assert_eq!(content(&spec(&from), &objects()).unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn references_are_found_in_any_type() {
        let mut found = Vec::new();
        let reference = json!({"name": "s", "key": "k"});
        collect(
            &json!({"file": {"contentFrom": {"secretKeyRef": reference}}, "keys": [{"from": {"configMapKeyRef": reference}}],
                "environment": {"secretKeyRef": "not one"}}),
            &mut found,
        );
        let kinds: Vec<bool> = found.iter().map(|source| source.secret_key_ref.is_some()).collect();
        assert_eq!(kinds, [true, false]);
    }

    #[test]
    fn a_value_is_read_from_each_place_that_an_object_has() {
        let objects = objects();
        for (source, key, wanted) in [
            (Source::config_map("m"), "a", &b"text"[..]),
            (Source::config_map("m"), "b", &[0xff, 0]),
            (Source::secret("s"), "a", b"hunter2"),
            (Source::secret("s"), "b", b"hunter3"),
            (Source::secret("b"), "k", &[0xff, 0]),
        ] {
            assert_eq!(objects.value(&source, key, "resource r").unwrap().expose(), wanted, "{source} {key}");
        }
        for (source, key, told) in [
            (Source::config_map("x"), "a", "resource r names ConfigMap x, which is not there"),
            (Source::secret("s"), "x", "resource r names key x of Secret s, which is not there; the object is"),
        ] {
            assert_eq!(objects.value(&source, key, "resource r").unwrap_err().to_string(), told);
        }
    }
}
