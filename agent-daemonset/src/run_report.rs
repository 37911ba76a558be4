//! The report of a run, and whether a master needs to hear of it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use drover_apply::{RunError, RunResult, facts};
use drover_catalog::{Catalog, Outcome, Report, ResourceReport, ResourceStatus, Totals};

/// What a run did, for the masters.
pub(crate) fn of_run(catalog: &Catalog, result: RunResult, took: Duration, root: &Path) -> Report {
    let RunResult { resources, differences: _, reboot_required, interrupted: _ } = result;
    let mut totals = Totals::default();
    let mut millis_by_type: BTreeMap<String, u64> = BTreeMap::new();
    for resource in &resources {
        totals.add(resource);
        *millis_by_type.entry(resource.type_name.clone()).or_default() += resource.millis;
    }
    let outcome = if totals.failed + totals.skipped == 0 { Outcome::Converged } else { Outcome::Failed };
    let is_news = |r: &ResourceReport| r.status != ResourceStatus::Unchanged || r.flapping;
    Report {
        host: catalog.host.clone(),
        generation: catalog.generation,
        catalog: catalog.digest.clone(),
        revisions: catalog.revisions.clone(),
        outcome,
        totals,
        resources: resources.into_iter().filter(is_news).collect(),
        millis_by_type,
        duration_millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        reboot_required,
        boot_id: facts::boot_id(root),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// A run that could not go on: all its resources stand still, for the same reason.
pub(crate) fn of_failed_run(catalog: &Catalog, error: &RunError, took: Duration, root: &Path) -> Report {
    let message: String = error.to_string().chars().take(250).collect();
    let still = |resource: &drover_catalog::Resource| {
        ResourceReport::new(resource.id.clone(), &resource.type_name, ResourceStatus::Skipped, message.clone())
    };
    let resources = catalog.resources.iter().map(still).collect();
    let report = of_run(catalog, RunResult { resources, ..RunResult::default() }, took, root);
    Report { outcome: Outcome::Failed, ..report }
}

/// Whether a report says something that the one before did not. Runs that find everything in place are silent, and so
/// are those that fail as before.
pub(crate) fn is_news(report: &Report, before: Option<&Report>) -> bool {
    let Some(before) = before else { return true };
    let timeless = |report: &Report| Report {
        duration_millis: 0,
        millis_by_type: BTreeMap::new(),
        totals: Totals::default(),
        resources: Vec::new(),
        ..report.clone()
    };
    let troubles = |report: &Report| -> Vec<ResourceReport> {
        let changed = |r: &&ResourceReport| r.status == ResourceStatus::Changed;
        let timeless = |r: &ResourceReport| ResourceReport { millis: 0, ..r.clone() };
        report.resources.iter().filter(|r| !changed(r)).map(timeless).collect()
    };
    report.totals.changed + report.totals.corrected > 0
        || timeless(report) != timeless(before)
        || troubles(report) != troubles(before)
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Digest, HostIdentity, ResourceId};

    use super::*;

    fn report(rows: &[(&str, ResourceStatus, &str)]) -> Report {
        let catalog = Catalog {
            host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
            generation: 1,
            revisions: vec![],
            interval_seconds: 60,
            resources: vec![],
            reboot: None,
            digest: Digest::of(b""),
        };
        let resource = |(name, status, message): &(&str, ResourceStatus, &str)| {
            ResourceReport::new(ResourceId::new("base", name), "file", *status, (*message).to_owned())
        };
        let result = RunResult { resources: rows.iter().map(resource).collect(), ..RunResult::default() };
        of_run(&catalog, result, Duration::from_millis(7), Path::new("/"))
    }

    #[test]
    fn a_skipped_or_failed_resource_fails_the_run() {
        use ResourceStatus::{Changed, Deferred, Failed, Pending, Skipped, Unchanged};
        for (status, outcome) in [
            (Unchanged, Outcome::Converged),
            (Changed, Outcome::Converged),
            (Deferred, Outcome::Converged),
            (Pending, Outcome::Converged),
            (Failed, Outcome::Failed),
            (Skipped, Outcome::Failed),
        ] {
            assert_eq!(report(&[("a", Unchanged, ""), ("b", status, "")]).outcome, outcome, "{status:?}");
        }
    }

    #[test]
    fn only_news_is_sent() {
        use ResourceStatus::{Changed, Failed, Unchanged};
        let quiet = report(&[("a", Unchanged, "")]);
        let changed = report(&[("a", Changed, "created")]);
        let failed = report(&[("a", Failed, "no space")]);
        let failed_otherwise = report(&[("a", Failed, "no such user")]);
        let slower = Report { duration_millis: 9000, ..quiet.clone() };
        let of_next_catalog = Report { catalog: Digest::of(b"next"), ..quiet.clone() };
        let rebooted = Report { boot_id: "another".into(), ..quiet.clone() };
        for (report, before, news) in [
            (&quiet, None, true),
            (&quiet, Some(&quiet), false),
            (&slower, Some(&quiet), false),
            (&quiet, Some(&changed), false),
            (&changed, Some(&changed), true),
            (&failed, Some(&quiet), true),
            (&failed, Some(&failed), false),
            (&failed_otherwise, Some(&failed), true),
            (&quiet, Some(&failed), true),
            (&of_next_catalog, Some(&quiet), true),
            (&rebooted, Some(&quiet), true),
        ] {
            assert_eq!(is_news(report, before), news, "{report:?} after {before:?}");
        }
    }
}
