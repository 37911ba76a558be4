//! Resources that are templates themselves: `render: true`, and `when`.

use drover_crds::NodeConfigResource;
use serde_json::Value;

use super::{CompileError, Inputs, TemplateError};

/// What of a resource is about the resource and not about the machine; it is no template.
const ABOUT_THE_RESOURCE: [&str; 10] =
    ["name", "require", "before", "notify", "notifyAtEnd", "when", "render", "drift", "disruption", "sensitive"];

/// Fields that are left as they are, with all below them: a template is rendered by its type, and the objects that are
/// referred to are known before any machine is.
const LEFT_AS_THEY_ARE: [&str; 3] = ["template", "configMapKeyRef", "secretKeyRef"];

/// The resource with each string of its type's fields rendered.
pub(super) fn rendered(
    resource: &NodeConfigResource,
    label: &str,
    inputs: &mut dyn Inputs,
) -> Result<NodeConfigResource, CompileError> {
    let unreadable = || CompileError::NotAsRendered { resource: label.to_owned() };
    let mut value = serde_json::to_value(resource).map_err(|_| unreadable())?;
    each_string(&mut value, &mut |text| {
        *text = inputs.render(text)?;
        Ok(())
    })
    .map_err(|problem| CompileError::Template { resource: label.to_owned(), problem })?;
    // The error of serde may quote what was rendered.
    serde_json::from_value(value).map_err(|_| unreadable())
}

/// Looks at each string of the resource that is a template by `render: true`.
pub(super) fn check(resource: &NodeConfigResource, label: &str, inputs: &mut dyn Inputs) -> Result<(), CompileError> {
    let Ok(mut value) = serde_json::to_value(resource) else { return Ok(()) };
    each_string(&mut value, &mut |text| inputs.render(text).map(drop))
        .map_err(|problem| CompileError::Template { resource: label.to_owned(), problem })
}

/// What is done with each string.
pub(super) type Visit<'a> = dyn FnMut(&mut String) -> Result<(), TemplateError> + 'a;

pub(super) fn each_string(resource: &mut Value, visit: &mut Visit<'_>) -> Result<(), TemplateError> {
    let fields = resource.as_object_mut().into_iter().flatten();
    let of_types = fields.filter(|(field, _)| !ABOUT_THE_RESOURCE.contains(&field.as_str()));
    of_types.map(|(_, value)| value).try_for_each(|value| below(value, visit))
}

fn below(value: &mut Value, visit: &mut Visit<'_>) -> Result<(), TemplateError> {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter_mut().try_for_each(|item| below(item, visit)),
        Value::Object(fields) => fields
            .iter_mut()
            .filter(|(field, _)| !LEFT_AS_THEY_ARE.contains(&field.as_str()))
            .try_for_each(|(_, value)| below(value, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
