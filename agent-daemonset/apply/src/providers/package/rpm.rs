//! What rpm knows of packages, by one `rpm --query` for all, and how it orders versions (rpm-version(7)).

use std::cmp::Ordering;

use super::{ProviderError, QUERY_TIMEOUT, command, failed, must};
use crate::host::Host;

pub(super) const PROGRAM: &str = "/usr/bin/rpm";

/// Told apart from rpm's words about packages that are not installed.
const MARK: &str = "drover";

/// Epoch, version and release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Evr {
    pub(super) epoch: String,
    pub(super) version: String,
    pub(super) release: String,
}

impl Evr {
    /// As it is shown and asked for: without an epoch of 0.
    pub(super) fn text(&self) -> String {
        let Self { epoch, version, release } = self;
        if epoch == "0" { format!("{version}-{release}") } else { format!("{epoch}:{version}-{release}") }
    }

    /// The parts that somebody asks for: `version`, `version-release`, each with an epoch or without. What is left out is
    /// taken from this one.
    fn completed(&self, wanted: &str) -> Self {
        let (epoch, rest) = wanted.split_once(':').unwrap_or((&self.epoch, wanted));
        let (version, release) = rest.split_once('-').unwrap_or((rest, &self.release));
        Self { epoch: epoch.to_owned(), version: version.to_owned(), release: release.to_owned() }
    }
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) architecture: String,
    pub(super) evr: Evr,
}

impl Record {
    /// From a line of a query in the format of [`format`].
    pub(super) fn parse(line: &str) -> Option<Self> {
        let [MARK, name, architecture, epoch, version, release] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let evr = Evr { epoch: epoch.to_owned(), version: version.to_owned(), release: release.to_owned() };
        Some(Self { name: name.to_owned(), architecture: architecture.to_owned(), evr })
    }

    /// Whether it is the one that is asked for, as `name` or `name.architecture`.
    pub(super) fn is(&self, package: &str) -> bool {
        let Self { name, architecture, evr: _ } = self;
        name == package || package.strip_suffix(architecture.as_str()).and_then(|p| p.strip_suffix('.')) == Some(name)
    }
}

/// A query format, from the names of the five tags.
pub(super) fn format(tags: [&str; 5]) -> String {
    let tags = tags.map(|tag| format!("%{{{tag}}}"));
    format!("{MARK} {}\\n", tags.join(" "))
}

/// What is installed of these packages.
pub(super) async fn installed(host: &impl Host, packages: &[&str]) -> Result<Vec<Record>, ProviderError> {
    let mut records = Vec::new();
    // Output is cut off after 64 KiB.
    for some in packages.chunks(200) {
        let format = format(["NAME", "ARCH", "EPOCHNUM", "VERSION", "RELEASE"]);
        let query = ["rpm", "--query", "--queryformat", &format, "--"].into_iter().chain(some.iter().copied());
        let query = command(query, QUERY_TIMEOUT);
        // It exits with the number of those that are not installed, and says so of each on standard output.
        let output = host.run(&query).await?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if stdout.lines().count() < some.len() {
            return Err(failed(&query, &output));
        }
        records.extend(stdout.lines().filter_map(Record::parse));
    }
    Ok(records)
}

/// Where the installed versions stand to the wanted ones.
pub(super) async fn compare(host: &impl Host, pairs: &[(Evr, &str)]) -> Result<Vec<Ordering>, ProviderError> {
    let pairs: Vec<(&Evr, Evr)> = pairs.iter().map(|(found, wanted)| (found, found.completed(wanted))).collect();
    if pairs.iter().all(|(found, wanted)| *found == wanted) {
        return Ok(vec![Ordering::Equal; pairs.len()]);
    }
    // Part by part: whether rpm's own function understands a whole one depends on its release. The characters of
    // versions were checked, so they cannot end the strings.
    let mut script = "%{lua:".to_owned();
    for (found, wanted) in &pairs {
        let parts =
            [(&found.epoch, &wanted.epoch), (&found.version, &wanted.version), (&found.release, &wanted.release)];
        for (found, wanted) in parts {
            script.extend([" print(rpm.vercmp('", found.as_str(), "', '", wanted.as_str(), "') .. ' ')"]);
        }
    }
    script.push('}');
    let eval = command(["rpm", "--eval", &script], QUERY_TIMEOUT);
    let output = must(host, &eval).await?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let signs: Vec<Ordering> =
        stdout.split_whitespace().filter_map(|sign| sign.parse::<i32>().ok()).map(|sign| sign.cmp(&0)).collect();
    if signs.len() != 3 * pairs.len() {
        return Err(ProviderError::Refused("rpm did not compare versions; is it built with Lua?".to_owned()));
    }
    Ok(signs.chunks(3).map(|parts| parts.iter().fold(Ordering::Equal, |so_far, part| so_far.then(*part))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_as_it_is() {
        let found = Evr { epoch: "2".into(), version: "1.0".into(), release: "3.el9".into() };
        let check = |wanted, expected| assert_eq!(found.completed(wanted).text(), expected, "{wanted}");
        check("1.0", "2:1.0-3.el9");
        check("1.1", "2:1.1-3.el9");
        check("1.1-4", "2:1.1-4");
        check("0:1.1", "1.1-3.el9");
        check("3:1.1-4", "3:1.1-4");
    }

    #[test]
    fn a_line_is_a_package_or_none() {
        let jq = Record::parse("drover jq x86_64 0 1.7 1.el9").unwrap();
        assert_eq!(jq.evr.text(), "1.7-1.el9");
        assert!(jq.is("jq") && jq.is("jq.x86_64") && !jq.is("jq.i686") && !jq.is("j"));
        assert_eq!(Record::parse("package nano is not installed"), None);
    }
}
