//! Packages by the machine's own package manager, run inside its root: apt with dpkg, or dnf with rpm.
//!
//! Packages of adjacent resources are looked at by one query and changed by one transaction. A package that the
//! manager does not know is looked for once more with fresh lists. A broken repository or a conflict is the manager's
//! to explain: its own words are in the message.
//!
//! - `apt`, `dpkg`: Debian, Ubuntu and what is made of them
//! - `dnf`, `rpm`: Fedora, Red Hat Enterprise Linux and what is made of them

mod apt;
mod dnf;
mod dpkg;
mod rpm;

use std::{cmp::Ordering, fmt, time::Duration};

pub(crate) use apt::run_patiently;
use drover_catalog::{PackageSpec, PackageState, PropertyEvent};

use super::{Provider, ProviderError, event_of};
use crate::host::{Command, CommandOutput, Host, HostError};

const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// A big package over a slow line, and the wait for another package manager's lock.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(1800);

/// What one run knows of the lists of what repositories offer. They are fetched at most once in a run.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    /// Whether this run fetched them.
    refreshed: bool,
    /// Whether this run could not fetch them when they were only old, and goes on with the old ones.
    stay_old: bool,
    /// Whether nothing may be fetched, since the run only looks.
    look_only: bool,
}

impl Lists {
    /// Nothing was fetched yet.
    pub(crate) fn of_run(look_only: bool) -> Self {
        Self { look_only, ..Self::default() }
    }

    /// Whether they may be fetched now; if so, they count as fetched.
    fn may_refresh(&mut self) -> bool {
        let may = !self.refreshed && !self.look_only;
        self.refreshed |= may;
        may
    }

    /// The same, where they are not known to lack something, and are only old.
    fn may_refresh_old(&mut self) -> bool {
        !self.stay_old && self.may_refresh()
    }

    /// They could not be fetched when they were only old. Where something is missing in them, that is tried once more: it
    /// is what explains the failure then.
    fn note_stay_old(&mut self) {
        (self.refreshed, self.stay_old) = (false, true);
    }
}

/// A package as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The installed version.
    installed: Option<String>,
    /// Whether it was left half-installed.
    incomplete: bool,
    /// What is wanted: the version that was asked for, or for [`PackageState::Latest`] what the repositories offer.
    wanted: Option<String>,
    /// Where the installed version stands to the wanted one.
    order: Option<Ordering>,
    /// Whether it is held back from upgrades.
    held: bool,
}

/// What must change about a package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Install it, in a version or as the repository offers it.
    Install {
        /// The installed version.
        from: Option<String>,
        /// The version to install.
        version: Option<String>,
        /// Whether that is older than the installed one.
        downgrade: bool,
        /// Whether it is held, by the same resource, and must be let go for this.
        held: bool,
    },
    /// Remove it, and keep its configuration.
    Remove {
        /// As above.
        held: bool,
    },
    /// Hold it back from upgrades, or let it go.
    Hold(bool),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install { from: Some(from), version: Some(to), downgrade, held: _ } => {
                write!(f, "{} {from} -> {to}", if *downgrade { "downgraded" } else { "upgraded" })
            }
            Self::Install { from: None, version: Some(version), .. } => write!(f, "installed {version}"),
            Self::Install { from: _, version: None, .. } => f.write_str("installed"),
            Self::Remove { held: _ } => f.write_str("removed"),
            Self::Hold(true) => f.write_str("held"),
            Self::Hold(false) => f.write_str("no longer held"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::Install { from, version, .. } => event_of("version", from.clone(), version.clone()),
            Self::Remove { held: _ } => event_of("ensure", Some("present".into()), Some("absent".into())),
            Self::Hold(held) => event_of("held", Some((!held).to_string()), Some(held.to_string())),
        }
    }
}

/// A package and what must change about it.
pub(crate) type Due<'a> = (&'a PackageSpec, &'a [Change]);

impl Provider for PackageSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let observed = observe(host, &[self], &mut Lists::default()).await?;
        Ok(observed.into_iter().next().unwrap_or_default())
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        diff(self, observed)
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        apply(host, &[(self, changes)], &mut Lists::default()).await.into_iter().collect()
    }
}

/// Looks at several packages at once.
///
/// Only [`PackageState::Latest`] asks what the repositories offer, from lists that are a day old at most; a run that
/// only looks takes the lists as they are.
pub(crate) async fn observe(
    host: &impl Host,
    specs: &[&PackageSpec],
    lists: &mut Lists,
) -> Result<Vec<Observed>, ProviderError> {
    for spec in specs {
        check(spec)?;
    }
    match Manager::of(host)? {
        Manager::Apt => apt::observe(host, specs, lists).await,
        Manager::Dnf => dnf::observe(host, specs, lists).await,
    }
}

/// What must change about one of them, in the order of doing it.
pub(crate) fn diff(spec: &PackageSpec, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
    let Observed { installed, incomplete, wanted, order, held } = observed;
    // A hold that the resource itself asks about is in nobody else's way.
    let held_by_us = *held && spec.held.is_some();
    if spec.state == PackageState::Absent {
        let remove = installed.is_some() || *incomplete;
        return Ok(remove.then_some(Change::Remove { held: held_by_us }).into_iter().collect());
    }
    let install = |from: &Option<String>, version: &Option<String>, downgrade| {
        Some(Change::Install { from: from.clone(), version: version.clone(), downgrade, held: held_by_us })
    };
    let mut changes: Vec<Change> = match (installed, order) {
        (None, _) => install(&None, &spec.version, false),
        (Some(_), None | Some(Ordering::Equal)) => None,
        (Some(_), Some(Ordering::Less)) => install(installed, wanted, false),
        // Newer than what the repositories offer is as new as can be.
        (Some(_), Some(Ordering::Greater)) if spec.version.is_none() => None,
        (Some(_), Some(Ordering::Greater)) if spec.allow_downgrade => install(installed, wanted, true),
        (Some(found), Some(Ordering::Greater)) => {
            let (package, wanted) = (&spec.package, wanted.as_deref().unwrap_or_default());
            return Err(ProviderError::Refused(format!(
                "{package} is {found} here, and a downgrade to {wanted} can break its data; \
                 do it by hand, allow it by allowDowngrade, or pin {found} or newer"
            )));
        }
    }
    .into_iter()
    .collect();
    changes.extend(spec.held.filter(|wanted| wanted != held).map(Change::Hold));
    Ok(changes)
}

/// Changes all of them in one transaction; one result for each. When it fails, each is tried by itself: one wrong name
/// must not keep the others away. What was not there is looked at again afterwards.
pub(crate) async fn apply(host: &impl Host, due: &[Due<'_>], lists: &mut Lists) -> Vec<Result<(), ProviderError>> {
    let manager = match Manager::of(host) {
        Ok(manager) => manager,
        Err(error) => return due.iter().map(|_| Err(repeated(&error))).collect(),
    };
    let mut results = change(manager, host, due, lists).await;
    let is_new = |change: &Change| matches!(change, Change::Install { from: None, .. });
    let came =
        due.iter().zip(&mut results).filter(|((_, changes), result)| result.is_ok() && changes.iter().any(is_new));
    let (names, results_of_new): (Vec<&str>, Vec<_>) = came.map(|((spec, _), result)| (&*spec.package, result)).unzip();
    if names.is_empty() {
        return results;
    }
    let are_there = manager.are_there(host, &names).await;
    for (place, (name, result)) in names.iter().zip(results_of_new).enumerate() {
        *result = match &are_there {
            Ok(are_there) if are_there.get(place) == Some(&true) => Ok(()),
            // Managers take any name that a package provides, and would install it again in each run.
            Ok(_) => Err(ProviderError::Refused(format!(
                "its transaction succeeded, and there is no package {name}: another package provides that name; \
                 name that one instead"
            ))),
            Err(error) => Err(repeated(error)),
        };
    }
    results
}

/// See [`apply`].
async fn change(
    manager: Manager,
    host: &impl Host,
    due: &[Due<'_>],
    lists: &mut Lists,
) -> Vec<Result<(), ProviderError>> {
    let together = match manager.transaction(host, due, lists).await {
        Ok(()) => return due.iter().map(|_| Ok(())).collect(),
        Err(failure) => failure,
    };
    if due.len() < 2 || together.concerns_all {
        return due.iter().map(|_| Err(repeated(&together.error))).collect();
    }
    let mut results = Vec::with_capacity(due.len());
    let mut hopeless: Option<ProviderError> = None;
    for one in due {
        results.push(match &hopeless {
            Some(error) => Err(repeated(error)),
            None => manager.transaction(host, std::slice::from_ref(one), lists).await.map_err(|failure| {
                if failure.concerns_all {
                    hopeless = Some(repeated(&failure.error));
                }
                let others = due.len() - 1;
                match failure.error {
                    ProviderError::Command { program, failure } => ProviderError::Command {
                        program,
                        failure: format!("{failure} (alone, and before that together with {others} other packages)"),
                    },
                    other => other,
                }
            }),
        });
    }
    results
}

/// Which package manager a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
}

impl Manager {
    /// By the files that it cannot do without: no process is started for it.
    fn of(host: &impl Host) -> Result<Self, ProviderError> {
        let has = |path| Ok::<_, HostError>(host.entry(path)?.is_some());
        if has(apt::PROGRAM)? && has(dpkg::STATUS)? {
            return Ok(Self::Apt);
        }
        if has(dnf::PROGRAM)? && has(rpm::PROGRAM)? {
            return Ok(Self::Dnf);
        }
        Err(ProviderError::Refused(
            "the machine has neither apt-get with dpkg nor dnf with rpm; packages need Debian, Ubuntu, Fedora, \
             Red Hat Enterprise Linux or another system with one of them"
                .to_owned(),
        ))
    }

    /// Whether packages are installed, each under its own name.
    async fn are_there(self, host: &impl Host, names: &[&str]) -> Result<Vec<bool>, ProviderError> {
        match self {
            Self::Apt => {
                let database = dpkg::Database::read(host, names).await?;
                Ok(names.iter().map(|name| database.known(name, false).installed.is_some()).collect())
            }
            Self::Dnf => {
                let installed = rpm::installed(host, names).await?;
                Ok(names.iter().map(|name| installed.iter().any(|record| record.is(name))).collect())
            }
        }
    }

    async fn transaction(self, host: &impl Host, due: &[Due<'_>], lists: &mut Lists) -> Result<(), Failure> {
        match self {
            Self::Apt => apt::transaction(host, due, lists).await,
            Self::Dnf => dnf::transaction(host, due, lists).await,
        }
    }
}

/// Why a transaction failed.
#[derive(Debug)]
struct Failure {
    error: ProviderError,
    /// Whether any other transaction would fail as well, so that there is no use in trying packages one by one.
    concerns_all: bool,
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        // The program is not there, hangs, or cannot be run here.
        let concerns_all = matches!(error, ProviderError::Host(_));
        Self { error, concerns_all }
    }
}

/// The same error, for another package. What is only postponed stays so.
pub(crate) fn repeated(error: &ProviderError) -> ProviderError {
    match error {
        ProviderError::Host(HostError::Unavailable(why)) => HostError::Unavailable(why.clone()).into(),
        ProviderError::Command { program, failure } => {
            ProviderError::Command { program: program.clone(), failure: failure.clone() }
        }
        other => ProviderError::Refused(other.to_string()),
    }
}

/// What a transaction is made of, as names or `name` with version.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan<'a> {
    install: Vec<(&'a str, Option<&'a str>)>,
    remove: Vec<&'a str>,
    downgrades: bool,
    /// Let go before, in order to change them.
    release: Vec<&'a str>,
    /// Held after.
    hold: Vec<&'a str>,
    /// What was held before and must be so again, even when the transaction fails.
    hold_again: Vec<&'a str>,
}

impl<'a> Plan<'a> {
    fn of(due: &[Due<'a>]) -> Self {
        let mut plan = Self::default();
        for (spec, changes) in due {
            let name = spec.package.as_str();
            for change in *changes {
                let held = match change {
                    Change::Install { version, downgrade, held, from: _ } => {
                        plan.install.push((name, version.as_deref()));
                        plan.downgrades |= downgrade;
                        *held
                    }
                    Change::Remove { held } => {
                        plan.remove.push(name);
                        *held
                    }
                    Change::Hold(true) => {
                        plan.hold.push(name);
                        false
                    }
                    Change::Hold(false) => true,
                };
                if held && !plan.release.contains(&name) {
                    plan.release.push(name);
                    if spec.held == Some(true) && spec.state != PackageState::Absent {
                        plan.hold.push(name);
                        plan.hold_again.push(name);
                    }
                }
            }
        }
        plan
    }
}

/// Refuses what the package manager would take for something else than one package: an option, a pattern, a path.
fn check(spec: &PackageSpec) -> Result<(), ProviderError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_' | ':');
    let name = &spec.package;
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(is_name) {
        return Err(ProviderError::Refused(format!(
            "{name:?} is no package's name; write one package, without version, pattern or path"
        )));
    }
    let is_version = |c: char| is_name(c) || matches!(c, '~' | '^');
    match &spec.version {
        Some(version)
            if !version.starts_with(|c: char| c.is_ascii_alphanumeric()) || !version.chars().all(is_version) =>
        {
            Err(ProviderError::Refused(format!(
                "{version:?} is no version of {name}; write it in full, without a pattern"
            )))
        }
        _ => Ok(()),
    }
}

/// A command of a package manager. Nobody is there to answer it, and its words are looked at.
fn command(argv: impl IntoIterator<Item = impl Into<String>>, timeout: Duration) -> Command {
    let mut command = Command::of(argv.into_iter().map(Into::into).collect(), timeout);
    command.environment = [("LC_ALL", "C")].map(|(k, v)| (k.to_owned(), drover_catalog::Sensitive::new(v))).into();
    command
}

/// Runs a command that must succeed.
async fn must(host: &impl Host, command: &Command) -> Result<CommandOutput, ProviderError> {
    let output = host.run(command).await?;
    if output.success() { Ok(output) } else { Err(failed(command, &output)) }
}

fn failed(command: &Command, output: &CommandOutput) -> ProviderError {
    // In one line, as all messages are.
    let failure = output.failure().split_whitespace().collect::<Vec<_>>().join(" ");
    ProviderError::Command { program: command.program().to_owned(), failure }
}

#[cfg(test)]
mod tests;
