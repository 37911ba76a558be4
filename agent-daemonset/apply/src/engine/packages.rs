//! Packages of adjacent resources, in one transaction of the package manager.

use std::time::Instant;

use drover_catalog::{PackageSpec, PropertyEvent, Resource, ResourceReport, ResourceStatus};

use super::visit::{Done, SettleError, Stance, Visit, report};
use crate::{
    host::Host,
    providers::{
        Change as _,
        package::{self, Change},
    },
    state::StateError,
};

/// How many of the first resources are packages that can be one transaction: none of them requires another.
pub(super) fn together(resources: &[Resource]) -> usize {
    let independent = |(place, resource): &(usize, &Resource)| {
        let before = resources.get(..*place).unwrap_or_default();
        resource.package().is_some() && !resource.require.iter().any(|id| before.iter().any(|other| other.id == *id))
    };
    resources.iter().enumerate().take_while(independent).count()
}

/// A package that is not settled yet.
struct Open<'a> {
    resource: &'a Resource,
    spec: &'a PackageSpec,
    stance: Stance,
    changes: Vec<Change>,
}

impl<H: Host> Visit<'_, H> {
    /// Visits packages that can be one transaction.
    pub(super) async fn packages(&mut self, resources: &[Resource]) -> Result<Vec<ResourceReport>, StateError> {
        let began = Instant::now();
        let mut said: Vec<Option<ResourceReport>> = Vec::with_capacity(resources.len());
        let mut open: Vec<Open<'_>> = Vec::new();
        for resource in resources {
            let stance = self.stance(resource);
            said.push(if let Some((status, message)) = self.blocked(resource) {
                Some(report(resource, status, message))
            } else if stance.is_ignored(resource) {
                Some(report(resource, ResourceStatus::Unchanged, String::new()))
            } else {
                if let Some(spec) = resource.package() {
                    open.push(Open { resource, spec, stance, changes: Vec::new() });
                }
                None
            });
        }
        let results = self.transaction(&mut open).await?;
        // All of them took this time together; each gets its share.
        let share = began.elapsed() / u32::try_from(open.len().max(1)).unwrap_or(1);
        let mut settled = open.iter().zip(results);
        for (place, resource) in said.iter_mut().zip(resources) {
            let one = match place.take() {
                Some(one) => one,
                None => match settled.next() {
                    Some((Open { resource, stance, .. }, result)) => self.conclude(resource, stance, result, share)?,
                    None => report(resource, ResourceStatus::Unchanged, String::new()),
                },
            };
            *place = Some(one);
        }
        Ok(said.into_iter().flatten().collect())
    }

    async fn transaction(&mut self, open: &mut [Open<'_>]) -> Result<Vec<Result<Done, SettleError>>, StateError> {
        let specs: Vec<&PackageSpec> = open.iter().map(|one| one.spec).collect();
        let observed = package::observe(self.host, &specs, &mut self.lists).await;
        let mut results: Vec<Result<Done, SettleError>> = Vec::with_capacity(open.len());
        match observed {
            Ok(observed) => {
                for (one, observed) in open.iter_mut().zip(observed) {
                    results.push(match package::diff(one.spec, &observed) {
                        Ok(changes) => {
                            one.changes = changes;
                            Ok(done(&one.changes))
                        }
                        Err(error) => Err(error.into()),
                    });
                }
            }
            Err(error) => {
                // It is true of each of them.
                results.extend(open.iter().map(|_| Err(package::repeated(&error).into())));
            }
        }
        let is_due = |one: &Open<'_>| !one.changes.is_empty() && !one.stance.look_only;
        for one in open.iter().filter(|one| !one.changes.is_empty()) {
            if is_due(one) || self.mode == super::Mode::Noop {
                self.owe(one.resource)?;
            }
        }
        let due: Vec<(&PackageSpec, &[Change])> =
            open.iter().filter(|one| is_due(one)).map(|one| (one.spec, one.changes.as_slice())).collect();
        let mut applied =
            if due.is_empty() { Vec::new() } else { package::apply(self.host, &due, &mut self.lists).await }
                .into_iter();
        for (one, result) in open.iter().zip(&mut results).filter(|(one, _)| is_due(one)) {
            if let Some(Err(error)) = applied.next() {
                *result = Err(error.into());
            }
            debug_assert!(one.resource.package().is_some(), "only packages are in a transaction");
        }
        Ok(results)
    }
}

fn done(changes: &[Change]) -> Done {
    let events: Vec<PropertyEvent> = changes.iter().map(Change::event).collect();
    Done { messages: changes.iter().map(ToString::to_string).collect(), events, ..Done::default() }
}
