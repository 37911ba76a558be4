//! The report of a run, and whether a master needs to hear of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use drover_apply::{RunError, RunResult, facts};
use drover_catalog::{Catalog, Outcome, Report, ResourceId, ResourceReport, ResourceStatus, Totals};

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
        commands: vec![],
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

/// Whether a report says something that the last one that was sent did not. Runs that find everything in place are
/// silent, and so are those that fail as before, find the same differences, or correct the same resources as before:
/// what flaps is told of once.
pub(crate) fn is_news(report: &Report, before: Option<&Report>) -> bool {
    let Some(before) = before else { return true };
    let timeless = |report: &Report| Report {
        duration_millis: 0,
        millis_by_type: BTreeMap::new(),
        totals: Totals::default(),
        resources: Vec::new(),
        ..report.clone()
    };
    report.totals.changed > 0
        || timeless(report) != timeless(before)
        || corrections(report) != corrections(before)
        || troubles(report) != troubles(before)
}

/// Which resources were corrected, and which change at each run. In what they were corrected may be different each time.
fn corrections(report: &Report) -> BTreeSet<(&ResourceId, bool, bool)> {
    let corrected = |r: &ResourceReport| r.status == ResourceStatus::Changed && r.corrective;
    let told = report.resources.iter().filter(|r| corrected(r) || r.flapping);
    told.map(|r| (&r.id, corrected(r), r.flapping)).collect()
}

/// What is not as it should be.
fn troubles(report: &Report) -> Vec<ResourceReport> {
    let is_trouble = |r: &&ResourceReport| !matches!(r.status, ResourceStatus::Changed | ResourceStatus::Unchanged);
    let timeless = |r: &ResourceReport| ResourceReport { millis: 0, ..r.clone() };
    report.resources.iter().filter(is_trouble).map(timeless).collect()
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Digest, HostIdentity};

    use super::*;

    fn report(rows: &[(&str, ResourceStatus, &str)]) -> Report {
        let resource = |(name, status, message): &(&str, ResourceStatus, &str)| {
            ResourceReport::new(ResourceId::new("base", name), "file", *status, (*message).to_owned())
        };
        report_of(rows.iter().map(resource).collect())
    }

    fn report_of(resources: Vec<ResourceReport>) -> Report {
        let catalog = Catalog {
            host: HostIdentity { name: "node-1".into(), uid: "u1".into() },
            generation: 1,
            revisions: vec![],
            interval_seconds: 60,
            resources: vec![],
            reboot: None,
            commands: vec![],
            digest: Digest::of(b""),
        };
        let result = RunResult { resources, ..RunResult::default() };
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

    #[test]
    fn drift_is_news_when_it_begins_changes_and_ends() {
        use ResourceStatus::{Changed, Pending, Unchanged};
        let drift = |rows: &[(&str, ResourceStatus, bool, &str)]| {
            let resource = |(name, status, flapping, message): &(&str, ResourceStatus, bool, &str)| ResourceReport {
                corrective: *status != Unchanged,
                flapping: *flapping,
                ..ResourceReport::new(ResourceId::new("base", name), "file", *status, (*message).to_owned())
            };
            report_of(rows.iter().map(resource).collect())
        };
        let quiet = drift(&[("a", Unchanged, false, "")]);
        let intended = report(&[("a", Changed, "created")]);
        let corrected = drift(&[("a", Changed, false, "wrote 3 bytes")]);
        let corrected_otherwise = drift(&[("a", Changed, false, "wrote 4 bytes")]);
        let both = drift(&[("a", Changed, false, ""), ("b", Changed, false, "")]);
        let flapping = drift(&[("a", Changed, true, "")]);
        let resting = drift(&[("a", Unchanged, true, "")]);
        let pending = drift(&[("a", Pending, false, "mode")]);
        let pending_otherwise = drift(&[("a", Pending, false, "content")]);
        for (report, before, news) in [
            (&corrected, &quiet, true),
            (&corrected, &intended, true),
            (&corrected, &corrected, false),
            (&corrected_otherwise, &corrected, false),
            (&both, &corrected, true),
            (&corrected, &both, true),
            (&quiet, &corrected, true),
            (&flapping, &corrected, true),
            (&flapping, &flapping, false),
            (&resting, &flapping, true),
            (&quiet, &flapping, true),
            (&pending, &quiet, true),
            (&pending, &pending, false),
            (&pending_otherwise, &pending, true),
            (&corrected, &pending, true),
            (&quiet, &pending, true),
            (&intended, &corrected, true),
        ] {
            assert_eq!(is_news(report, Some(before)), news, "{report:?} after {before:?}");
        }
    }

    #[test]
    fn a_resource_that_flaps_is_told_of_twice_however_long_it_does() {
        let run = |number: u32| {
            let resource = ResourceReport {
                corrective: number > 0,
                flapping: number >= 3,
                millis: u64::from(number),
                ..ResourceReport::new(
                    ResourceId::new("base", "a"),
                    "exec",
                    ResourceStatus::Changed,
                    format!("{number}"),
                )
            };
            report_of(vec![resource])
        };
        let mut sent: Vec<Report> = Vec::new();
        for number in 0..100 {
            let report = run(number);
            if is_news(&report, sent.last()) {
                sent.push(report);
            }
        }
        let told: Vec<&str> = sent.iter().map(|report| report.resources[0].message.as_str()).collect();
        assert_eq!(told, ["0", "1", "3"], "when it was new, when it was first corrected, and when it flapped");
    }
}
