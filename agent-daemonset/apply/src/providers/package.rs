//! Packages by apt and dpkg, run inside the machine's root.
//!
//! A package that the machine does not know is looked for once more with fresh lists. A held package, a broken
//! repository or a conflict is apt's to explain: its own words are in the message.

use std::{fmt, time::Duration};

use drover_catalog::{PackageSpec, PackageState, PropertyEvent};

use super::{Provider, ProviderError, event_of};
use crate::host::{Command, CommandOutput, Host, HostError};

const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// A big package over a slow line, and the wait for another apt's lock.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(1800);

/// A package as it is.
#[derive(Default)]
pub(crate) struct Observed {
    /// The installed version.
    installed: Option<String>,
    /// Whether that is newer than the wanted one.
    is_newer: bool,
}

/// What must change about a package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Install it, in a version or as the repository offers it.
    Install { from: Option<String>, version: Option<String> },
    /// Remove it, and keep its configuration.
    Remove,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install { from: Some(from), version: Some(to) } => write!(f, "upgraded {from} -> {to}"),
            Self::Install { from: None, version: Some(version) } => write!(f, "installed {version}"),
            Self::Install { from: _, version: None } => f.write_str("installed"),
            Self::Remove => f.write_str("removed"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::Install { from, version } => event_of("version", from.clone(), version.clone()),
            Self::Remove => event_of("ensure", Some("present".into()), Some("absent".into())),
        }
    }
}

impl Provider for PackageSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        let query = Command::new(
            ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Version}\\n", &self.package],
            QUERY_TIMEOUT,
        );
        let output = run(host, &query).await?;
        let Some(installed) = installed_version(&String::from_utf8_lossy(&output.stdout)) else {
            return Ok(Observed::default());
        };
        let is_newer = match &self.version {
            Some(wanted) if *wanted != installed => {
                let compare = ["dpkg", "--compare-versions", &installed, "gt", wanted];
                run(host, &Command::new(compare, QUERY_TIMEOUT)).await?.success()
            }
            _ => false,
        };
        Ok(Observed { installed: Some(installed), is_newer })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let Observed { installed, is_newer } = observed;
        Ok(match (self.state, installed, &self.version) {
            (PackageState::Absent, None, _) | (PackageState::Present | PackageState::Latest, Some(_), None) => {
                Vec::new()
            }
            (PackageState::Absent, Some(_), _) => vec![Change::Remove],
            (PackageState::Present | PackageState::Latest, Some(found), Some(wanted)) if found == wanted => Vec::new(),
            (PackageState::Present | PackageState::Latest, Some(found), Some(wanted)) if *is_newer => {
                let package = &self.package;
                return Err(ProviderError::Refused(format!(
                    "{package} is {found} here, and a downgrade to {wanted} can break its data; \
                     do it by hand, or pin {found} or newer"
                )));
            }
            (PackageState::Present | PackageState::Latest, from, version) => {
                vec![Change::Install { from: from.clone(), version: version.clone() }]
            }
        })
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            let output = match change {
                Change::Remove => run(host, &apt_get(&["remove", &self.package])).await?,
                Change::Install { from: _, version } => {
                    let name = match version {
                        Some(version) => format!("{}={version}", self.package),
                        None => self.package.clone(),
                    };
                    install(host, &name).await?
                }
            };
            if !output.success() {
                return Err(ProviderError::Command { program: "apt-get".to_owned(), failure: output.failure() });
            }
        }
        Ok(())
    }
}

/// Looks at several packages at once.
pub(crate) async fn observe(host: &impl Host, specs: &[&PackageSpec]) -> Result<Vec<Observed>, ProviderError> {
    let mut observed = Vec::with_capacity(specs.len());
    for spec in specs {
        observed.push(spec.observe(host, false).await?);
    }
    Ok(observed)
}

/// What must change about one of them.
pub(crate) fn diff(spec: &PackageSpec, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
    spec.diff(observed)
}

/// Changes all of them; one result for each.
pub(crate) async fn apply(host: &impl Host, due: &[(&PackageSpec, &[Change])]) -> Vec<Result<(), ProviderError>> {
    let mut results = Vec::with_capacity(due.len());
    for (spec, changes) in due {
        results.push(spec.apply(host, changes).await);
    }
    results
}

async fn install(host: &impl Host, name: &str) -> Result<CommandOutput, ProviderError> {
    let install = apt_get(&["install", "--no-install-recommends", name]);
    let first = run(host, &install).await?;
    if !lists_are_stale(&String::from_utf8_lossy(&first.stderr)) {
        return Ok(first);
    }
    let update = run(host, &apt_get(&["update"])).await?;
    if !update.success() {
        return Ok(update);
    }
    run(host, &install).await
}

fn apt_get(arguments: &[&str]) -> Command {
    let options = ["apt-get", "--yes", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-confold"];
    let mut command = Command::new(options, CHANGE_TIMEOUT);
    command.argv.extend(arguments.iter().map(|&argument| argument.to_owned()));
    // Nobody is there to answer, and messages are looked at below.
    command.environment = [("DEBIAN_FRONTEND", "noninteractive"), ("LC_ALL", "C")]
        .map(|(k, v)| (k.to_owned(), drover_catalog::Sensitive::new(v)))
        .into();
    command
}

async fn run(host: &impl Host, command: &Command) -> Result<CommandOutput, ProviderError> {
    match host.run(command).await {
        Err(HostError::NoProgram { program }) => Err(ProviderError::Refused(format!(
            "the machine has no {program}; packages need Debian, Ubuntu or another system with apt"
        ))),
        other => Ok(other?),
    }
}

/// The version among dpkg's lines, one for each architecture; a removed package whose configuration is left has a line
/// too.
fn installed_version(lines: &str) -> Option<String> {
    lines.lines().find_map(|line| line.strip_prefix("installed ")).map(str::to_owned)
}

/// Whether apt says that it knows no such package or version, or that the repository has another file than its lists say:
/// fresh lists may help.
fn lists_are_stale(stderr: &str) -> bool {
    let signs = ["Unable to locate package", "has no installation candidate", "was not found", "Failed to fetch"];
    signs.iter().any(|sign| stderr.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::{MemoryHost, apply, check};

    fn jq(state: PackageState, version: Option<&str>) -> PackageSpec {
        PackageSpec {
            package: "jq".into(),
            state,
            version: version.map(str::to_owned),
            held: None,
            allow_downgrade: false,
        }
    }

    fn host(dpkg: &str) -> MemoryHost {
        MemoryHost::new().command("dpkg-query", i32::from(dpkg.is_empty()), dpkg, "")
    }

    #[test]
    fn says_what_changes() {
        let present = jq(PackageState::Present, None);
        check(&present, &host(""), "installed");
        check(&present, &host("config-files 1.6\n"), "installed");
        check(&present, &host("installed 1.6\n"), "");
        check(&present, &host("not-installed \ninstalled 1.6\n"), "");
        let absent = jq(PackageState::Absent, None);
        check(&absent, &host(""), "");
        check(&absent, &host("config-files 1.6\n"), "");
        check(&absent, &host("installed 1.6\n"), "removed");
        let pinned = jq(PackageState::Present, Some("1.7"));
        check(&pinned, &host(""), "installed 1.7");
        check(&pinned, &host("installed 1.7\n"), "");
        check(&pinned, &host("installed 1.6\n").command("dpkg", 1, "", ""), "upgraded 1.6 -> 1.7");
    }

    #[test]
    fn refuses_a_downgrade() {
        let newer = host("installed 1.8\n").command("dpkg", 0, "", "");
        let refusal = "refused: jq is 1.8 here, and a downgrade to 1.7 can break its data; \
                       do it by hand, or pin 1.8 or newer";
        check(&jq(PackageState::Present, Some("1.7")), &newer, refusal);
    }

    #[test]
    fn looks_once_more_with_fresh_lists_when_its_own_are_stale() {
        let spec = jq(PackageState::Present, None);
        for stale in ["E: Unable to locate package jq", "E: Failed to fetch file:/repo/jq.deb  Hash Sum mismatch"] {
            let unknown = host("").command("apt-get", 100, "", stale);
            let error = apply(&spec, &unknown).unwrap_err().to_string();
            assert_eq!(error, format!("apt-get exited with 100: {stale}"));
            // An update that fails is what explains it.
            assert_eq!(unknown.count("run apt-get"), 2, "{}", unknown.log());
        }
        let broken = host("").command("apt-get", 100, "", "E: Unmet dependencies");
        apply(&spec, &broken).unwrap_err();
        assert_eq!(broken.count("run apt-get"), 1, "{}", broken.log());
    }

    #[test]
    fn says_what_is_missing_where_there_is_no_apt() {
        let no_apt = MemoryHost::new().without_program("dpkg-query");
        let refusal = "refused: the machine has no dpkg-query; packages need Debian, Ubuntu or another system with apt";
        check(&jq(PackageState::Present, None), &no_apt, refusal);
    }
}
