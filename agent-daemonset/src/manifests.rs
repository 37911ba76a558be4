//! NodeConfigs, and the ConfigMaps and Secrets that they read, from YAML files: what an agent without a cluster goes by.
//!
//! A folder is read with all below it, as `kubectl apply --recursive` does. Other kinds may lie beside them, as in a
//! repository that a cluster is fed from; they are left out and named. An unknown field is an error, as the API server
//! has it: a misspelt one would silently not be applied.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use drover_crds::NodeConfig;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

/// Larger files are no manifests.
const LARGEST: u64 = 8 << 20;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    /// What machines must look like.
    pub(crate) node_configs: Vec<NodeConfig>,
    /// Data for them.
    pub(crate) config_maps: Vec<ConfigMap>,
    /// Secret data for them.
    pub(crate) secrets: Vec<Secret>,
    /// What is of no use here, as `Kind name`.
    pub(crate) left_out: Vec<String>,
}

/// Why manifests could not be read. Nothing here shows a value of a Secret.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// A file or folder cannot be read.
    #[error("could not read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is too large.
    #[error("{path} has {bytes} bytes, which is no manifest; name the files themselves instead of the folder")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file is no YAML.
    #[error("{path} is no YAML: {why}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A document is not what it says it is.
    #[error("{path}, document {number}: {why}")]
    Document {
        /// Which file.
        path: PathBuf,
        /// Which document in it, from 1.
        number: usize,
        /// What is wrong, and where.
        why: String,
    },
}

impl Manifests {
    /// Reads files and folders; `-` is standard input.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut manifests = Self::default();
        for path in paths {
            if path == Path::new("-") {
                let mut text = String::new();
                let failed = |source| Error::Read { path: path.clone(), source };
                std::io::stdin().take(LARGEST).read_to_string(&mut text).map_err(failed)?;
                manifests.add(path, &text)?;
            } else {
                manifests.add_path(path, true)?;
            }
        }
        Ok(manifests)
    }

    /// Adds a file, or all manifests below a folder; `named`: by the user, and not only found.
    fn add_path(&mut self, path: &Path, named: bool) -> Result<(), Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let metadata = path.metadata().map_err(failed)?;
        if metadata.is_dir() {
            let entries: Result<Vec<_>, _> = std::fs::read_dir(path).map_err(failed)?.collect();
            let mut below: Vec<PathBuf> = entries.map_err(failed)?.into_iter().map(|entry| entry.path()).collect();
            below.sort();
            let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            below.retain(|path| !hidden(path));
            return below.iter().try_for_each(|path| self.add_path(path, false));
        }
        let is_manifest =
            path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml" || ending == "json");
        if !named && !is_manifest {
            return Ok(());
        }
        if metadata.len() > LARGEST {
            return Err(Error::TooLarge { path: path.to_owned(), bytes: metadata.len() });
        }
        self.add(path, &std::fs::read_to_string(path).map_err(failed)?)
    }

    /// Adds the documents of one file.
    fn add(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| Error::Syntax { path: path.to_owned(), why: place(&error) })?;
        for (index, document) in documents.into_iter().enumerate() {
            let wrong = |why: String| Error::Document { path: path.to_owned(), number: index + 1, why };
            self.add_document(document).map_err(wrong)?;
        }
        Ok(())
    }

    fn add_document(&mut self, document: Value) -> Result<(), String> {
        if document.is_null() {
            return Ok(());
        }
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        match (version.as_str(), kind.as_str()) {
            ("", _) | (_, "") => return Err("it has no apiVersion or no kind".to_owned()),
            ("v1", "List") => {
                let items = document.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
                return items.into_iter().try_for_each(|item| self.add_document(item));
            }
            _ if name.is_empty() => return Err(format!("this {kind} has no metadata.name")),
            ("drover.dev/v1alpha1", "NodeConfig") => self.node_configs.push(strict(&document, &name)?),
            ("v1", "ConfigMap") => {
                let wrong = |_| format!("ConfigMap {name} is none: data and binaryData must map names to texts");
                self.config_maps.push(serde_json::from_value(document).map_err(wrong)?);
            }
            ("v1", "Secret") => {
                // What serde says would show the value.
                let wrong = |_| format!("Secret {name} is none: data must map names to base64, stringData to texts");
                self.secrets.push(serde_json::from_value(document).map_err(wrong)?);
            }
            _ => self.left_out.push(format!("{kind} {name}")),
        }
        Ok(())
    }
}

/// Reads an object that has no unknown field.
fn strict<T: DeserializeOwned>(document: &Value, name: &str) -> Result<T, String> {
    let mut unknown = Vec::new();
    let text = document.to_string();
    let mut reader = serde_json::Deserializer::from_str(&text);
    let read = serde_ignored::deserialize(&mut reader, |path| unknown.push(path.to_string()));
    let object = read.map_err(|error| {
        // The position is one in our own rendering, which nobody has seen.
        let why = error.to_string();
        let why = why.split(" at line ").next().unwrap_or_default().to_owned();
        format!("NodeConfig {name}: {why}")
    })?;
    // kube's objects leave these two to the reader; `.?` is how the path of an optional field is written.
    unknown.retain(|field| field != "apiVersion" && field != "kind");
    let unknown: Vec<String> = unknown.into_iter().map(|field| field.replace(".?", "")).collect();
    if unknown.is_empty() {
        return Ok(object);
    }
    let fields = unknown.join(", ");
    Err(format!("NodeConfig {name}: unknown field {fields}; see docs/resources.md for what there is"))
}

/// Where a syntax error is, and its kind; never the text around it, which may be a Secret.
fn place(error: &serde_saphyr::Error) -> String {
    match error.location() {
        Some(location) => format!("see line {}, column {}", location.line(), location.column()),
        None => "it could not be parsed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "apiVersion: drover.dev/v1alpha1\nkind: NodeConfig\nmetadata: {name: base}\nspec:\n  resources:\n  - {name: motd, file: {path: /etc/motd, content: moo}}\n";

    fn read(text: &str) -> Result<Manifests, String> {
        let mut manifests = Manifests::default();
        manifests.add(Path::new("x.yaml"), text).map(|()| manifests).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = read(text).unwrap_err();
        assert_eq!(error, why);
    }

    #[test]
    fn reads_what_it_needs_and_names_the_rest() {
        let text = format!(
            "---\n{CONFIG}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: herd}}\ndata: {{a: b}}\n---\n\
             apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Secret, metadata: {{name: door}}, stringData: {{key: k}}}}\n\
             ---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\n"
        );
        let manifests = read(&text).unwrap();
        assert_eq!(manifests.node_configs[0].spec.resources[0].name, "motd");
        assert_eq!((manifests.config_maps.len(), manifests.secrets.len()), (1, 1));
        assert_eq!(manifests.left_out, ["Deployment web"]);
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        refused(
            &CONFIG.replace("content:", "contents: x, content:"),
            "x.yaml, document 1: NodeConfig base: unknown field spec.resources.0.file.contents; see docs/resources.md for what there is",
        );
        refused(
            &CONFIG.replace("metadata: {name: base}\n", ""),
            "x.yaml, document 1: this NodeConfig has no metadata.name",
        );
        refused("a: b", "x.yaml, document 1: it has no apiVersion or no kind");
        refused(&CONFIG.replace("path: /etc/motd, ", ""), "x.yaml, document 1: NodeConfig base: missing field `path`");
    }

    #[test]
    fn no_error_shows_a_secret() {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: door}\n";
        for data in
            ["data: {key: hunter2!}\n", "data: [hunter2]\n", "stringData: {key: [hunter2]}\n", "data: {key: hunter2\n"]
        {
            let error = read(&format!("{secret}{data}")).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_folder_is_read_with_all_below_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("sub/.git")).unwrap();
        std::fs::write(folder.path().join("sub/base.yaml"), CONFIG).unwrap();
        std::fs::write(folder.path().join("README.md"), "# no: manifest: {").unwrap();
        std::fs::write(folder.path().join("sub/.git/x.yaml"), "{").unwrap();
        let manifests = Manifests::read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(manifests.node_configs.len(), 1);
        let missing = Manifests::read(&[folder.path().join("none.yaml")]).unwrap_err().to_string();
        assert!(missing.contains("none.yaml"), "{missing}");
    }
}
