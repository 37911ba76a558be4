//! What the lowering of a resource may ask for: rendered templates, and content that it refers to.

use drover_catalog::{Facts, SensitiveBytes};
use drover_crds::ContentSource;

use super::{CompileError, TemplateError};

/// What the lowering of a resource may ask for.
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
