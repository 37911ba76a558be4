//! How a revision is stored: what is not secret in a `ControllerRevision`, the values from Secrets in a Secret beside it.

use std::collections::BTreeMap;

use drover_catalog::{Sensitive, SensitiveBytes};
use drover_crds::{ContentSource, DataFormat, DisruptionPolicy, DriftMode, NodeConfigResource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use super::{Content, Layer, SCHEME, Source};

/// The part of a revision that is kept in a `ControllerRevision`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The scheme that the name was made by. What a scheme does not have is left out, so that a release that does not
    /// know the scheme can not read half of a revision for the whole.
    pub scheme: u32,
    resources: Vec<NodeConfigResource>,
    interval_seconds: u32,
    /// Scheme 1: the data from ConfigMaps, merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<BTreeMap<String, String>>,
    /// Scheme 1: the keys of the data from Secrets. They are the keys of the Secret beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret_keys: Option<Vec<String>>,
    #[serde(default)]
    drift: DriftMode,
    #[serde(default)]
    disruption: DisruptionPolicy,
    #[serde(default)]
    priority: i32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<StoredLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    references: Vec<StoredReference>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredLayer {
    source: Source,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selector: Option<LabelSelector>,
    #[serde(default)]
    format: DataFormat,
    /// The values of a ConfigMap.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, String>,
    /// The keys of a Secret. The Secret beside has the value of the `k`th of layer `l` under `layer-<l>-<k>`: the keys
    /// of several Secrets may be equal, and are too long already for anything before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    secret_keys: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredReference {
    source: ContentSource,
    /// Of a ConfigMap: the content. Of a Secret: absent; the Secret beside has that of reference `r` under
    /// `reference-<r>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<SensitiveBytes>,
}

impl Content {
    /// What is stored of it, and the values for the Secret beside.
    pub fn store(&self) -> (Stored, BTreeMap<String, SensitiveBytes>) {
        let Self { resources, interval_seconds, drift, disruption, priority, layers, references } = self;
        let mut secrets = BTreeMap::new();
        let layer = |(number, layer): (usize, &Layer)| {
            let secret = layer.source.is_secret();
            let mut stored = StoredLayer {
                source: layer.source.clone(),
                selector: layer.selector.clone(),
                format: layer.format,
                values: BTreeMap::new(),
                secret_keys: Vec::new(),
            };
            for (position, (key, value)) in layer.values.iter().enumerate() {
                if secret {
                    secrets.insert(layer_key(number, position), SensitiveBytes::from(value));
                    stored.secret_keys.push(key.clone());
                } else {
                    stored.values.insert(key.clone(), value.expose().to_owned());
                }
            }
            stored
        };
        let layers = layers.iter().enumerate().map(layer).collect();
        let reference = |(number, (source, content)): (usize, (&ContentSource, &SensitiveBytes))| {
            let secret = source.secret_key_ref.is_some();
            if secret {
                secrets.insert(reference_key(number), content.clone());
            }
            StoredReference { source: source.clone(), content: (!secret).then(|| content.clone()) }
        };
        let references = references.iter().enumerate().map(reference).collect();
        let stored = Stored {
            scheme: SCHEME,
            resources: resources.clone(),
            interval_seconds: *interval_seconds,
            data: None,
            secret_keys: None,
            drift: *drift,
            disruption: disruption.clone(),
            priority: *priority,
            layers,
            references,
        };
        (stored, secrets)
    }
}

impl Stored {
    /// Whether this release knows the scheme. One that it does not know can not be restored, whatever else is there.
    pub fn is_known(&self) -> bool {
        (1..=SCHEME).contains(&self.scheme)
    }

    /// The content again, from what was stored and the values of the Secret beside. `None` when a value is missing.
    pub fn restore(self, secrets: &BTreeMap<String, SensitiveBytes>) -> Option<Content> {
        if !self.is_known() {
            return None;
        }
        let Self {
            scheme: _,
            resources,
            interval_seconds,
            data,
            secret_keys,
            drift,
            disruption,
            priority,
            layers,
            references,
        } = self;
        let mut restored = Vec::with_capacity(layers.len() + 2);
        let plain =
            |values: BTreeMap<String, String>| values.into_iter().map(|(k, v)| (k, Sensitive::new(v))).collect();
        // Scheme 1 had each key once, so it does not matter which of the two layers comes first.
        if let Some(values) = data.filter(|data| !data.is_empty()) {
            restored.push(Layer::new(Source::config_map(""), None, DataFormat::Text, plain(values)));
        }
        if let Some(keys) = secret_keys.filter(|keys| !keys.is_empty()) {
            let values = keys.into_iter().map(|key| Some((key.clone(), text(secrets.get(&key)?)?)));
            restored.push(Layer::new(Source::secret(""), None, DataFormat::Text, values.collect::<Option<_>>()?));
        }
        for (number, layer) in layers.into_iter().enumerate() {
            let StoredLayer { source, selector, format, values, secret_keys } = layer;
            let mut values: BTreeMap<String, Sensitive> = plain(values);
            for (position, key) in secret_keys.into_iter().enumerate() {
                values.insert(key, text(secrets.get(&layer_key(number, position))?)?);
            }
            restored.push(Layer::new(source, selector, format, values));
        }
        let references = references.into_iter().enumerate().map(|(number, StoredReference { source, content })| {
            let content = content.or_else(|| secrets.get(&reference_key(number)).cloned())?;
            Some((source, content))
        });
        let references = references.collect::<Option<_>>()?;
        Some(Content { resources, interval_seconds, drift, disruption, priority, layers: restored, references })
    }
}

fn layer_key(layer: usize, position: usize) -> String {
    format!("layer-{layer}-{position}")
}

fn reference_key(reference: usize) -> String {
    format!("reference-{reference}")
}

fn text(bytes: &SensitiveBytes) -> Option<Sensitive> {
    String::from_utf8(bytes.expose().to_vec()).ok().map(Sensitive::new)
}
