//! Transactions of dnf; see dnf(8) and dnf-versionlock(8).
//!
//! What goes is removed first, then all the rest is installed: dnf has no command for both but its shell, whose exit
//! code does not tell a failure. dnf waits for the locks of others by itself, and keeps its lists as fresh as its
//! `metadata_expire` says.

use std::collections::{BTreeMap, BTreeSet};

use drover_catalog::{PackageSpec, PackageState};

use super::{
    CHANGE_TIMEOUT, Due, Failure, Lists, Observed, Plan, ProviderError, command, failed, must,
    rpm::{self, Evr, Record},
};
use crate::host::{Command, Host};

pub(super) const PROGRAM: &str = "/usr/bin/dnf";
/// Where dnf 4's and dnf 5's plugin keep what is locked.
const LOCKED: [&str; 2] = ["/etc/dnf/plugins/versionlock.list", "/etc/dnf/versionlock.toml"];

/// See [`super::observe`].
pub(super) async fn observe(
    host: &impl Host,
    specs: &[&PackageSpec],
    lists: &mut Lists,
) -> Result<Vec<Observed>, ProviderError> {
    let names: Vec<&str> = specs.iter().map(|spec| spec.package.as_str()).collect();
    let installed = rpm::installed(host, &names).await?;
    let asked = specs.iter().filter(|spec| spec.state == PackageState::Latest && spec.version.is_none());
    // One that is not there is installed as the newest without a question.
    let latest: Vec<&str> =
        asked.map(|spec| &*spec.package).filter(|name| installed.iter().any(|record| record.is(name))).collect();
    let candidates = candidates(host, &latest, &installed, lists).await?;
    let locked = locked(host, specs)?;
    let mut pairs: Vec<(Evr, &str)> = Vec::new();
    let mut observed: Vec<Observed> = Vec::with_capacity(specs.len());
    let mut compared: Vec<usize> = Vec::new();
    for (place, spec) in specs.iter().enumerate() {
        let wanted = match spec.state {
            PackageState::Absent => None,
            _ => spec.version.as_deref().or_else(|| candidates.get(&*spec.package).map(String::as_str)),
        };
        // Of a package that several versions are installed of, such as the kernel, the last one is the newest.
        let record = installed.iter().rfind(|record| record.is(&spec.package));
        if let (Some(record), Some(wanted)) = (record, wanted) {
            pairs.push((record.evr.clone(), wanted));
            compared.push(place);
        }
        observed.push(Observed {
            installed: record.map(|record| record.evr.text()),
            incomplete: false,
            wanted: wanted.map(str::to_owned),
            order: None,
            held: locked.contains(record.map_or(spec.package.as_str(), |record| &record.name)),
        });
    }
    for (place, order) in compared.into_iter().zip(rpm::compare(host, &pairs).await?) {
        if let Some(one) = observed.get_mut(place) {
            one.order = Some(order);
        }
    }
    Ok(observed)
}

/// What the repositories offer of these packages, by name as it was asked for.
async fn candidates(
    host: &impl Host,
    packages: &[&str],
    installed: &[Record],
    lists: &Lists,
) -> Result<BTreeMap<String, String>, ProviderError> {
    if packages.is_empty() {
        return Ok(BTreeMap::new());
    }
    let format = rpm::format(["name", "arch", "epoch", "version", "release"]);
    let mut query = vec!["dnf", "--quiet", "--assumeyes", "repoquery", "--latest-limit=1", "--queryformat", &format];
    if lists.look_only {
        query.push("--cacheonly");
    }
    let query = command(query.into_iter().chain(packages.iter().copied()), CHANGE_TIMEOUT);
    let output = must(host, &query).await?;
    let offered: Vec<Record> = String::from_utf8_lossy(&output.stdout).lines().filter_map(Record::parse).collect();
    let candidate = |package: &&str| {
        let here = installed.iter().rfind(|record| record.is(package))?;
        let mut same = offered.iter().filter(|record| record.name == here.name);
        let offer = same.clone().find(|record| record.architecture == here.architecture).or_else(|| same.next())?;
        Some(((*package).to_owned(), offer.evr.text()))
    };
    Ok(packages.iter().filter_map(candidate).collect())
}

/// The names of what is locked, if anybody asks.
fn locked(host: &impl Host, specs: &[&PackageSpec]) -> Result<BTreeSet<String>, ProviderError> {
    let mut names = BTreeSet::new();
    if specs.iter().any(|spec| spec.held.is_some()) {
        for path in LOCKED {
            let list = host.read_file(path)?.unwrap_or_default();
            names.extend(String::from_utf8_lossy(&list).lines().filter_map(locked_name));
        }
    }
    Ok(names)
}

/// `name-epoch:version-release.*` in a line of dnf 4, or `name = "name"` of dnf 5.
fn locked_name(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(value) = line.strip_prefix("name") {
        let value = value.trim_start();
        if let Some(value) = value.strip_prefix('=') {
            return Some(value.trim().trim_matches('"').to_owned());
        }
    }
    if line.starts_with(['#', '!', '[']) {
        return None;
    }
    let (without_release, _) = line.rsplit_once('-')?;
    let (name, _) = without_release.rsplit_once('-')?;
    Some(name.to_owned())
}

/// See [`super::apply`].
pub(super) async fn transaction(host: &impl Host, due: &[Due<'_>], lists: &mut Lists) -> Result<(), Failure> {
    let plan = Plan::of(due);
    lock(host, "delete", &plan.release).await?;
    let changed = change(host, &plan, lists).await;
    if changed.is_err() {
        // The failure matters more; the next run holds what is not held.
        let _ = lock(host, "add", &plan.hold_again).await;
        return changed;
    }
    Ok(lock(host, "add", &plan.hold).await?)
}

async fn lock(host: &impl Host, verb: &str, packages: &[&str]) -> Result<(), ProviderError> {
    if packages.is_empty() {
        return Ok(());
    }
    // What is installed is what is locked, so no repository need answer.
    let words = ["dnf", "--quiet", "--assumeyes", "--cacheonly", "versionlock", verb];
    let versionlock = command(words.into_iter().chain(packages.iter().copied()), CHANGE_TIMEOUT);
    let output = host.run(&versionlock).await?;
    if output.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No such command") || said.contains("Unknown argument \"versionlock\"") {
        return Err(ProviderError::Refused(
            "held needs dnf's plugin versionlock, which this machine does not have; install \
             python3-dnf-plugin-versionlock first, by a resource that this one requires"
                .to_owned(),
        ));
    }
    Err(failed(&versionlock, &output))
}

async fn change(host: &impl Host, plan: &Plan<'_>, lists: &mut Lists) -> Result<(), Failure> {
    let Plan { install, remove, .. } = plan;
    if !remove.is_empty() {
        // What was installed for it stays, as with apt: somebody may have come to need it.
        let remove = dnf(["--setopt=clean_requirements_on_remove=False", "remove"], remove.iter().copied());
        must(host, &remove).await?;
    }
    if install.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = install.iter().map(|(name, version)| spec(name, *version)).collect();
    let names = || names.iter().map(String::as_str);
    let first = dnf(["--setopt=install_weak_deps=False", "install"], names());
    let output = host.run(&first).await.map_err(ProviderError::from)?;
    if output.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !(lists_are_stale(&stderr) && lists.may_refresh()) {
        return Err(failed(&first, &output).into());
    }
    must(host, &dnf(["--refresh", "--setopt=install_weak_deps=False", "install"], names())).await?;
    Ok(())
}

fn dnf<'a, const N: usize>(words: [&'a str; N], packages: impl Iterator<Item = &'a str>) -> Command {
    command(["dnf", "--quiet", "--assumeyes"].into_iter().chain(words).chain(packages), CHANGE_TIMEOUT)
}

/// A package in a version as dnf spells it: `name-[epoch:]version[-release][.architecture]`.
fn spec(package: &str, version: Option<&str>) -> String {
    let Some(version) = version else { return package.to_owned() };
    // A name may have a dot in it; an architecture is one of few words.
    let known = ["x86_64", "i686", "aarch64", "noarch", "ppc64le", "s390x", "armv7hl", "riscv64"];
    match package.rsplit_once('.').filter(|(_, architecture)| known.contains(architecture)) {
        None => format!("{package}-{version}"),
        Some((name, architecture)) if version.contains('-') => format!("{name}-{version}.{architecture}"),
        Some((name, architecture)) => format!("{name}-{version}-*.{architecture}"),
    }
}

/// Whether dnf says that it knows no such package or version, or that a repository has other files than its lists say.
fn lists_are_stale(stderr: &str) -> bool {
    let signs = ["Unable to find a match", "No match for argument", "Error downloading packages", "No package matches"];
    signs.iter().any(|sign| stderr.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_asked_for_as_dnf_spells_it() {
        let check = |package, version, expected| assert_eq!(spec(package, version), expected);
        check("jq", None, "jq");
        check("jq", Some("1.7"), "jq-1.7");
        check("jq", Some("2:1.7-1.el9"), "jq-2:1.7-1.el9");
        check("jq.x86_64", Some("1.7-1"), "jq-1.7-1.x86_64");
        check("jq.x86_64", Some("1.7"), "jq-1.7-*.x86_64");
        check("python3.11", Some("3.11"), "python3.11-3.11");
    }

    #[test]
    fn both_dnfs_say_what_is_locked() {
        let check = |line, expected: Option<&str>| assert_eq!(locked_name(line).as_deref(), expected, "{line}");
        check("jq-0:1.7-1.el9.*", Some("jq"));
        check("python3-libs-0:3.9-1.*", Some("python3-libs"));
        check("# Added lock on Sat", None);
        check("!jq-0:1.7-1.el9.*", None);
        check("name = \"jq\"", Some("jq"));
        check("version = \"1.0\"", None);
        check("", None);
    }
}
