use std::cell::RefCell;

use futures::executor::block_on;

use super::*;
use crate::{
    host::{Access, memory::MemoryHost},
    providers::Change as _,
};

const ACCESS: Access = Access { mode: 0o644, user: 0, group: 0 };

fn jq(state: PackageState, version: Option<&str>) -> PackageSpec {
    PackageSpec { package: "jq".into(), state, version: version.map(str::to_owned), held: None, allow_downgrade: false }
}

fn named(name: &str) -> PackageSpec {
    PackageSpec { package: name.into(), ..jq(PackageState::Present, None) }
}

/// A Debian machine with these stanzas: name, status, version.
fn debian(packages: &[(&str, &str, &str)]) -> MemoryHost {
    let stanza = |&(name, status, version): &(&str, &str, &str)| {
        format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\n\n")
    };
    let status: String = [("dpkg", "install ok installed", "1.22")].iter().chain(packages).map(stanza).collect();
    MemoryHost::new().file(apt::PROGRAM, "", ACCESS).file(dpkg::STATUS, &status, ACCESS)
}

fn with_jq(status: &str, version: &str) -> MemoryHost {
    debian(&[("jq", status, version)])
}

/// A machine with rpm; what `rpm --query` says of all that is asked.
fn fedora(rpm: &str) -> MemoryHost {
    MemoryHost::new().file(dnf::PROGRAM, "", ACCESS).file(rpm::PROGRAM, "", ACCESS).command("rpm", 0, rpm, "")
}

#[track_caller]
fn check(spec: &PackageSpec, host: &MemoryHost, expected: &str) {
    crate::host::memory::check(spec, host, expected);
}

const INSTALLED: &str = "install ok installed";

#[test]
fn says_what_changes() {
    let present = jq(PackageState::Present, None);
    check(&present, &debian(&[]), "installed");
    check(&present, &with_jq("deinstall ok config-files", "1.6"), "installed");
    check(&present, &with_jq("install ok half-configured", "1.6"), "installed");
    check(&present, &with_jq(INSTALLED, "1.6"), "");
    check(&present, &with_jq("install ok triggers-pending", "1.6"), "");
    let absent = jq(PackageState::Absent, None);
    check(&absent, &debian(&[]), "");
    check(&absent, &with_jq("deinstall ok config-files", "1.6"), "");
    check(&absent, &with_jq(INSTALLED, "1.6"), "removed");
    check(&absent, &with_jq("install reinstreq half-installed", "1.6"), "removed");
    let pinned = jq(PackageState::Present, Some("1.7"));
    check(&pinned, &debian(&[]), "installed 1.7");
    check(&pinned, &with_jq(INSTALLED, "1.7"), "");
    check(&pinned, &with_jq(INSTALLED, "1.6").command("dpkg", 1, "", ""), "upgraded 1.6 -> 1.7");
}

#[test]
fn a_downgrade_is_made_only_where_it_is_allowed() {
    let newer = with_jq(INSTALLED, "1.8").command("dpkg", 0, "", "");
    let pinned = jq(PackageState::Present, Some("1.7"));
    let refusal = "refused: jq is 1.8 here, and a downgrade to 1.7 can break its data; \
                   do it by hand, allow it by allowDowngrade, or pin 1.8 or newer";
    check(&pinned, &newer, refusal);
    check(&PackageSpec { allow_downgrade: true, ..pinned }, &newer, "downgraded 1.8 -> 1.7");
}

#[test]
fn a_hold_is_a_property_of_its_own() {
    let held = |held| PackageSpec { held, ..jq(PackageState::Present, None) };
    let with_hold = with_jq("hold ok installed", "1.6");
    let free = with_jq(INSTALLED, "1.6");
    check(&held(None), &with_hold, "");
    check(&held(Some(true)), &with_hold, "");
    check(&held(Some(false)), &with_hold, "no longer held");
    check(&held(Some(true)), &free, "held");
    check(&held(Some(false)), &free, "");
    check(&held(Some(true)), &debian(&[]), "installed; held");
}

#[test]
fn latest_is_what_the_repositories_offer() {
    let latest = jq(PackageState::Latest, None);
    let offering = |host: MemoryHost, candidate: &str| {
        host.command("apt-cache", 0, &format!("jq:\n  Installed: x\n  Candidate: {candidate}\n"), "")
    };
    check(&latest, &offering(debian(&[]), "1.7"), "installed");
    check(&latest, &offering(with_jq(INSTALLED, "1.7"), "1.7"), "");
    check(&latest, &offering(with_jq(INSTALLED, "1.6"), "1.7").command("dpkg", 1, "", ""), "upgraded 1.6 -> 1.7");
    // Newer than what is offered: nothing to do, and nothing to refuse.
    check(&latest, &offering(with_jq(INSTALLED, "1.8"), "1.7").command("dpkg", 0, "", ""), "");
    check(&latest, &offering(with_jq(INSTALLED, "1.8"), "(none)"), "");
}

#[test]
fn old_lists_are_refreshed_once_and_not_by_a_run_that_only_looks() {
    let refreshed = |host: &MemoryHost, lists: &mut Lists| {
        host.log();
        block_on(observe(host, &[&jq(PackageState::Latest, None)], lists)).unwrap();
        host.count("run apt-get")
    };
    let host = with_jq(INSTALLED, "1.7");
    assert_eq!(refreshed(&host, &mut Lists::of_run(true)), 0);
    let mut lists = Lists::of_run(false);
    assert_eq!(refreshed(&host, &mut lists), 1);
    let old = host.file("/var/lib/apt/drover-refreshed", "1000000000\n", ACCESS);
    assert_eq!(refreshed(&old, &mut lists), 0);
    // Another run, and one soon after.
    assert_eq!(refreshed(&old, &mut Lists::of_run(false)), 1);
    assert_eq!(refreshed(&old, &mut Lists::of_run(false)), 0);
}

const LISTS_LOCKED: &str = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)\n\
                            E: Unable to lock directory /var/lib/apt/lists/";

#[tokio::test(start_paused = true)]
async fn whoever_refreshes_the_lists_is_waited_for() {
    // How often they are locked; how long that takes, in seconds; how often apt-get runs.
    for (locked, seconds, runs) in [(0, 0, 1), (1, 5, 2), (24, 120, 25), (25, 120, 25)] {
        let host =
            (0..locked).fold(with_jq(INSTALLED, "1.7"), |host, _| host.command_first("apt-get", 100, LISTS_LOCKED));
        let began = tokio::time::Instant::now();
        // For ever is no reason to fail: the lists are there, and only old.
        observe(&host, &[&jq(PackageState::Latest, None)], &mut Lists::of_run(false)).await.unwrap();
        assert_eq!((began.elapsed().as_secs(), host.count("run apt-get")), (seconds, runs), "{locked}");
        assert_eq!(host.count("write /var/lib/apt/drover-refreshed"), usize::from(locked < 25), "{locked}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_keeps_the_lists_locked_explains_an_unknown_package() {
    let install = [Change::Install { from: None, version: None, downgrade: false, held: false }];
    let unknown = debian(&[]).command_first("apt-get", 100, "E: Unable to locate package one");
    let host = unknown.command("apt-get", 100, "", LISTS_LOCKED);
    let (one, other) = (named("one"), named("other"));
    let results = apply(&host, &[(&one, &install), (&other, &install)], &mut Lists::of_run(false)).await;
    let said: Vec<String> = results.into_iter().map(|result| result.unwrap_err().to_string()).collect();
    let why = "process 7 (apt-get) holds /var/lib/apt/lists/lock, for more than 120 s; \
               the next run tries again, or end that process if it hangs";
    assert_eq!(said, [why, why]);
}

#[test]
fn lists_that_stay_old_are_no_reason_to_fail() {
    let offering = "jq:\n  Installed: 1.7\n  Candidate: 1.7\n";
    let host = with_jq(INSTALLED, "1.7").command("apt-get", 100, "", "E: no").command("apt-cache", 0, offering, "");
    let mut lists = Lists::of_run(false);
    let latest = jq(PackageState::Latest, None);
    for runs in [1, 1] {
        let observed = block_on(observe(&host, &[&latest], &mut lists)).unwrap();
        assert_eq!(diff(&latest, &observed[0]).unwrap(), []);
        assert_eq!(host.count("run apt-get"), runs, "tried once in a run");
    }
    // What they do not have is a reason to try again, once.
    assert!(lists.may_refresh() && !lists.may_refresh());
}

#[test]
fn a_run_that_finds_all_in_order_starts_no_process() {
    let host = debian(&[("jq", INSTALLED, "1.7"), ("nano", INSTALLED, "7")]);
    let specs = [jq(PackageState::Present, Some("1.7")), named("nano"), named("nano:amd64")];
    let observed = block_on(observe(&host, &specs.each_ref(), &mut Lists::default())).unwrap();
    assert!(specs.iter().zip(&observed).all(|(spec, observed)| diff(spec, observed).unwrap().is_empty()));
    assert_eq!(host.log(), "");
}

#[test]
fn dpkg_is_asked_while_its_journal_is_not_merged() {
    let answer = "dpkg\tamd64\t1.22\tinstall ok installed\njq\tamd64\t1.7\thold ok installed\n";
    let host = with_jq(INSTALLED, "1.6")
        .directory("/var/lib/dpkg/updates", ACCESS)
        .file("/var/lib/dpkg/updates/0001", "", ACCESS)
        .command("dpkg-query", 0, answer, "");
    check(&jq(PackageState::Present, Some("1.7")), &host, "");
    assert_eq!(host.count("run dpkg-query"), 1);
}

#[test]
fn looks_once_more_with_fresh_lists_when_its_own_are_stale() {
    let spec = jq(PackageState::Present, None);
    let apply = crate::host::memory::apply::<PackageSpec>;
    for stale in ["E: Unable to locate package jq", "E: Failed to fetch file:/repo/jq.deb Hash Sum mismatch"] {
        let unknown = debian(&[]).command("apt-get", 100, "", stale);
        let error = apply(&spec, &unknown).unwrap_err().to_string();
        assert_eq!(error, format!("apt-get exited with 100: {stale}"));
        // An update that fails is what explains it.
        assert_eq!(unknown.count("run apt-get"), 2, "{}", unknown.log());
    }
    let broken = debian(&[]).command("apt-get", 100, "", "E: Unmet dependencies");
    apply(&spec, &broken).unwrap_err();
    assert_eq!(broken.count("run apt-get"), 1, "{}", broken.log());
}

#[test]
fn an_interrupted_dpkg_is_finished_once() {
    let words = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.";
    let host = debian(&[]).command("apt-get", 100, "", words);
    crate::host::memory::apply(&jq(PackageState::Present, None), &host).unwrap_err();
    assert_eq!(host.log(), "run apt-get\nrun dpkg\nrun apt-get");
}

#[test]
fn what_fails_together_is_tried_one_by_one() {
    let (one, other) = (named("one"), named("other"));
    let install = [Change::Install { from: None, version: None, downgrade: false, held: false }];
    let host = debian(&[]).command("apt-get", 100, "", "E: Unmet dependencies");
    let due: [Due<'_>; 2] = [(&one, &install), (&other, &install)];
    let results = block_on(apply(&host, &due, &mut Lists::default()));
    let said: Vec<String> = results.into_iter().map(|result| result.unwrap_err().to_string()).collect();
    let why = "apt-get exited with 100: E: Unmet dependencies (alone, and before that together with 1 other packages)";
    assert_eq!(said, [why, why]);
    assert_eq!(host.count("run apt-get"), 3, "{}", host.log());
    // Nobody waits for a lock once for each package.
    let locked = "E: Could not get lock /var/lib/dpkg/lock. It is held by process 7 (apt)";
    let host = debian(&[]).command("apt-get", 100, "", locked);
    let results = block_on(apply(&host, &due, &mut Lists::default()));
    assert!(results.iter().all(|result| result.as_ref().unwrap_err().to_string().contains("process 7 (apt)")));
    assert_eq!(host.count("run apt-get"), 1, "{}", host.log());
}

#[test]
fn a_name_that_another_package_provides_is_refused() {
    let install = |from: Option<&str>| {
        [Change::Install { from: from.map(str::to_owned), version: None, downgrade: false, held: false }]
    };
    let (vim, jq) = (named("vim"), named("jq"));
    let refusal = "its transaction succeeded, and there is no package vim: another package provides that name; \
                   name that one instead";
    // What is there after the transaction.
    let there = "drover vim-enhanced x86_64 2 9.1 1.fc44\ndrover jq x86_64 0 1.7 1.fc44\n";
    for host in [fedora(there), debian(&[("vim-nox", INSTALLED, "9.1"), ("jq", INSTALLED, "1.7")])] {
        for (from, expected) in [(None, [refusal, ""]), (Some("9.0"), ["", ""])] {
            let due: [Due<'_>; 2] = [(&vim, &install(from)), (&jq, &install(None))];
            let results = block_on(apply(&host, &due, &mut Lists::default()));
            let said =
                results.into_iter().map(|result| result.err().map(|error| error.to_string()).unwrap_or_default());
            assert_eq!(said.collect::<Vec<_>>(), expected);
        }
    }
}

#[test]
fn a_hold_of_ours_is_let_go_for_a_change_and_taken_again() {
    let spec = PackageSpec { held: Some(true), ..jq(PackageState::Present, Some("1.7")) };
    let host = with_jq("hold ok installed", "1.6").command("dpkg", 1, "", "");
    crate::host::memory::apply(&spec, &host).unwrap();
    assert_eq!(host.log(), "run apt-mark\nrun apt-get\nrun apt-mark");
    let failing = with_jq("hold ok installed", "1.6").command("dpkg", 1, "", "").command("apt-get", 100, "", "E: no");
    crate::host::memory::apply(&spec, &failing).unwrap_err();
    assert_eq!(failing.log(), "run apt-mark\nrun apt-get\nrun apt-mark");
    // Somebody else's hold is apt's to defend.
    let foreign = with_jq("hold ok installed", "1.6").command("dpkg", 1, "", "");
    crate::host::memory::apply(&PackageSpec { held: None, ..spec }, &foreign).unwrap();
    assert_eq!(foreign.log(), "run apt-get");
}

#[test]
fn rpm_and_dnf_where_there_is_no_apt() {
    let present = jq(PackageState::Present, None);
    check(&present, &fedora("package jq is not installed\n"), "installed");
    check(&present, &fedora("drover jq x86_64 0 1.7 1.el9\n"), "");
    check(&jq(PackageState::Absent, None), &fedora("drover jq x86_64 0 1.7 1.el9\n"), "removed");
    check(&jq(PackageState::Present, Some("1.7")), &fedora("drover jq x86_64 0 1.7 1.el9\n"), "");
    check(&jq(PackageState::Present, Some("1.7-1.el9")), &fedora("drover jq x86_64 0 1.7 1.el9\n"), "");
    check(&present, &fedora(""), "refused: rpm exited with 0, and wrote nothing to standard error");
    let held = PackageSpec { held: Some(true), ..present };
    let locked = fedora("drover jq x86_64 0 1.7 1.el9\n");
    check(&held, &locked, "held");
    check(&held, &locked.file("/etc/dnf/plugins/versionlock.list", "jq-0:1.7-1.el9.*\n", ACCESS), "");
    let without = fedora("drover jq x86_64 0 1.7 1.el9\n").command("dnf", 1, "", "No such command: versionlock.");
    let error = crate::host::memory::apply(&held, &without).unwrap_err().to_string();
    assert!(error.contains("install python3-dnf-plugin-versionlock first"), "{error}");
}

#[test]
fn says_what_is_missing_where_there_is_no_package_manager() {
    let refusal = "refused: the machine has neither apt-get with dpkg nor dnf with rpm; packages need Debian, Ubuntu, \
                   Fedora, Red Hat Enterprise Linux or another system with one of them";
    check(&jq(PackageState::Present, None), &MemoryHost::new(), refusal);
}

#[test]
fn a_program_that_is_gone_is_looked_for_once() {
    let install = [Change::Install { from: None, version: None, downgrade: false, held: false }];
    let host = debian(&[]).without_program("apt-get");
    let (one, other) = (named("one"), named("other"));
    let results = block_on(apply(&host, &[(&one, &install), (&other, &install)], &mut Lists::default()));
    assert!(results.iter().all(|result| result.as_ref().unwrap_err().to_string().contains("no program apt-get")));
    assert_eq!(host.log(), "");
}

#[test]
fn only_a_package_is_asked_for() {
    let refused = RefCell::new(0);
    let check = |name: &str, version: Option<&str>| {
        let spec = PackageSpec { package: name.into(), ..jq(PackageState::Present, version) };
        *refused.borrow_mut() += u32::from(super::check(&spec).is_err());
    };
    for name in ["", "-o=x", "./jq.deb", "jq*", "jq=1", "jq/stable", "@group", "a b"] {
        check(name, None);
    }
    for version in ["", "1*", "1 2", "-1", "1')"] {
        check("jq", Some(version));
    }
    assert_eq!(refused.into_inner(), 13);
    for (name, version) in
        [("g++", Some("4:12.2-1")), ("libc6:i386", Some("2.36-9+deb12u1~x")), ("NetworkManager", None)]
    {
        super::check(&PackageSpec { package: name.into(), ..jq(PackageState::Present, version) }).unwrap();
    }
}

#[test]
fn events_name_versions() {
    let change = Change::Install { from: Some("1".into()), version: Some("2".into()), downgrade: false, held: false };
    let event = change.event();
    assert_eq!(
        (event.property.as_str(), event.previous.as_deref(), event.desired.as_deref()),
        ("version", Some("1"), Some("2"))
    );
}
