//! What of a revision is the same on every machine. A revision is compiled for many machines, and most of the work does not
//! depend on which: the order, reading templates, and all resources that read nothing of a machine, down to their JSON.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::OnceLock,
};

use drover_catalog::{Claim, Facts, Part, Resource, ResourceId, SensitiveBytes};
use drover_crds::{ContentSource, DisruptionLevel, NodeConfigResource};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    CompileError, TemplateError, bytes, claims, drift,
    inputs::{Inputs, OfRevision, Read},
    lower, order, render, said,
    template::Parsed,
};
use crate::{disruption::Costs, revision::Content};

/// A revision of a NodeConfig, ready to be compiled for many machines.
pub struct Prepared<'a> {
    node_config: String,
    content: Cow<'a, Content>,
    /// Made for the first machine. A revision that has none is wrong on every machine.
    program: OnceLock<Program>,
}

impl<'a> Prepared<'a> {
    /// A revision of this NodeConfig. The work comes with the first machine.
    pub fn new(node_config: &str, content: Cow<'a, Content>) -> Self {
        Self { node_config: node_config.to_owned(), content, program: OnceLock::new() }
    }

    /// What the revision consists of.
    pub fn content(&self) -> &Content {
        &self.content
    }

    pub(super) fn node_config(&self) -> &str {
        &self.node_config
    }

    pub(super) fn program(&self) -> Result<&Program, CompileError> {
        if let Some(program) = self.program.get() {
            return Ok(program);
        }
        // Where two come at once, both make the same.
        let program = Program::of(&self.node_config, &self.content)?;
        Ok(self.program.get_or_init(|| program))
    }
}

/// How catalogs are made of a revision.
pub(super) struct Program {
    /// In the order of application.
    pub(super) steps: Vec<Step>,
    pub(super) templates: Parsed,
    /// What resources say of what they cost.
    pub(super) said: BTreeMap<ResourceId, DisruptionLevel>,
}

/// One resource.
pub(super) enum Step {
    /// It is the same on every machine.
    Fixed(Box<Fixed>),
    /// It is made for each machine.
    Varying(Varying),
}

/// A resource that is the same on every machine, and in no catalog without.
pub(super) struct Fixed {
    pub(super) resource: Resource,
    pub(super) claims: Vec<(usize, Claim)>,
    /// Of its files.
    pub(super) bytes: usize,
    json: OnceLock<Box<RawValue>>,
}

impl Fixed {
    /// As catalogs have it.
    pub(super) fn json(&self) -> serde_json::Result<&RawValue> {
        if let Some(json) = self.json.get() {
            return Ok(json);
        }
        let json = to_raw_value(&self.resource)?;
        Ok(self.json.get_or_init(|| json))
    }
}

/// A resource that is made for each machine.
pub(super) struct Varying {
    /// Its index among the revision's.
    pub(super) at: usize,
    pub(super) id: ResourceId,
    pub(super) links: Links,
}

/// Whom a resource requires and notifies, each once.
#[derive(Clone)]
pub(super) struct Links {
    require: Vec<ResourceId>,
    notify: Vec<ResourceId>,
    notify_at_end: Vec<ResourceId>,
}

impl Links {
    pub(super) fn of(node_config: &str, written: &NodeConfigResource, requirements: &order::Requirements<'_>) -> Self {
        fn ids<'n>(node_config: &str, names: impl Iterator<Item = &'n str>) -> Vec<ResourceId> {
            let mut seen = HashSet::new();
            names.filter(|name| seen.insert(*name)).map(|name| ResourceId::new(node_config, name)).collect()
        }
        Self {
            require: ids(node_config, requirements.of(written)),
            notify: ids(node_config, written.notify.iter().map(String::as_str)),
            notify_at_end: ids(node_config, written.notify_at_end.iter().map(String::as_str)),
        }
    }

    /// The resource with them, as far as they are there.
    pub(super) fn on(&self, made: Resource, there: impl Fn(&ResourceId) -> bool) -> Resource {
        let those = |ids: &[ResourceId]| ids.iter().filter(|id| there(id)).cloned().collect();
        let Self { require, notify, notify_at_end } = self;
        Resource { require: those(require), notify: those(notify), notify_at_end: those(notify_at_end), ..made }
    }

    fn all(&self) -> impl Iterator<Item = &ResourceId> {
        self.require.iter().chain(self.told())
    }

    fn told(&self) -> impl Iterator<Item = &ResourceId> {
        self.notify.iter().chain(&self.notify_at_end)
    }
}

impl Program {
    fn of(node_config: &str, content: &Content) -> Result<Self, CompileError> {
        let resources = &content.resources;
        let ordered = order::order(resources, |resource| ResourceId::new(node_config, resource).to_string())?;
        let requirements = order::Requirements::new(resources);
        let conditional: HashSet<ResourceId> = resources
            .iter()
            .filter(|resource| resource.when.is_some())
            .map(|resource| ResourceId::new(node_config, &resource.name))
            .collect();
        let mut templates = HashSet::new();
        let mut varying = Vec::with_capacity(ordered.len());
        let mut fixed = HashMap::new();
        for at in ordered {
            let written = &resources[at];
            let id = ResourceId::new(node_config, &written.name);
            let links = Links::of(node_config, written, &requirements);
            let made = lowered(written, &id, content, &mut templates);
            let always = !conditional.contains(&id) && !links.all().any(|id| conditional.contains(id));
            if let Some(made) = made.filter(|_| always) {
                fixed.insert(id.clone(), links.on(made, |_| true));
            }
            varying.push(Varying { at, id, links });
        }
        // What a change costs depends on those that are told of it.
        loop {
            let told = |step: &&Varying| step.links.told().any(|id| !fixed.contains_key(id));
            let open: Vec<&ResourceId> =
                varying.iter().filter(|step| fixed.contains_key(&step.id)).filter(told).map(|step| &step.id).collect();
            if open.is_empty() {
                break;
            }
            for id in open {
                fixed.remove(id);
            }
        }
        let said = said(node_config, resources);
        let costs = Costs::new(fixed.values(), &said, &content.disruption);
        let costs: HashMap<ResourceId, _> =
            fixed.values().map(|resource| (resource.id.clone(), costs.of(resource))).collect();
        let steps = varying.into_iter().map(|step| match (fixed.remove(&step.id), costs.get(&step.id)) {
            (Some(resource), Some(&disruption)) => Step::Fixed(Box::new(Fixed {
                claims: claims::of(&resource.parts),
                bytes: bytes(&resource.parts),
                resource: Resource { disruption, ..resource },
                json: OnceLock::new(),
            })),
            _ => Step::Varying(step),
        });
        Ok(Self { steps: steps.collect(), templates: Parsed::new(templates), said })
    }
}

/// The resource, without its links, when it reads nothing of a machine. Templates that it reads for one are added to
/// `templates`.
fn lowered(
    written: &NodeConfigResource,
    id: &ResourceId,
    content: &Content,
    templates: &mut HashSet<String>,
) -> Option<Resource> {
    let mut inputs = WithoutMachine {
        of_revision: OfRevision::new(id.as_str(), &content.references),
        templates,
        asked: Cell::new(false),
    };
    if written.render == Some(true) {
        // What is wrong with it is told where it is made.
        let _ = render::check(written, id.as_str(), &mut inputs);
        return None;
    }
    let lowered = lower::lower(written, id.as_str(), &mut inputs).ok().filter(|_| !inputs.asked.get())?;
    // What a purged directory keeps is known when the catalog is whole.
    if lowered.parts.iter().any(|part| matches!(part, Part::Directory(spec) if spec.purge)) {
        return None;
    }
    let read = inputs.of_revision.into_read();
    Some(made(written, id.clone(), lowered, read, false, content))
}

/// The resource, without its links and its cost.
pub(super) fn made(
    written: &NodeConfigResource,
    id: ResourceId,
    lowered: lower::Lowered,
    read: Read,
    hides_names: bool,
    content: &Content,
) -> Resource {
    let lower::Lowered { type_name, parts, finish } = lowered;
    Resource {
        finish,
        drift: drift(written.drift.unwrap_or(content.drift)),
        sensitive: read.secret || written.sensitive == Some(true),
        secret_names: hides_names,
        origins: read.origins.into_iter().collect(),
        ..Resource::new(id, type_name, parts)
    }
}

/// The inputs of a resource before any machine is known. They note whether one was asked for.
struct WithoutMachine<'a> {
    of_revision: OfRevision<'a>,
    templates: &'a mut HashSet<String>,
    asked: Cell<bool>,
}

impl Inputs for WithoutMachine<'_> {
    fn render(&mut self, template: &str) -> Result<String, TemplateError> {
        self.asked.set(true);
        self.templates.insert(template.to_owned());
        Ok(String::new())
    }

    fn content(&mut self, source: &ContentSource) -> Result<SensitiveBytes, CompileError> {
        self.of_revision.content(source)
    }

    fn mark_sensitive(&mut self) {
        self.of_revision.mark_sensitive();
    }

    fn facts(&self) -> Option<&Facts> {
        self.asked.set(true);
        None
    }
}

#[cfg(test)]
mod tests;
