//! Revisions, facts and labels to the catalog of one host: what a master serves and what the operator tries out before
//! a Rollout moves anything.
//!
//! - `lower`: one resource, with its defaults, as parts
//! - `inputs`: what lowering may ask for
//! - `purge`: what a purged directory keeps
//! - `template`: files from Jinja templates
//! - `order`: what comes before what
//! - `facts`: the two spellings of facts
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
mod template;

use std::collections::BTreeMap;

use drover_catalog::{
    Catalog, Claim, Digest, Facts, HostIdentity, Part, Resource, ResourceId, RevisionRef, SensitiveBytes,
};
use drover_crds::{ContentSource, NodeConfigResource};

pub use self::{
    facts::{brief_from_facts, facts_from_brief},
    names::Hint,
    template::TemplateError,
};
use self::{inputs::Inputs, template::Templates};
use crate::revision::Content;

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
    /// `require`, `before`, `notify` or `notifyAtEnd` names a resource that is not there.
    #[error("{resource}: {field} names `{name}`, and no resource of this NodeConfig has that name{hint}")]
    UnknownReference {
        /// The resource.
        resource: String,
        /// The field that names it.
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
        /// What says so, step by step.
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

/// Makes the catalog of a host from the revisions that are assigned to it.
///
/// Each NodeConfig follows another by name, resources within one by what they require and notify, else as written.
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

    let Subject { host, node_name, labels, facts, generation, reboot } = subject;
    let mut resources = Vec::new();
    let mut room = MAX_CONTENT;
    for (revision, content) in &revisions {
        let templates = Templates::new(facts, &content.data, node_name, labels);
        resources.extend(node_config(&revision.node_config, &content.resources, &templates, facts, &mut room)?);
    }
    claims(resources.iter().map(|resource| (&resource.id, resource.parts.as_slice()))).map_err(
        |(claim, first, second)| CompileError::Claimed { claim, first: first.clone(), second: second.clone() },
    )?;

    purge::keep_what_others_put(&mut resources)?;

    let interval = revisions.iter().map(|(_, content)| content.interval_seconds).min();
    Catalog {
        host: host.clone(),
        generation: *generation,
        revisions: revisions.iter().map(|(revision, _)| revision.clone()).collect(),
        interval_seconds: interval.unwrap_or(DEFAULT_INTERVAL_SECONDS),
        resources,
        reboot: reboot.clone(),
        digest: Digest::of(b""),
    }
    .seal()
    .map_err(CompileError::Write)
}

/// Finds what is wrong with a NodeConfig's resources on any host: names, references, cycles, claims, the syntax of
/// templates and the names they start from. Whether a template finds its facts and data shows for a host only.
pub fn check(resources: &[NodeConfigResource]) -> Result<(), CompileError> {
    let ordered = order::order(resources, str::to_owned)?;
    let mut lowered = Vec::with_capacity(ordered.len());
    for resource in ordered.into_iter().map(|i| &resources[i]) {
        lowered.push((&resource.name, lower::lower(resource, &resource.name, &mut NoHost)?.parts));
    }
    claims(lowered.iter().map(|(name, parts)| (*name, parts.as_slice()))).map_err(|(claim, first, second)| {
        CompileError::ClaimedTwice { claim, first: first.clone(), second: second.clone() }
    })
}

fn node_config(
    name: &str,
    resources: &[NodeConfigResource],
    templates: &Templates,
    facts: &Facts,
    room: &mut usize,
) -> Result<Vec<Resource>, CompileError> {
    let id = |resource: &str| ResourceId::new(name, resource);
    let ids = |names: &[String]| {
        let mut ids: Vec<ResourceId> = Vec::with_capacity(names.len());
        for other in names.iter().map(|other| id(other)) {
            if !ids.contains(&other) {
                ids.push(other);
            }
        }
        ids
    };
    let ordered = order::order(resources, |resource| id(resource).to_string())?;
    let mut one = |resource: &NodeConfigResource| {
        let id = id(&resource.name);
        let lowered = lower::lower(resource, id.as_str(), &mut ForHost { templates, facts })?;
        for part in &lowered.parts {
            let Part::File(file) = part else { continue };
            let bytes = file.content.as_ref().map_or(0, |content| content.expose().len());
            let too_large = || CompileError::TooLarge { resource: id.to_string() };
            *room = room.checked_sub(bytes).ok_or_else(too_large)?;
        }
        let lower::Lowered { type_name, parts, finish } = lowered;
        Ok(Resource {
            finish,
            require: ids(&order::requirements(resource, resources)),
            notify: ids(&resource.notify),
            notify_at_end: ids(&resource.notify_at_end),
            ..Resource::new(id, type_name, parts)
        })
    };
    ordered.into_iter().map(|i| one(&resources[i])).collect()
}

/// The first thing that two resources claim, with both of them. The parts of one resource get along, and so do those that
/// want the same directory in the same way: two drop-ins of one unit.
fn claims<'a, N>(resources: impl Iterator<Item = (&'a N, &'a [Part])>) -> Result<(), (String, &'a N, &'a N)> {
    let mut taken: BTreeMap<String, Vec<(Claim, usize, &'a Part, &'a N)>> = BTreeMap::new();
    for (number, (name, parts)) in resources.enumerate() {
        for (claim, part) in parts.iter().filter_map(|part| Some((part.claim()?, part))) {
            let others = taken.entry(claim.thing.clone()).or_default();
            let shared = |other: &Part| matches!(part, Part::Directory(_)) && part == other;
            let conflict = others.iter().find(|(other, theirs, their_part, _)| {
                *theirs != number && claim.conflicts_with(other) && !shared(their_part)
            });
            if let Some((_, _, _, first)) = conflict {
                return Err((claim.to_string(), first, name));
            }
            others.push((claim, number, part, name));
        }
    }
    Ok(())
}

/// What a resource is lowered with for a host.
struct ForHost<'a> {
    templates: &'a Templates,
    facts: &'a Facts,
}

impl Inputs for ForHost<'_> {
    fn render(&mut self, template: &str) -> Result<String, TemplateError> {
        self.templates.render(template)
    }

    fn content(&mut self, _: &ContentSource) -> Result<SensitiveBytes, CompileError> {
        Ok(SensitiveBytes::default())
    }

    fn mark_sensitive(&mut self) {}

    fn facts(&self) -> Option<&Facts> {
        Some(self.facts)
    }
}

/// What a resource is lowered with when no host is known: templates make nothing, references have no content.
struct NoHost;

impl Inputs for NoHost {
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

#[cfg(test)]
mod tests;
