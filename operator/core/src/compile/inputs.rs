//! What the lowering of a resource may ask for: rendered templates, and content that it refers to.

use std::collections::{BTreeMap, BTreeSet};

use drover_catalog::{Facts, Origin, SensitiveBytes};
use drover_crds::{ContentSource, KeyRef};

use super::{
    CompileError, TemplateError,
    template::{self, Templates},
};
use crate::revision::Source;

/// What the lowering of a resource may ask for: rendered templates, and content that it refers to.
pub(super) trait Inputs {
    /// The text that a template makes.
    fn render(&mut self, template: &str) -> Result<String, TemplateError>;
    /// The content of a key of a ConfigMap or Secret.
    fn content(&mut self, source: &ContentSource) -> Result<SensitiveBytes, CompileError>;
    /// Says that what was lowered holds a secret by its nature.
    fn mark_sensitive(&mut self);
    /// The machine's facts; `None` when a NodeConfig is checked without a host.
    fn facts(&self) -> Option<&Facts>;
}

/// The inputs of one resource on one machine. They note what was read.
pub(super) struct OfHost<'a> {
    of_revision: OfRevision<'a>,
    templates: &'a Templates,
    facts: &'a Facts,
}

/// The inputs of one resource that are the same on all machines. They note what was read.
pub(super) struct OfRevision<'a> {
    resource: &'a str,
    references: &'a BTreeMap<ContentSource, SensitiveBytes>,
    read: Read,
}

/// What a resource read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Whether any of it is secret.
    pub(super) secret: bool,
    /// Where it came from.
    pub(super) origins: BTreeSet<Origin>,
}

impl Read {
    /// Notes what was read beside.
    pub(super) fn add(&mut self, other: Self) {
        self.secret |= other.secret;
        self.origins.extend(other.origins);
    }
}

impl<'a> OfHost<'a> {
    pub(super) fn new(of_revision: OfRevision<'a>, templates: &'a Templates, facts: &'a Facts) -> Self {
        Self { of_revision, templates, facts }
    }

    /// Whether anything that was read until now is secret.
    pub(super) fn has_read_a_secret(&self) -> bool {
        self.of_revision.read.secret
    }

    /// What was read until now.
    pub(super) fn into_read(self) -> Read {
        self.of_revision.into_read()
    }
}

impl Inputs for OfHost<'_> {
    fn render(&mut self, template: &str) -> Result<String, TemplateError> {
        let (text, read) = self.templates.render(template)?;
        self.of_revision.read.add(read);
        Ok(text)
    }

    fn content(&mut self, source: &ContentSource) -> Result<SensitiveBytes, CompileError> {
        self.of_revision.content(source)
    }

    fn mark_sensitive(&mut self) {
        self.of_revision.mark_sensitive();
    }

    fn facts(&self) -> Option<&Facts> {
        Some(self.facts)
    }
}

impl<'a> OfRevision<'a> {
    /// `resource` is how errors call it.
    pub(super) fn new(resource: &'a str, references: &'a BTreeMap<ContentSource, SensitiveBytes>) -> Self {
        Self { resource, references, read: Read::default() }
    }

    pub(super) fn content(&mut self, source: &ContentSource) -> Result<SensitiveBytes, CompileError> {
        let missing = || CompileError::MissingContent {
            resource: self.resource.to_owned(),
            wanted: describe(source).unwrap_or_else(|| "neither a ConfigMap nor a Secret".to_owned()),
        };
        let content = self.references.get(source).ok_or_else(missing)?;
        let (from, KeyRef { name: _, key }) = referred(source).ok_or_else(missing)?;
        self.read.secret |= from.is_secret();
        self.read.origins.insert(Origin { key: format!("key {key}"), source: from.to_string() });
        Ok(content.clone())
    }

    pub(super) fn mark_sensitive(&mut self) {
        self.read.secret = true;
    }

    pub(super) fn into_read(self) -> Read {
        self.read
    }
}

/// The inputs of a resource that is checked without a machine: templates are read and not rendered, and content is empty.
pub(super) struct WithoutHost;

impl Inputs for WithoutHost {
    fn render(&mut self, template: &str) -> Result<String, TemplateError> {
        template::check(template).map(|()| String::new())
    }

    fn content(&mut self, _: &ContentSource) -> Result<SensitiveBytes, CompileError> {
        Ok(SensitiveBytes::default())
    }

    fn mark_sensitive(&mut self) {}

    fn facts(&self) -> Option<&Facts> {
        None
    }
}

/// The object and the key that are referred to; `None` unless it is exactly one.
pub(crate) fn referred(source: &ContentSource) -> Option<(Source, &KeyRef)> {
    match (&source.config_map_key_ref, &source.secret_key_ref) {
        (Some(reference), None) => Some((Source::config_map(&reference.name), reference)),
        (None, Some(reference)) => Some((Source::secret(&reference.name), reference)),
        _ => None,
    }
}

/// `key tls.crt of Secret web`.
fn describe(source: &ContentSource) -> Option<String> {
    referred(source).map(|(from, KeyRef { name: _, key })| format!("key {key} of {from}"))
}
