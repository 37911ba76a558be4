//! Revisions, facts and labels to the catalog of one host: what a master serves and what the operator tries out before
//! a Rollout moves anything.
//!
//! - `resource`: one resource, with its defaults
//! - `template`: files from Jinja templates
//! - `order`: what comes before what
//! - `facts`: facts as the API keeps them
//! - `names`: which name somebody may have meant
//!
//! Equal inputs give equal catalogs, byte by byte, in whatever order the revisions are passed. No error shows a value of
//! a template's data, so each may go to a status, an event or a log as it is.

mod facts;
mod names;
mod order;
mod resource;
mod template;

use std::collections::BTreeMap;

use drover_catalog::{Catalog, Claim, Digest, Facts, HostIdentity, Part, Resource, ResourceId, RevisionRef};
use drover_crds::NodeConfigResource;

use self::template::Templates;
pub use self::{
    facts::{facts_for_status, facts_from_status},
    names::Hint,
    template::TemplateError,
};
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
}

/// Why there is no catalog. Each message says where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A resource is of no kind, or of several.
    #[error(
        "{resource}: a resource has exactly one of file, directory, exec, service, package and sysctl; write each thing as a resource of its own"
    )]
    NotOneKind {
        /// The resource.
        resource: String,
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

    let Subject { host, node_name, labels, facts, generation } = subject;
    let mut resources = Vec::new();
    let mut room = MAX_CONTENT;
    for (revision, content) in &revisions {
        let templates = Templates::new(facts, &content.data, node_name, labels);
        resources.extend(node_config(&revision.node_config, &content.resources, &templates, &mut room)?);
    }
    claims(resources.iter().map(|resource| (&resource.id, resource.parts.as_slice()))).map_err(
        |(claim, first, second)| CompileError::Claimed { claim, first: first.clone(), second: second.clone() },
    )?;

    let interval = revisions.iter().map(|(_, content)| content.interval_seconds).min();
    Catalog {
        host: host.clone(),
        generation: *generation,
        revisions: revisions.iter().map(|(revision, _)| revision.clone()).collect(),
        interval_seconds: interval.unwrap_or(DEFAULT_INTERVAL_SECONDS),
        resources,
        reboot: None,
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
        let render = |template: &str| template::check(template).map(|()| String::new());
        lowered.push((&resource.name, resource::lower(resource, &resource.name, render)?.parts));
    }
    claims(lowered.iter().map(|(name, parts)| (*name, parts.as_slice()))).map_err(|(claim, first, second)| {
        CompileError::ClaimedTwice { claim, first: first.clone(), second: second.clone() }
    })
}

fn node_config(
    name: &str,
    resources: &[NodeConfigResource],
    templates: &Templates,
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
        let lowered = resource::lower(resource, id.as_str(), |template| templates.render(template))?;
        for part in &lowered.parts {
            let Part::File(file) = part else { continue };
            let bytes = file.content.as_ref().map_or(0, |content| content.expose().len());
            let too_large = || CompileError::TooLarge { resource: id.to_string() };
            *room = room.checked_sub(bytes).ok_or_else(too_large)?;
        }
        let resource::Lowered { type_name, parts, finish } = lowered;
        Ok(Resource {
            finish,
            require: ids(&resource.require),
            notify: ids(&resource.notify),
            ..Resource::new(id, type_name, parts)
        })
    };
    ordered.into_iter().map(|i| one(&resources[i])).collect()
}

/// The first thing that two resources claim, with both of them. The parts of one resource get along.
fn claims<'a, N>(resources: impl Iterator<Item = (&'a N, &'a [Part])>) -> Result<(), (String, &'a N, &'a N)> {
    let mut taken: BTreeMap<String, Vec<(Claim, usize, &'a N)>> = BTreeMap::new();
    for (number, (name, parts)) in resources.enumerate() {
        for claim in parts.iter().filter_map(Part::claim) {
            let others = taken.entry(claim.thing.clone()).or_default();
            if let Some((_, _, first)) =
                others.iter().find(|(other, theirs, _)| *theirs != number && claim.conflicts_with(other))
            {
                return Err((claim.to_string(), first, name));
            }
            others.push((claim, number, name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
