//! Revisions, facts and labels to the catalog of one host: what a master serves and what the operator tries out before
//! a Rollout moves anything.
//!
//! - `prepare`: what of a revision is the same on every machine
//! - `lower`: one resource, with its defaults, as parts
//! - `inputs`: what a resource reads for that
//! - `claims`: what resources take for themselves
//! - `purge`: what a purged directory keeps
//! - `template`: files from Jinja templates, `watched`: what they read
//! - `render`: resources that are templates themselves
//! - `order`: what comes before what
//! - `facts`: facts as the API keeps them
//! - `names`: which name somebody may have meant
//!
//! Equal inputs give equal catalogs, byte by byte, in whatever order the revisions are passed. No error shows a value of
//! a template's data, so each may go to a status, an event or a log as it is.

mod claims;
mod facts;
mod inputs;
mod lower;
mod names;
mod order;
mod prepare;
mod purge;
mod render;
mod template;
mod watched;

use std::{
    borrow::Cow,
    cell::OnceCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use drover_catalog::{
    Catalog, Digest, Disruption, DriftMode, Edit, Facts, HostCommand, HostIdentity, Part, Resource, ResourceId,
    RevisionRef,
};
use drover_crds::{DisruptionLevel, NodeConfigResource};
use serde_json::value::{RawValue, to_raw_value};

pub(crate) use self::inputs::referred;
use self::{
    claims::Claiming,
    inputs::{Inputs, OfHost, OfRevision, WithoutHost},
    prepare::{Fixed, Links, Step, Varying},
    template::{Machine, Templates},
};
pub use self::{
    facts::{facts_for_status, facts_from_status},
    names::Hint,
    prepare::Prepared,
    template::TemplateError,
};
use crate::{
    data::{self, DataError},
    disruption::{self, Costs},
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
    let prepared: Vec<Prepared<'_>> = revisions
        .iter()
        .map(|(revision, content)| Prepared::new(&revision.node_config, Cow::Borrowed(*content)))
        .collect();
    let revisions: Vec<_> =
        revisions.iter().zip(&prepared).map(|((revision, _), prepared)| (revision.clone(), prepared)).collect();
    assemble(subject, &revisions)?
        .map(|resources| Ok(resources.into_iter().map(Compiled::into_resource).collect()))
        .and_then(Catalog::seal)
        .map_err(CompileError::Write)
}

/// Makes the same catalog as [`compile`], as it is sent: what is the same on every machine is put together as the JSON that
/// it was for the machine before.
pub fn write(subject: &Subject, revisions: &[(RevisionRef, &Prepared<'_>)]) -> Result<Written, CompileError> {
    assemble(subject, revisions)?
        .map(|resources| resources.into_iter().map(Compiled::into_json).collect::<serde_json::Result<Vec<_>>>())
        .and_then(Catalog::seal)
        .and_then(|catalog| {
            // All the rest of a catalog is small; a buffer that grows is copied each time.
            let resources: usize = catalog.resources.iter().map(|json| json.get().len() + 1).sum();
            let mut json = Vec::with_capacity(resources + 1024);
            serde_json::to_writer(&mut json, &catalog)?;
            Ok(Written { json, etag: catalog.etag(), digest: catalog.digest })
        })
        .map_err(CompileError::Write)
}

/// A catalog as it is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Written {
    /// The JSON form of a [`Catalog`]. It may hold secrets.
    pub json: Vec<u8>,
    /// See [`Catalog::etag`].
    pub etag: String,
    /// The catalog's own.
    pub digest: Digest,
}

/// The catalog, without its digest.
fn assemble<'a>(
    subject: &Subject,
    revisions: &[(RevisionRef, &'a Prepared<'_>)],
) -> Result<Catalog<Vec<Compiled<'a>>>, CompileError> {
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
    revisions.sort_by_key(|(_, prepared)| Reverse(prepared.content().priority));

    let mut resources = Vec::new();
    let mut room = MAX_CONTENT;
    let machine = OnceCell::new();
    for (_, prepared) in &revisions {
        resources.extend(node_config(subject, &machine, prepared, &mut room)?);
    }
    let claiming: Vec<_> = resources.iter().map(Compiled::claiming).collect();
    claims::check(&claiming).map_err(|(claim, first, second)| CompileError::Claimed {
        claim,
        first: first.clone(),
        second: second.clone(),
    })?;
    drop(claiming);
    purge::keep_what_others_put(&mut resources)?;

    let interval = revisions.iter().map(|(_, prepared)| prepared.content().interval_seconds).min();
    Ok(Catalog {
        host: subject.host.clone(),
        generation: subject.generation,
        revisions: names,
        interval_seconds: interval.unwrap_or(DEFAULT_INTERVAL_SECONDS),
        resources,
        reboot: subject.reboot.clone(),
        commands: subject.commands.clone(),
        digest: Digest::of(b""),
    })
}

/// Finds what is wrong with a NodeConfig on any host: names, references, cycles, claims, data that can not be read, the
/// syntax of templates and the names they start from. Whether a template finds its facts and data shows for a host only,
/// and so does what a resource with `render: true` is about.
///
/// Returns what a change of each resource costs as far as that can be told without a host.
pub fn check(content: &Content) -> Result<BTreeMap<String, Disruption>, CompileError> {
    data::check(&content.layers).map_err(CompileError::Layer)?;
    let resources = &content.resources;
    let requirements = order::Requirements::new(resources);
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
        let made = Resource::new(ResourceId::new("", label), parts.type_name, parts.parts);
        lowered.push(Links::of("", resource, &requirements).on(made, |_| true));
    }
    let names: Vec<&str> = lowered.iter().map(|resource| name_of(&resource.id)).collect();
    // Conditions may take turns: on each machine one of the two is there.
    let conditional: BTreeSet<&str> =
        resources.iter().filter(|resource| resource.when.is_some()).map(|resource| resource.name.as_str()).collect();
    let always = lowered.iter().zip(&names).filter(|(_, name)| !conditional.contains(**name));
    let claiming: Vec<_> = always
        .map(|(Resource { parts, .. }, name)| Claiming {
            name,
            parts,
            claims: claims::of(parts).into(),
            hides_names: false,
        })
        .collect();
    claims::check(&claiming).map_err(|(claim, first, second)| CompileError::ClaimedTwice {
        claim,
        first: (*first).to_owned(),
        second: (*second).to_owned(),
    })?;
    let costs = disruption::effective(&lowered, &said("", resources), &content.disruption);
    Ok(names.into_iter().map(str::to_owned).zip(costs).collect())
}

/// A resource of a catalog that is being made.
enum Compiled<'a> {
    /// It is as on every machine.
    Fixed(&'a Fixed),
    /// It was made for this machine.
    Made {
        resource: Resource,
        /// Whether the thing that it is about may be named by a secret.
        hides_names: bool,
    },
}

impl<'a> Compiled<'a> {
    fn resource(&self) -> &Resource {
        match self {
            Self::Fixed(fixed) => &fixed.resource,
            Self::Made { resource, .. } => resource,
        }
    }

    fn into_resource(self) -> Resource {
        match self {
            Self::Fixed(fixed) => fixed.resource.clone(),
            Self::Made { resource, .. } => resource,
        }
    }

    fn into_json(self) -> serde_json::Result<Cow<'a, RawValue>> {
        match self {
            Self::Fixed(fixed) => fixed.json().map(Cow::Borrowed),
            Self::Made { resource, .. } => to_raw_value(&resource).map(Cow::Owned),
        }
    }

    fn claiming(&self) -> Claiming<'_, ResourceId> {
        let Resource { id: name, parts, .. } = self.resource();
        match self {
            Self::Fixed(fixed) => Claiming { name, parts, claims: Cow::Borrowed(&fixed.claims), hides_names: false },
            Self::Made { hides_names, .. } => {
                Claiming { name, parts, claims: claims::of(parts).into(), hides_names: *hides_names }
            }
        }
    }
}

/// The resources of one NodeConfig. `machine` is filled in when a template is the first to read it.
fn node_config<'a>(
    subject: &Subject,
    machine: &OnceCell<Machine>,
    prepared: &'a Prepared<'_>,
    room: &mut usize,
) -> Result<Vec<Compiled<'a>>, CompileError> {
    let Subject { host: _, node_name, labels, facts, generation: _, reboot: _, commands: _ } = subject;
    let content = prepared.content();
    let data = data::merge(&content.layers, labels)
        .map_err(|problem| CompileError::Data { node_config: prepared.node_config().to_owned(), problem })?;
    // Names and cycles are looked at before conditions: what is wrong is wrong on every machine.
    let program = prepared.program()?;
    let templates = OnceCell::new();
    let templates = || {
        let machine = || machine.get_or_init(|| Machine::new(facts, node_name, labels));
        templates.get_or_init(|| Templates::new(&program.templates, machine(), &data))
    };

    let mut read_by_conditions = HashMap::new();
    let mut absent = HashSet::new();
    for step in &program.steps {
        let Step::Varying(Varying { at, id, .. }) = step else { continue };
        let Some(condition) = &content.resources[*at].when else { continue };
        let (holds, read) = templates()
            .holds(condition)
            .map_err(|problem| CompileError::Template { resource: id.to_string(), problem })?;
        if holds {
            read_by_conditions.insert(id, read);
        } else {
            absent.insert(id);
        }
    }

    let mut compiled = Vec::with_capacity(program.steps.len());
    for step in &program.steps {
        let Varying { at, id, links } = match step {
            Step::Fixed(fixed) => {
                take_room(fixed.bytes, &fixed.resource.id, room)?;
                compiled.push(Compiled::Fixed(fixed));
                continue;
            }
            Step::Varying(varying) if absent.contains(&varying.id) => continue,
            Step::Varying(varying) => varying,
        };
        let resource = &content.resources[*at];
        let mut inputs = OfHost::new(OfRevision::new(id.as_str(), &content.references), templates(), facts);
        let rendered = match resource.render {
            Some(true) => Some(render::rendered(resource, id.as_str(), &mut inputs)?),
            _ => None,
        };
        let hides_names = inputs.has_read_a_secret();
        let lowered = lower::lower(rendered.as_ref().unwrap_or(resource), id.as_str(), &mut inputs)?;
        let mut read = read_by_conditions.remove(id).unwrap_or_default();
        read.add(inputs.into_read());
        take_room(bytes(&lowered.parts), id, room)?;
        let made = prepare::made(resource, id.clone(), lowered, read, hides_names, content);
        compiled.push(Compiled::Made { resource: links.on(made, |other| !absent.contains(other)), hides_names });
    }

    // What all machines have costs the same on all.
    let made = |compiled: &Compiled<'_>| matches!(compiled, Compiled::Made { .. });
    if compiled.iter().any(made) {
        let costs = Costs::new(compiled.iter().map(Compiled::resource), &program.said, &content.disruption);
        let made = compiled.iter().filter(|compiled| made(compiled));
        let costs: Vec<Disruption> = made.map(|compiled| costs.of(compiled.resource())).collect();
        let made = compiled.iter_mut().filter_map(|compiled| match compiled {
            Compiled::Made { resource, .. } => Some(resource),
            Compiled::Fixed(_) => None,
        });
        for (resource, cost) in made.zip(costs) {
            resource.disruption = cost;
        }
    }
    Ok(compiled)
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

fn take_room(bytes: usize, resource: &ResourceId, room: &mut usize) -> Result<(), CompileError> {
    *room = room.checked_sub(bytes).ok_or_else(|| CompileError::TooLarge { resource: resource.to_string() })?;
    Ok(())
}

/// Of the files that the parts write.
fn bytes(parts: &[Part]) -> usize {
    let of_part = |part: &Part| match part {
        Part::File(file) => file.content.as_ref().map_or(0, |content| content.expose().len()),
        Part::Edit(edit) => match &edit.edit {
            Edit::Line { line, .. } => line.expose().len(),
            Edit::Block { content, .. } => content.expose().len(),
            Edit::Ini { value, .. } => value.expose().len(),
            Edit::Entry { line, .. } => line.len(),
        },
        _ => 0,
    };
    parts.iter().map(of_part).sum()
}

fn name_of(id: &ResourceId) -> &str {
    id.as_str().split_once('/').map_or(id.as_str(), |(_, name)| name)
}

#[cfg(test)]
mod tests;
