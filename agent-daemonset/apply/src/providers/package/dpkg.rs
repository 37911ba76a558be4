//! What dpkg knows of packages, from its status file (see dpkg(1), FILES, and deb822(5)): no process is started.
//!
//! While dpkg works, and after it was cut off, part of its knowledge is in a journal beside that file
//! (`/var/lib/dpkg/updates`). Then `dpkg-query` is asked, which reads both.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{ProviderError, QUERY_TIMEOUT, command};
use crate::host::{CommandOutput, Host};

/// The status file.
pub(super) const STATUS: &str = "/var/lib/dpkg/status";
const JOURNAL: &str = "/var/lib/dpkg/updates";
/// The package whose architecture is the machine's own.
const DPKG: &str = "dpkg";

/// One package of one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Record {
    architecture: String,
    version: String,
    held: bool,
    installed: bool,
    incomplete: bool,
}

impl Record {
    /// From the words of a status field: want, error flag and state.
    fn new(architecture: &str, version: &str, status: &str) -> Self {
        let mut words = status.split_whitespace();
        let (want, state) = (words.next().unwrap_or_default(), words.next_back().unwrap_or_default());
        Self {
            architecture: architecture.to_owned(),
            version: version.to_owned(),
            held: want == "hold",
            installed: matches!(state, "installed" | "triggers-pending" | "triggers-awaited"),
            incomplete: matches!(state, "half-installed" | "half-configured" | "unpacked"),
        }
    }
}

/// The packages that were asked for, by name without architecture.
#[derive(Debug, Default)]
pub(super) struct Database {
    records: BTreeMap<String, Vec<Record>>,
}

/// A package as dpkg knows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The installed version.
    pub(super) installed: Option<String>,
    /// Whether it is neither installed nor not.
    pub(super) incomplete: bool,
    /// Whether it is held.
    pub(super) held: bool,
}

impl Database {
    /// What is known of these packages, each a name or `name:architecture`.
    pub(super) async fn read(host: &impl Host, packages: &[&str]) -> Result<Self, ProviderError> {
        let names = || packages.iter().copied().map(|package| bare(package).0).chain([DPKG]);
        let journal = host.list_directory(JOURNAL)?.unwrap_or_default();
        if journal.iter().any(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
            return Self::ask(host, names()).await;
        }
        let status = host.read_file(STATUS)?.unwrap_or_default();
        Ok(Self::parse(&status, names()))
    }

    async fn ask<'a>(host: &impl Host, names: impl Iterator<Item = &'a str>) -> Result<Self, ProviderError> {
        let format = "${Package}\\t${Architecture}\\t${Version}\\t${Status}\\n";
        let query = ["dpkg-query", "--show", "--showformat", format];
        let query = command(query.into_iter().chain(names), QUERY_TIMEOUT);
        // It fails when one of them is not there, and tells of the others all the same.
        let CommandOutput { stdout, .. } = host.run(&query).await?;
        let mut database = Self::default();
        for line in String::from_utf8_lossy(&stdout).lines() {
            if let [name, architecture, version, status] = line.split('\t').collect::<Vec<_>>()[..] {
                database.add(name, Record::new(architecture, version, status));
            }
        }
        Ok(database)
    }

    fn parse<'a>(status: &[u8], names: impl Iterator<Item = &'a str>) -> Self {
        let wanted: std::collections::BTreeSet<&[u8]> = names.map(str::as_bytes).collect();
        let mut database = Self::default();
        let mut fields = Fields::default();
        for line in status.split(|&byte| byte == b'\n').chain([&b""[..]]) {
            // The end of a stanza; a line that begins with a blank continues the field above.
            if line.is_empty() {
                let Fields { package, architecture, version, status } = std::mem::take(&mut fields);
                if wanted.contains(package) {
                    let record = Record::new(&text(architecture), &text(version), &text(status));
                    database.add(&text(package), record);
                }
                continue;
            }
            let (place, name) = match line.first() {
                Some(b'P') => (&mut fields.package, &b"Package:"[..]),
                Some(b'A') => (&mut fields.architecture, &b"Architecture:"[..]),
                Some(b'V') => (&mut fields.version, &b"Version:"[..]),
                Some(b'S') => (&mut fields.status, &b"Status:"[..]),
                _ => continue,
            };
            if let Some(value) = line.strip_prefix(name) {
                *place = value.trim_ascii();
            }
        }
        database
    }

    fn add(&mut self, name: &str, record: Record) {
        self.records.entry(name.to_owned()).or_default().push(record);
    }

    /// What is known of a package. Without an architecture, it is the machine's own or none; one of another
    /// architecture counts when `any` is set.
    pub(super) fn known(&self, package: &str, any: bool) -> Known {
        let native = self.records.get(DPKG).and_then(|records| records.first()).map(|dpkg| dpkg.architecture.as_str());
        let (name, architecture) = bare(package);
        let is_wanted = |record: &&Record| match (architecture, native) {
            (None, None) => true,
            (None, Some(native)) => record.architecture == native || record.architecture == "all",
            (Some(wanted), native) => {
                record.architecture == wanted || (record.architecture == "all" && native == Some(wanted))
            }
        };
        let records = self.records.get(name).map(Vec::as_slice).unwrap_or_default();
        let stands = |record: &&Record| record.installed || record.incomplete;
        let record = records
            .iter()
            .filter(is_wanted)
            // A package that changed from one architecture to `all` can have left its configuration as the other.
            .max_by_key(|record| (record.installed, record.incomplete))
            .filter(|record| !(any && architecture.is_none()) || stands(record))
            .or_else(|| records.iter().find(|record| any && architecture.is_none() && stands(record)));
        let Some(record) = record else { return Known::default() };
        Known {
            installed: record.installed.then(|| record.version.clone()),
            incomplete: record.incomplete,
            held: record.held,
        }
    }
}

#[derive(Default)]
struct Fields<'a> {
    package: &'a [u8],
    architecture: &'a [u8],
    version: &'a [u8],
    status: &'a [u8],
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// A package's name and, if it says one, its architecture.
fn bare(package: &str) -> (&str, Option<&str>) {
    package.split_once(':').map_or((package, None), |(name, architecture)| (name, Some(architecture)))
}

/// Where one version stands to another one; see deb-version(7).
pub(super) async fn compare(host: &impl Host, one: &str, other: &str) -> Result<Ordering, ProviderError> {
    if one == other {
        return Ok(Ordering::Equal);
    }
    let compares = |relation| command(["dpkg", "--compare-versions", one, relation, other], QUERY_TIMEOUT);
    Ok(if host.run(&compares("gt")).await?.success() { Ordering::Greater } else { Ordering::Less })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.22

Package: jq
Status: hold ok installed
Priority: optional
Architecture: amd64
Multi-Arch: foreign
Version: 1.6-2.1
Description: a text
 Package: curl
 .
 Version: 9

Package: jq
Status: install ok installed
Architecture: i386
Version: 1.5

Package: tzdata
Architecture: all
Status: install ok triggers-pending
Version: 2026a

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: half
Status: install reinstreq half-configured
Architecture: amd64
Version: 1

Package: foreign
Status: install ok installed
Architecture: i386
Version: 7
";

    #[track_caller]
    fn check(package: &str, expected: &str) {
        let database = Database::parse(STATUS.as_bytes(), [bare(package).0, DPKG].into_iter());
        let said = |any| {
            let Known { installed, incomplete, held } = database.known(package, any);
            let words = [installed, incomplete.then(|| "incomplete".into()), held.then(|| "held".into())];
            words.into_iter().flatten().collect::<Vec<String>>().join(" ")
        };
        assert_eq!(format!("{}|{}", said(false), said(true)), expected, "{package}");
    }

    #[test]
    fn the_status_file_says_what_is_installed() {
        check("jq", "1.6-2.1 held|1.6-2.1 held");
        check("jq:amd64", "1.6-2.1 held|1.6-2.1 held");
        check("jq:i386", "1.5|1.5");
        check("jq:arm64", "|");
        check("tzdata", "2026a|2026a");
        check("tzdata:amd64", "2026a|2026a");
        check("tzdata:i386", "|");
        check("gone", "|");
        check("half", "incomplete|incomplete");
        // To install it means the machine's own architecture; to remove it, whatever is there.
        check("foreign", "|7");
        // Only within the description of another one.
        check("curl", "|");
    }
}
