//! Revisions, facts and labels to the catalog of one host: what a master serves and what the operator tries out before
//! a Rollout moves anything.
//!
//! - `lower`: one resource, with its defaults, as parts
//! - `inputs`: what a resource reads for that
//! - `purge`: what a purged directory keeps
//! - `template`: files from Jinja templates, `watched`: what they read
//! - `render`: resources that are templates themselves
//! - `order`: what comes before what
//! - `facts`: facts as the API keeps them
//! - `names`: which name somebody may have meant
//!
//! Equal inputs give equal catalogs, byte by byte, in whatever order the revisions are passed. No error shows a value of
//! a template's data, so each may go to a status, an event or a log as it is.

mod facts;
mod inputs;
mod lower;
mod names;
mod order;
mod purge;
mod render;
mod template;
mod watched;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use drover_catalog::{
    Catalog, Claim, Digest, Disruption, DriftMode, Edit, Facts, HostCommand, HostIdentity, Part, Resource, ResourceId,
    RevisionRef,
};
use drover_crds::{DisruptionLevel, NodeConfigResource};

pub(crate) use self::inputs::referred;
pub use self::{
    facts::{facts_for_status, facts_from_status},
    names::Hint,
    template::TemplateError,
};
use self::{
    inputs::{Inputs, OfHost, WithoutHost},
    template::Templates,
};
use crate::{
    data::{self, DataError},
    disruption,
    revision::Content,
};

/// How often an agent without any revision looks again, in seconds: the default of a NodeConfig.
const DEFAULT_INTERVAL_SECONDS: u32 = 1800;

/// Bytes of all files of a catalog. Templates make much of little; this keeps a mistake from filling a master's memory.
const MAX_CONTENT: usize = 16 << 20;

/// The machine that a catalog is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The Host.
    pub host: HostIdentity,
    /// The name of its Node, `node.name` in templates.
    pub node_name: String,
    /// The Host's labels, `node.labels` in templates.
    pub labels: BTreeMap<String, String>,
    /// The machine's facts, `facts` in templates.
    pub facts: Facts,
    /// The assignment generation that the catalog will carry.
    pub generation: i64,
    /// The boot during which the machine may reboot, where a Rollout says so.
    pub reboot: Option<String>,
    /// Commands that a Rollout wants to be run once.
    pub commands: Vec<HostCommand>,
}

/// Why there is no catalog. Each message says where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A resource is of no kind, or of several.
    #[error(
        "{resource}: a resource has exactly one type, such as file, package or service, and this one has {given}; write each thing as a resource of its own"
    )]
    NotOneKind {
        /// The resource.
        resource: String,
        /// The types that it has.
        given: String,
    },
    /// A field is not as it must be.
    #[error("{resource}: {field} {wanted}")]
    Invalid {
        /// The resource.
        resource: String,
        /// The field.
        field: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// Two resources of a NodeConfig have one name.
    #[error("{resource}: two resources of this NodeConfig have this name; rename one of them")]
    DuplicateName {
        /// The resource.
        resource: String,
    },
    /// `require` or `notify` names a resource that is not there.
    #[error("{resource}: {field} names `{name}`, and no resource of this NodeConfig has that name{hint}")]
    UnknownReference {
        /// The resource.
        resource: String,
        /// `require` or `notify`.
        field: &'static str,
        /// The name.
        name: String,
        /// Which name may have been meant.
        hint: Hint,
    },
    /// Resources wait for each other.
    #[error("{resource}: it would have to come before itself: {path} ({reasons}); take one of these away")]
    Cycle {
        /// The resource of the cycle that is written first.
        resource: String,
        /// `a -> b -> a`, where each comes before the next.
        path: String,
        /// Which `require` or `notify` says so, step by step.
        reasons: String,
    },
    /// A template makes no file.
    #[error("{resource}: {problem}")]
    Template {
        /// The resource.
        resource: String,
        /// Why.
        problem: TemplateError,
    },
    /// A resource with `render: true` is none any more when its strings are rendered.
    #[error(
        "{resource}: with its strings rendered it is no resource any more; a field that takes certain words only got another one"
    )]
    NotAsRendered {
        /// The resource.
        resource: String,
    },
    /// A layer of data can not be read.
    #[error("NodeConfig {node_config}: {problem}")]
    Data {
        /// The NodeConfig.
        node_config: String,
        /// Why.
        problem: DataError,
    },
    /// A layer of data can not be read, found without a host.
    #[error("dataFrom: {0}")]
    Layer(DataError),
    /// Content that is referred to is not part of the revision.
    #[error("{resource}: {wanted} is not part of the revision; name a key of a ConfigMap or of a Secret")]
    MissingContent {
        /// The resource.
        resource: String,
        /// What is referred to.
        wanted: String,
    },
    /// The files of all revisions together are too much for a catalog.
    #[error(
        "{resource}: with this file the catalog has more than {MAX_CONTENT} bytes; files of that size belong in a package"
    )]
    TooLarge {
        /// The resource that is too much.
        resource: String,
    },
    /// Two resources are about one thing.
    #[error(
        "{second}: {claim} is {first}'s already; keep one of the two, or let the hostSelectors of their NodeConfigs select different hosts"
    )]
    Claimed {
        /// The thing, such as `path:/etc/motd`.
        claim: String,
        /// The resource that has it.
        first: ResourceId,
        /// The resource that wants it too.
        second: ResourceId,
    },
    /// Two resources of one NodeConfig are about one thing, found without a host.
    #[error("{second}: {claim} is {first}'s already; keep one of the two")]
    ClaimedTwice {
        /// The thing, such as `path:/etc/motd`.
        claim: String,
        /// The resource that has it.
        first: String,
        /// The resource that wants it too.
        second: String,
    },
    /// One NodeConfig is assigned in two revisions.
    #[error("NodeConfig {node_config} is assigned twice, as {first} and as {second}; a host has one revision of each")]
    TwoRevisions {
        /// The NodeConfig.
        node_config: String,
        /// One revision.
        first: String,
        /// The other.
        second: String,
    },
    /// The catalog could not be written.
    #[error("the catalog could not be written as JSON; this is a defect of Drover, please report it")]
    Write(#[source] serde_json::Error),
}

impl CompileError {
    /// The NodeConfigs that claim one thing.
    pub fn claimants(&self) -> Option<(&str, &str)> {
        let Self::Claimed { claim: _, first, second } = self else { return None };
        Some((first.node_config(), second.node_config()))
    }

    /// The other NodeConfig that claims what this one does, and the thing: the two sides of a conflict.
    pub fn conflict(&self, node_config: &str) -> Option<(&str, &str)> {
        let Self::Claimed { claim, first, second } = self else { return None };
        match (first.node_config(), second.node_config()) {
            (other, ours) | (ours, other) if ours == node_config && other != node_config => Some((other, claim)),
            _ => None,
        }
    }
}

/// Makes the catalog of a host from the revisions that are assigned to it.
///
/// NodeConfigs of a higher priority come first, equal ones by name; resources within one by what they require and notify,
/// else as written.
pub fn compile(subject: &Subject, revisions: &[(RevisionRef, &Content)]) -> Result<Catalog, CompileError> {
    let mut revisions: Vec<_> = revisions.iter().collect();
    revisions.sort_by(|(a, _), (b, _)| a.cmp(b));
    for pair in revisions.windows(2) {
        let [(first, _), (second, _)] = pair else { continue };
        if first.node_config == second.node_config {
            return Err(CompileError::TwoRevisions {
                node_config: first.node_config.clone(),
                first: first.revision.clone(),
                second: second.revision.clone(),
            });
        }
    }
    let names = revisions.iter().map(|(revision, _)| revision.clone()).collect();
    // The sort is stable: equals stay in the order of their names.
    revisions.sort_by_key(|(_, content)| Reverse(content.priority));

    let mut compiled = Vec::new();
    let mut room = MAX_CONTENT;
    for (revision, content) in &revisions {
        compiled.extend(node_config(subject, &revision.node_config, content, &mut room)?);
    }
    let claiming = compiled.iter().map(|Compiled { resource, hides_names }| Claiming {
        name: &resource.id,
        parts: &resource.parts,
        hides_names: *hides_names,
    });
    claims(claiming).map_err(|(claim, first, second)| CompileError::Claimed {
        claim,
        first: first.clone(),
        second: second.clone(),
    })?;

    let mut resources: Vec<Resource> = compiled.into_iter().map(|compiled| compiled.resource).collect();
    purge::keep_what_others_put(&mut resources)?;

    let interval = revisions.iter().map(|(_, content)| content.interval_seconds).min();
    Catalog {
        host: subject.host.clone(),
        generation: subject.generation,
        revisions: names,
        interval_seconds: interval.unwrap_or(DEFAULT_INTERVAL_SECONDS),
        resources,
        reboot: subject.reboot.clone(),
        commands: subject.commands.clone(),
        digest: Digest::of(b""),
    }
    .seal()
    .map_err(CompileError::Write)
}

/// Finds what is wrong with a NodeConfig on any host: names, references, cycles, claims, data that can not be read, the
/// syntax of templates and the names they start from. Whether a template finds its facts and data shows for a host only,
/// and so does what a resource with `render: true` is about.
///
/// Returns what a change of each resource costs as far as that can be told without a host.
pub fn check(content: &Content) -> Result<BTreeMap<String, Disruption>, CompileError> {
    data::check(&content.layers).map_err(CompileError::Layer)?;
    let resources = &content.resources;
    let mut lowered = Vec::with_capacity(resources.len());
    for resource in order::order(resources, str::to_owned)?.into_iter().map(|i| &resources[i]) {
        let label = &resource.name;
        if let Some(condition) = &resource.when {
            template::check_expression(condition)
                .map_err(|problem| CompileError::Template { resource: label.clone(), problem })?;
        }
        let parts = if resource.render == Some(true) {
            render::check(resource, label, &mut WithoutHost)?;
            lower::Lowered {
                type_name: lower::Kind::of(resource).map_or("", lower::Kind::name),
                parts: Vec::new(),
                finish: Vec::new(),
            }
        } else {
            lower::lower(resource, label, &mut WithoutHost)?
        };
        lowered.push(links(
            Resource::new(ResourceId::new("", label), parts.type_name, parts.parts),
            resource,
            resources,
            |_| true,
        ));
    }
    let names: Vec<&str> = lowered.iter().map(|resource| name_of(&resource.id)).collect();
    // Conditions may take turns: on each machine one of the two is there.
    let conditional: BTreeSet<&str> =
        resources.iter().filter(|resource| resource.when.is_some()).map(|resource| resource.name.as_str()).collect();
    let always = lowered.iter().zip(&names).filter(|(_, name)| !conditional.contains(**name));
    let claiming = always.map(|(resource, name)| Claiming { name, parts: &resource.parts, hides_names: false });
    claims(claiming).map_err(|(claim, first, second)| CompileError::ClaimedTwice {
        claim,
        first: (*first).to_owned(),
        second: (*second).to_owned(),
    })?;
    let costs = disruption::effective(&lowered, &said("", resources), &content.disruption);
    Ok(names.into_iter().map(str::to_owned).zip(costs).collect())
}

/// A resource of a catalog that is being made.
struct Compiled {
    resource: Resource,
    /// Whether the thing that it is about may be named by a secret.
    hides_names: bool,
}

fn node_config(
    subject: &Subject,
    name: &str,
    content: &Content,
    room: &mut usize,
) -> Result<Vec<Compiled>, CompileError> {
    let Subject { host: _, node_name, labels, facts, generation: _, reboot: _, commands: _ } = subject;
    let data = data::merge(&content.layers, labels)
        .map_err(|problem| CompileError::Data { node_config: name.to_owned(), problem })?;
    let templates = Templates::new(facts, &data, node_name, labels);

    let resources = &content.resources;
    // Names and cycles are looked at before conditions: what is wrong is wrong on every machine.
    let ordered = order::order(resources, |resource| ResourceId::new(name, resource).to_string())?;
    let mut chosen = Vec::with_capacity(ordered.len());
    for resource in ordered.into_iter().map(|i| &resources[i]) {
        let label = ResourceId::new(name, &resource.name);
        let (holds, read) = match &resource.when {
            None => (true, inputs::Read::default()),
            Some(condition) => templates
                .holds(condition)
                .map_err(|problem| CompileError::Template { resource: label.to_string(), problem })?,
        };
        if holds {
            chosen.push((resource, label, read));
        }
    }
    let there: BTreeSet<&str> = chosen.iter().map(|(resource, ..)| resource.name.as_str()).collect();

    let mut compiled = Vec::with_capacity(chosen.len());
    for (resource, id, mut read) in chosen {
        let mut inputs = OfHost::new(id.as_str(), &templates, &content.references, facts);
        let rendered = match resource.render {
            Some(true) => Some(render::rendered(resource, id.as_str(), &mut inputs)?),
            _ => None,
        };
        let hides_names = inputs.has_read_a_secret();
        let lowered = lower::lower(rendered.as_ref().unwrap_or(resource), id.as_str(), &mut inputs)?;
        read.add(inputs.into_read());
        take_room(&lowered.parts, id.as_str(), room)?;
        let lower::Lowered { type_name, parts, finish } = lowered;
        let made = Resource {
            finish,
            drift: drift(resource.drift.unwrap_or(content.drift)),
            sensitive: read.secret || resource.sensitive == Some(true),
            secret_names: hides_names,
            origins: read.origins.into_iter().collect(),
            ..Resource::new(id, type_name, parts)
        };
        compiled
            .push(Compiled { resource: links(made, resource, resources, |other| there.contains(other)), hides_names });
    }

    let resources: Vec<Resource> = compiled.iter().map(|compiled| compiled.resource.clone()).collect();
    let costs = disruption::effective(&resources, &said(name, &content.resources), &content.disruption);
    for (compiled, cost) in compiled.iter_mut().zip(costs) {
        compiled.resource.disruption = cost;
    }
    Ok(compiled)
}

/// The resource with what it requires and notifies, each once, as far as that is there.
fn links(
    made: Resource,
    written: &NodeConfigResource,
    all: &[NodeConfigResource],
    there: impl Fn(&str) -> bool,
) -> Resource {
    let node_config = made.id.node_config().to_owned();
    let ids = |names: &[String]| {
        let mut ids: Vec<ResourceId> = Vec::with_capacity(names.len());
        for other in names.iter().filter(|other| there(other)).map(|other| ResourceId::new(&node_config, other)) {
            if !ids.contains(&other) {
                ids.push(other);
            }
        }
        ids
    };
    Resource {
        require: ids(&order::requirements(written, all)),
        notify: ids(&written.notify),
        notify_at_end: ids(&written.notify_at_end),
        ..made
    }
}

/// What resources say of what they cost.
fn said(node_config: &str, resources: &[NodeConfigResource]) -> BTreeMap<ResourceId, DisruptionLevel> {
    let one =
        |resource: &NodeConfigResource| Some((ResourceId::new(node_config, &resource.name), resource.disruption?));
    resources.iter().filter_map(one).collect()
}

fn drift(mode: drover_crds::DriftMode) -> DriftMode {
    match mode {
        drover_crds::DriftMode::Correct => DriftMode::Correct,
        drover_crds::DriftMode::Report => DriftMode::Report,
        drover_crds::DriftMode::Ignore => DriftMode::Ignore,
    }
}

fn take_room(parts: &[Part], label: &str, room: &mut usize) -> Result<(), CompileError> {
    for part in parts {
        let bytes = match part {
            Part::File(file) => file.content.as_ref().map_or(0, |content| content.expose().len()),
            Part::Edit(edit) => match &edit.edit {
                Edit::Line { line, .. } => line.expose().len(),
                Edit::Block { content, .. } => content.expose().len(),
                Edit::Ini { value, .. } => value.expose().len(),
                Edit::Entry { line, .. } => line.len(),
            },
            _ => continue,
        };
        *room = room.checked_sub(bytes).ok_or_else(|| CompileError::TooLarge { resource: label.to_owned() })?;
    }
    Ok(())
}

fn name_of(id: &ResourceId) -> &str {
    id.as_str().split_once('/').map_or(id.as_str(), |(_, name)| name)
}

/// What a resource takes for itself.
struct Claiming<'a, N> {
    name: &'a N,
    parts: &'a [Part],
    hides_names: bool,
}

/// The first thing that two resources claim, with both of them. The parts of one resource get along, and so do those that
/// want the same directory in the same way: two drop-ins of one unit.
fn claims<'a, N>(resources: impl Iterator<Item = Claiming<'a, N>>) -> Result<(), (String, &'a N, &'a N)> {
    let mut taken: BTreeMap<String, Vec<(Claim, usize, &'a Part, &'a N)>> = BTreeMap::new();
    for (number, Claiming { name, parts, hides_names }) in resources.enumerate() {
        for (claim, part) in parts.iter().flat_map(|part| part.claims().into_iter().map(move |claim| (claim, part))) {
            let others = taken.entry(claim.thing.clone()).or_default();
            let shared = |other: &Part| matches!(part, Part::Directory(_)) && part == other;
            let conflict = others.iter().find(|(other, theirs, their_part, _)| {
                *theirs != number && claim.conflicts_with(other) && !shared(their_part)
            });
            if let Some((_, _, _, first)) = conflict {
                let kind = claim.thing.split(':').next().unwrap_or_default();
                let shown = if hides_names { format!("{kind}:(named by a secret)") } else { claim.to_string() };
                return Err((shown, first, name));
            }
            others.push((claim, number, part, name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
