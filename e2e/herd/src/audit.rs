//! Who wrote what, from the API server's own records.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
};

use anyhow::Context as _;
use serde::Deserialize;

use crate::Stretch;

/// A write that the API server carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) verb: String,
    /// With its subresource, such as `hosts/status`.
    pub(crate) resource: String,
    pub(crate) name: String,
    /// The field manager that was named.
    pub(crate) manager: String,
    /// The answer's code.
    pub(crate) code: u16,
}

impl Write {
    /// What it is, for a table.
    pub(crate) fn kind(&self) -> String {
        let refused = if self.code < 300 { String::new() } else { format!(" ({})", self.code) };
        format!("{} {} by {}{refused}", self.verb, self.resource, self.manager)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: u16,
}

/// The writes of a stretch of the log, in their order.
pub(crate) fn writes(stretch: &Stretch) -> anyhow::Result<Vec<Write>> {
    let mut file = File::open(&stretch.path).with_context(|| format!("cannot open {}", stretch.path.display()))?;
    file.seek(SeekFrom::Start(stretch.from))?;
    let length = match stretch.to {
        0 => u64::MAX,
        to => to.checked_sub(stretch.from).context("the audit log was rotated: its files are too small")?,
    };
    let mut writes = vec![];
    for line in BufReader::new(file.take(length)).lines() {
        let Ok(entry) = serde_json::from_str::<Entry>(&line?) else { continue };
        let (Some(object), Some(answer)) = (entry.object_ref, entry.response_status) else { continue };
        let (_, query) = entry.request_uri.split_once('?').unwrap_or_default();
        let manager = query.split('&').find_map(|pair| pair.strip_prefix("fieldManager=")).unwrap_or("nobody");
        let slash = if object.subresource.is_empty() { "" } else { "/" };
        writes.push(Write {
            verb: entry.verb,
            resource: format!("{}{slash}{}", object.resource, object.subresource),
            name: object.name,
            manager: manager.to_owned(),
            code: answer.code,
        });
    }
    Ok(writes)
}

/// How many writes of each kind.
pub(crate) fn by_kind(writes: &[Write]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for write in writes {
        *kinds.entry(write.kind()).or_default() += 1;
    }
    kinds
}
