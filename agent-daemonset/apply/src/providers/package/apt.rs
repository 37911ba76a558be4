//! Transactions of apt-get; see apt-get(8), apt-mark(8) and apt-cache(8).

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use drover_catalog::{PackageSpec, PackageState, Sensitive};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{
    CHANGE_TIMEOUT, Due, Failure, Lists, Observed, Plan, ProviderError, QUERY_TIMEOUT, command, dpkg, failed, must,
};
use crate::host::{Access, Command, CommandOutput, Host, HostError};

pub(super) const PROGRAM: &str = "/usr/bin/apt-get";
/// How long to wait for the lock of another apt or dpkg, in seconds.
const LOCK_SECONDS: u32 = 120;
/// How long to wait before the next try where apt itself does not wait for a lock.
const LOCK_PAUSE: Duration = Duration::from_secs(5);
/// How old the lists may be when somebody asks for the latest, in seconds.
const LISTS_AGE: u64 = 24 * 60 * 60;
/// When we fetched the lists, in seconds since 1970. apt itself keeps no such time: what did not change at the
/// repository changes nothing here.
const LISTS_STAMP: &str = "/var/lib/apt/drover-refreshed";

/// See [`super::observe`].
pub(super) async fn observe(
    host: &impl Host,
    specs: &[&PackageSpec],
    lists: &mut Lists,
) -> Result<Vec<Observed>, ProviderError> {
    let names: Vec<&str> = specs.iter().map(|spec| spec.package.as_str()).collect();
    let database = dpkg::Database::read(host, &names).await?;
    let latest: Vec<&str> = specs.iter().filter(|spec| asks_for_latest(spec)).map(|spec| &*spec.package).collect();
    let candidates = candidates(host, &latest, lists).await?;
    let mut observed = Vec::with_capacity(specs.len());
    for spec in specs {
        let dpkg::Known { installed, incomplete, held } =
            database.known(&spec.package, spec.state == PackageState::Absent);
        let wanted = match spec.state {
            PackageState::Absent => None,
            _ => spec.version.clone().or_else(|| candidates.get(&spec.package).cloned()),
        };
        let order: Option<Ordering> = match (&installed, &wanted) {
            (Some(installed), Some(wanted)) => Some(dpkg::compare(host, installed, wanted).await?),
            _ => None,
        };
        observed.push(Observed { installed, incomplete, wanted, order, held });
    }
    Ok(observed)
}

fn asks_for_latest(spec: &PackageSpec) -> bool {
    spec.state == PackageState::Latest && spec.version.is_none()
}

/// What the repositories offer of these packages, by name as it was asked for.
async fn candidates(
    host: &impl Host,
    packages: &[&str],
    lists: &mut Lists,
) -> Result<BTreeMap<String, String>, ProviderError> {
    if packages.is_empty() {
        return Ok(BTreeMap::new());
    }
    if lists_are_old(host)?
        && lists.may_refresh_old()
        && let Err(Failure { error, .. }) = refresh(host).await
    {
        warn!(%error, "could not refresh the lists of packages, and goes on with the old ones");
        lists.note_stay_old();
    }
    let policy = command(["apt-cache", "policy"].into_iter().chain(packages.iter().copied()), QUERY_TIMEOUT);
    let output = must(host, &policy).await?;
    Ok(parse_policy(&String::from_utf8_lossy(&output.stdout)))
}

/// Each package's lines begin with its name and a colon; `Candidate:` follows.
fn parse_policy(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut package = "";
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            package = name;
        } else if let Some(version) = line.trim().strip_prefix("Candidate:").map(str::trim)
            && version != "(none)"
        {
            found.insert(package.to_owned(), version.to_owned());
        }
    }
    found
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn lists_are_old(host: &impl Host) -> Result<bool, ProviderError> {
    let stamp = host.read_file(LISTS_STAMP)?.unwrap_or_default();
    let fetched: Option<u64> = std::str::from_utf8(&stamp).ok().and_then(|text| text.trim().parse().ok());
    // A clock that was set back makes them old.
    Ok(fetched.and_then(|fetched| now().checked_sub(fetched)).is_none_or(|age| age > LISTS_AGE))
}

async fn refresh(host: &impl Host) -> Result<(), Failure> {
    let update = apt_get(["update"]);
    let output = run_patiently(host, &update).await.map_err(ProviderError::from)?;
    if !output.success() {
        return Err(explained(&update, &output));
    }
    let access = Access { mode: 0o644, user: 0, group: 0 };
    let stamp = format!("{}\n", now());
    Ok(host.write_file(LISTS_STAMP, stamp.as_bytes(), access, None).await.map_err(ProviderError::from)?)
}

/// Runs a command, and again for as long as it is an apt-get that finds the lists locked: for that lock, which the timers
/// of `apt-daily` hold while they download, `DPkg::Lock::Timeout` makes it wait no moment.
pub(crate) async fn run_patiently(host: &impl Host, command: &Command) -> Result<CommandOutput, HostError> {
    let until = Instant::now() + Duration::from_secs(LOCK_SECONDS.into());
    loop {
        let output = host.run(command).await?;
        let is_locked = command.program() == "apt-get"
            && !output.success()
            && String::from_utf8_lossy(&output.stderr).contains("Could not get lock");
        if !is_locked || Instant::now() >= until {
            return Ok(output);
        }
        sleep(LOCK_PAUSE).await;
    }
}

/// See [`super::apply`].
pub(super) async fn transaction(host: &impl Host, due: &[Due<'_>], lists: &mut Lists) -> Result<(), Failure> {
    let plan = Plan::of(due);
    mark(host, "unhold", &plan.release).await?;
    let changed = change(host, &plan, lists).await;
    if changed.is_err() {
        // The failure matters more; the next run holds what is not held.
        let _ = mark(host, "hold", &plan.hold_again).await;
        return changed;
    }
    Ok(mark(host, "hold", &plan.hold).await?)
}

async fn mark(host: &impl Host, verb: &str, packages: &[&str]) -> Result<(), ProviderError> {
    if packages.is_empty() {
        return Ok(());
    }
    must(host, &command(["apt-mark", verb].into_iter().chain(packages.iter().copied()), CHANGE_TIMEOUT)).await?;
    Ok(())
}

/// Installs and removes, and once for each of its causes does away with a failure that can be done away with.
async fn change(host: &impl Host, plan: &Plan<'_>, lists: &mut Lists) -> Result<(), Failure> {
    let Some(install) = install(plan) else { return Ok(()) };
    let mut configured = false;
    loop {
        let output = host.run(&install).await.map_err(ProviderError::from)?;
        if output.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("dpkg was interrupted") && !configured {
            configured = true;
            must(host, &with_environment(["dpkg", "--force-confold", "--configure", "--pending"])).await?;
        } else if lists_are_stale(&stderr) && lists.may_refresh() {
            // What explains an unknown package is that its repository does not answer.
            refresh(host).await?;
        } else {
            return Err(explained(&install, &output));
        }
    }
}

/// One transaction of all: `name`, `name=version`, and `name-` for what goes.
fn install(plan: &Plan<'_>) -> Option<Command> {
    let Plan { install, remove, downgrades, .. } = plan;
    if install.is_empty() && remove.is_empty() {
        return None;
    }
    let mut command = apt_get(["install", "--no-install-recommends"]);
    if *downgrades {
        command.argv.push("--allow-downgrades".to_owned());
    }
    command.argv.push("--".to_owned());
    command.argv.extend(install.iter().map(|(name, version)| match version {
        Some(version) => format!("{name}={version}"),
        None => (*name).to_owned(),
    }));
    command.argv.extend(remove.iter().map(|name| format!("{name}-")));
    Some(command)
}

fn apt_get<const N: usize>(arguments: [&str; N]) -> Command {
    let lock = format!("DPkg::Lock::Timeout={LOCK_SECONDS}");
    let options = ["apt-get", "--yes", "-o", &lock, "-o", "Dpkg::Options::=--force-confold"];
    with_environment(options.into_iter().chain(arguments))
}

/// A command that may run the scripts of packages.
fn with_environment<'a>(argv: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = command(argv, CHANGE_TIMEOUT);
    let environment = [
        ("DEBIAN_FRONTEND", "noninteractive"),
        // Which services restart, and when, is the catalog's to say.
        ("NEEDRESTART_SUSPEND", "1"),
        ("APT_LISTCHANGES_FRONTEND", "none"),
        // Configuration that ucf looks after is kept as dpkg keeps its own.
        ("UCF_FORCE_CONFFOLD", "1"),
    ];
    command.environment.extend(environment.map(|(name, value)| (name.to_owned(), Sensitive::new(value))));
    command
}

/// Whether apt says that it knows no such package or version, or that the repository has another file than its lists
/// say: fresh lists may help.
fn lists_are_stale(stderr: &str) -> bool {
    let signs = ["Unable to locate package", "has no installation candidate", "was not found", "Failed to fetch"];
    signs.iter().any(|sign| stderr.contains(sign))
}

/// What apt says of dependencies, which it writes to standard output: `name : Depends: other but it is not installable`.
fn unmet(stdout: &str) -> Option<String> {
    let (_, lines) = stdout.split_once("unmet dependencies:\n")?;
    let lines = lines.lines().take_while(|line| line.starts_with(' '));
    Some(lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" "))
}

/// A lock that somebody keeps is a matter of all packages, and worth a sentence of its own.
fn explained(command: &Command, output: &CommandOutput) -> Failure {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let Some((_, lock)) = stderr.rsplit_once("Could not get lock ") else {
        return match (failed(command, output), unmet(&String::from_utf8_lossy(&output.stdout))) {
            (ProviderError::Command { program, failure }, Some(unmet)) => {
                ProviderError::Command { program, failure: format!("{failure} {unmet}") }.into()
            }
            (error, _) => error.into(),
        };
    };
    let file = lock.split_whitespace().next().unwrap_or_default().trim_end_matches(['.', ',']);
    let holder = lock
        .split_once("held by process ")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map_or("another process".to_owned(), |(holder, _)| format!("process {holder})"));
    let error = ProviderError::Refused(format!(
        "{holder} holds {file}, for more than {LOCK_SECONDS} s; the next run tries again, or end that process if it hangs"
    ));
    Failure { error, concerns_all: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_one_transaction() {
        let plan =
            Plan { install: vec![("jq", None), ("g++", Some("1:2-3"))], remove: vec!["nano"], ..Plan::default() };
        let words = |plan: &Plan<'_>| install(plan).unwrap().argv.join(" ");
        let options = "apt-get --yes -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold \
                       install --no-install-recommends";
        assert_eq!(words(&plan), format!("{options} -- jq g++=1:2-3 nano-"));
        let plan = Plan { downgrades: true, ..plan };
        assert_eq!(words(&plan), format!("{options} --allow-downgrades -- jq g++=1:2-3 nano-"));
        assert!(install(&Plan { hold: vec!["jq"], ..Plan::default() }).is_none());
    }

    #[test]
    fn a_lock_names_who_holds_it() {
        let said = |stderr: &str| {
            let output = CommandOutput { code: Some(100), stdout: Vec::new(), stderr: stderr.into() };
            let Failure { error, concerns_all } = explained(&apt_get(["install"]), &output);
            format!("{concerns_all}: {error}")
        };
        let lock = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)\n\
                    E: Unable to acquire the dpkg frontend lock";
        assert_eq!(
            said(lock),
            "true: process 4711 (unattended-upgr) holds /var/lib/dpkg/lock-frontend, for more than 120 s; \
             the next run tries again, or end that process if it hangs"
        );
        let unknown = "E: Could not get lock /var/lib/apt/lists/lock. - open (11: Resource temporarily unavailable)";
        assert!(said(unknown).starts_with("true: another process holds /var/lib/apt/lists/lock,"));
        assert_eq!(said("E: no"), "false: apt-get exited with 100: E: no");
    }

    #[test]
    fn unmet_dependencies_are_part_of_the_message() {
        let stdout = "Reading...\nThe following packages have unmet dependencies:\n a : Depends: b but it is not \
                      installable\n     Depends: c\nE: x\n";
        let output = CommandOutput { code: Some(100), stdout: stdout.into(), stderr: "E: broken".into() };
        let said = explained(&apt_get(["install"]), &output).error.to_string();
        assert_eq!(said, "apt-get exited with 100: E: broken a : Depends: b but it is not installable Depends: c");
    }

    #[test]
    fn the_policy_names_what_is_offered() {
        let text = "jq:\n  Installed: 1.6\n  Candidate: 1.7\n  Version table:\n     1.7 500\n\
                    nano:i386:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        assert_eq!(parse_policy(text), [("jq".to_owned(), "1.7".to_owned())].into());
    }
}
