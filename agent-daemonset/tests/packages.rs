//! Packages on a machine with the real apt and dpkg, and on one with the real dnf and rpm. On Debian these need the
//! packages `dnf`, `dnf-plugins-core`, `rpm` and `createrepo-c`, and root; without them the tests say that they are
//! skipped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it goes wrong")]

mod common;

use std::cell::Cell;

use common::{catalog, machine::Machine, resource};
use drover_catalog::{PackageSpec, PackageState, Part};

/// Three packages, one of them in two versions, and one that cannot be installed.
const APT: &str = r#"
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* /var/log/apt/*
rm -rf /var/lib/apt/lists/*
mkdir -p /repo /tmp && cd /repo
make() {
  mkdir -p x/DEBIAN
  printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@example.org>\n%sDescription: x\n' "$1" "$2" "${3-}" > x/DEBIAN/control
  dpkg-deb --root-owner-group -b x $1_$2_all.deb > /dev/null
  { cat x/DEBIAN/control
    echo "Filename: ./$1_$2_all.deb"
    echo "Size: $(stat -c %s $1_$2_all.deb)"
    echo "SHA256: $(sha256sum $1_$2_all.deb | cut -d' ' -f1)"
    echo; } >> Packages
  rm -r x
}
make drover-a 1.0; make drover-a 1.1; make drover-b 1.0
make drover-c 1.0 'Provides: drover-virtual
'
make drover-broken 1.0 'Depends: drover-missing
'
echo 'deb [trusted=yes] file:/repo ./' > /etc/apt/sources.list
"#;

const DNF: &str = r#"
rm -f /usr/bin/apt-get /etc/dnf/plugins/local.conf /etc/yum.repos.d/*
rm -rf /var/cache/dnf /var/lib/dnf /.rpmdb
echo 1 > /etc/dnf/vars/releasever
mkdir -p /repo /tmp/build /etc/yum.repos.d && cd /tmp/build
make() {
  printf 'Name: %s\nVersion: %s\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n%s\n%%description\n%%files\n' "$1" "$2" "${3-}" > x.spec
  rpmbuild --quiet --define '_topdir /tmp/build' --define '_rpmdir /repo' -bb x.spec
}
make drover-a 1.0; make drover-a 1.1; make drover-b 1.0
make drover-c 1.0 'Provides: drover-virtual'; make drover-broken 1.0 'Requires: drover-missing'
createrepo_c --quiet /repo
printf '[repo]\nname=repo\nbaseurl=file:///repo\ngpgcheck=0\n' > /etc/yum.repos.d/repo.repo
"#;

fn package(name: &str, state: PackageState) -> PackageSpec {
    PackageSpec { package: name.into(), state, version: None, held: None, allow_downgrade: false }
}

fn present(name: &str) -> PackageSpec {
    package(name, PackageState::Present)
}

fn pinned(name: &str, version: &str) -> PackageSpec {
    PackageSpec { version: Some(version.into()), ..present(name) }
}

/// Applies packages, in a catalog that is newer than the one before.
struct Story {
    machine: Machine,
    generation: Cell<i64>,
}

impl Story {
    fn begin(programs: &[&str], script: &str) -> Option<Self> {
        let machine = Machine::new(programs)?;
        machine.run(script);
        Some(Self { machine, generation: Cell::new(0) })
    }

    /// What is said of all packages and of the whole, in lines of single blanks.
    fn apply(&self, packages: &[PackageSpec]) -> Vec<String> {
        self.with(packages, &[])
    }

    fn with(&self, packages: &[PackageSpec], flags: &[&str]) -> Vec<String> {
        self.generation.set(self.generation.get() + 1);
        let resources = packages.iter().map(|spec| resource(&spec.package, Part::Package(spec.clone()), &[])).collect();
        let table = self.machine.apply(&catalog(self.generation.get(), resources), flags);
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[track_caller]
    fn check(&self, packages: &[PackageSpec], expected: &[&str]) {
        let said = self.apply(packages);
        let (_totals, rows) = said.split_last().unwrap();
        assert_eq!(rows, expected);
    }

    /// The whole life of packages, which is the same with each package manager but for how versions are written.
    fn play(&self, installed: impl Fn() -> String, version: impl Fn(&str) -> String) {
        let (old, new) = (version("1.0"), version("1.1"));
        let a = || pinned("drover-a", "1.0");
        let would = self.with(&[a()], &["--noop"]);
        assert_eq!(would.first().unwrap(), "would be base/drover-a installed 1.0");
        assert_eq!(installed(), "");
        // Several at once; a second run finds nothing to do.
        let both = [a(), present("drover-b")];
        self.check(&both, &["changed base/drover-a installed 1.0", "changed base/drover-b installed"]);
        assert_eq!(installed(), format!("drover-a {old} drover-b {old}"));
        self.check(&both, &[]);
        // One comes, one goes, one is held.
        let held = PackageSpec { held: Some(true), ..package("drover-a", PackageState::Latest) };
        let change = [held.clone(), package("drover-b", PackageState::Absent), present("drover-c")];
        let upgraded = format!("changed base/drover-a upgraded {old} -> {new}; held");
        self.check(&change, &[&upgraded, "changed base/drover-b removed", "changed base/drover-c installed"]);
        assert_eq!(installed(), format!("drover-a {new} drover-c {old}"));
        self.check(&change, &[]);
        // Back only where that is allowed, and held all the while.
        let refused = self.apply(&[a()]);
        assert!(refused[0].starts_with(&format!("FAILED base/drover-a drover-a is {new} here")), "{refused:?}");
        let back = PackageSpec { allow_downgrade: true, held: Some(true), ..a() };
        self.check(std::slice::from_ref(&back), &[&format!("changed base/drover-a downgraded {new} -> 1.0")]);
        self.check(std::slice::from_ref(&back), &[]);
        assert_eq!(installed(), format!("drover-a {old} drover-c {old}"));
        let free = PackageSpec { held: Some(false), ..held };
        self.check(
            std::slice::from_ref(&free),
            &[&format!("changed base/drover-a upgraded {old} -> {new}; no longer held")],
        );
        // Two that cannot be installed keep no other one away.
        let mixed = [present("drover-none"), present("drover-b"), present("drover-broken")];
        let said = self.apply(&mixed);
        assert!(said[0].starts_with("FAILED base/drover-none"), "{said:?}");
        assert!(said[0].contains("alone, and before that together with 2 other packages"), "{said:?}");
        assert_eq!(said[1], "changed base/drover-b installed");
        assert!(said[2].starts_with("FAILED base/drover-broken") && said[2].contains("drover-missing"), "{said:?}");
        assert_eq!(installed(), format!("drover-a {new} drover-b {old} drover-c {old}"));
        // A name that only another one provides would be installed again in each run.
        let said = self.apply(&[present("drover-virtual")]);
        assert!(said[0].contains("another package provides that name; name that one instead"), "{said:?}");
    }
}

#[test]
fn apt_installs_upgrades_holds_and_removes() {
    let Some(story) = Story::begin(&["apt-get", "dpkg-deb"], APT) else { return };
    let installed = || {
        let query = "dpkg-query --show --showformat '${db:Status-Status} ${Package} ${Version}\\n' 'drover-*' || true";
        let lines = story.machine.run(query);
        lines.lines().filter_map(|line| line.strip_prefix("installed ")).collect::<Vec<_>>().join(" ")
    };
    story.play(installed, str::to_owned);
    // The log has a line for each transaction: the first was for two packages, the second for three.
    let log = story.machine.run("sed -n 's/^Commandline:.* -- //p' /var/log/apt/history.log");
    let first: Vec<&str> = log.lines().take(2).collect();
    assert_eq!(first, ["drover-a=1.0 drover-b", "drover-a=1.1 drover-c drover-b-"]);

    // A dpkg that was cut off: its journal is there, and apt refuses all work.
    story.machine.run(
        "{ echo Package: drover-a; echo Status: install ok unpacked; echo Maintainer: x; echo Architecture: all; \
         echo Version: 1.1; echo Description: x; } > /var/lib/dpkg/updates/0000",
    );
    story.check(&[package("drover-b", PackageState::Absent)], &["changed base/drover-b removed"]);
    assert_eq!(story.machine.run("ls /var/lib/dpkg/updates; dpkg --audit"), "");
}

#[test]
fn dnf_installs_upgrades_holds_and_removes() {
    let Some(story) = Story::begin(&["dnf", "rpm", "rpmbuild", "createrepo_c"], DNF) else { return };
    let installed = || {
        let names = story.machine.run("rpm --query --all --queryformat '%{NAME} %{VERSION}-%{RELEASE}\\n' 'drover-*'");
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        names.join(" ")
    };
    story.play(installed, |version| format!("{version}-1"));
    // Without its plugin, a hold says what is missing.
    story.machine.run("rm -f /usr/lib/python3/dist-packages/dnf-plugins/versionlock.py /etc/dnf/plugins/versionlock.*");
    let said = story.apply(&[PackageSpec { held: Some(true), ..present("drover-b") }]);
    assert!(said[0].contains("install python3-dnf-plugin-versionlock first"), "{said:?}");
}
