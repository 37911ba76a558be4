//! What the resources of a catalog take for themselves on a machine.

use std::{borrow::Cow, collections::HashMap, iter::successors};

use drover_catalog::{Claim, Part};

/// What a resource takes for itself.
pub(super) struct Claiming<'a, N> {
    pub(super) name: &'a N,
    pub(super) parts: &'a [Part],
    /// Those of the parts, see [`of`].
    pub(super) claims: Cow<'a, [(usize, Claim)]>,
    /// Whether the thing that it is about may be named by a secret.
    pub(super) hides_names: bool,
}

/// What the parts claim, each claim with the index of its part.
pub(super) fn of(parts: &[Part]) -> Vec<(usize, Claim)> {
    let numbered = parts.iter().enumerate();
    numbered.flat_map(|(number, part)| part.claims().into_iter().map(move |claim| (number, claim))).collect()
}

/// The first thing that two resources claim, with both of them. The parts of one resource get along, and so do those that
/// want the same directory in the same way: two drop-ins of one unit.
pub(super) fn check<'a, N>(resources: &'a [Claiming<'a, N>]) -> Result<(), (String, &'a N, &'a N)> {
    struct Taken<'a, N> {
        claim: &'a Claim,
        resource: usize,
        part: &'a Part,
        name: &'a N,
        /// The claim of the same thing before it.
        previous: Option<usize>,
    }
    let count = resources.iter().map(|resource| resource.claims.len()).sum();
    let mut taken: Vec<Taken<'_, N>> = Vec::with_capacity(count);
    let mut latest: HashMap<&str, usize> = HashMap::with_capacity(count);
    for (resource, Claiming { name, parts, claims, hides_names }) in resources.iter().enumerate() {
        for (part, claim) in claims.iter() {
            let part = &parts[*part];
            let previous = latest.insert(&claim.thing, taken.len());
            let others = successors(previous, |&at| taken[at].previous).map(|at| &taken[at]);
            let shared = |other: &Part| matches!(part, Part::Directory(_)) && part == other;
            let conflicts = others
                .filter(|other| other.resource != resource && claim.conflicts_with(other.claim) && !shared(other.part));
            // They come from the latest back; who was first has it.
            if let Some(first) = conflicts.last() {
                let kind = claim.thing.split(':').next().unwrap_or_default();
                let shown = if *hides_names { format!("{kind}:(named by a secret)") } else { claim.to_string() };
                return Err((shown, first.name, name));
            }
            taken.push(Taken { claim, resource, part, name, previous });
        }
    }
    Ok(())
}
