use super::*;
use crate::host::memory::{MemoryHost, apply, check};

const ROOT: Access = Access { mode: 0o755, user: 0, group: 0 };
const HEADING: &str = "Filename Type Size Used Priority\n";

fn spec(size_mib: Option<u64>) -> SwapSpec {
    SwapSpec { path: "/swap-file".into(), state: Presence::Present, size_mib, priority: None }
}

fn absent() -> SwapSpec {
    SwapSpec { state: Presence::Absent, ..spec(Some(1)) }
}

fn host(swaps: &str) -> MemoryHost {
    let table = format!("{HEADING}{swaps}");
    MemoryHost::new().file("/proc/swaps", &table, ROOT).unit(r"swap\x2dfile.swap", "inactive", "generated")
}

/// With a file of one MiB in the place.
fn with_file(swaps: &str, access: Access) -> MemoryHost {
    host(swaps).file("/swap-file", &"\0".repeat(1024 * 1024), access)
}

fn area(host: MemoryHost) -> MemoryHost {
    host.command("blkid", 0, "/swap-file: UUID=\"1\" TYPE=\"swap\" USAGE=\"other\"\n", "")
}

#[track_caller]
fn does(spec: &SwapSpec, host: &MemoryHost, change: &str, ran: &[&str]) {
    check(spec, host, change);
    apply(spec, host).unwrap();
    let blkid = |line: &String| line.starts_with("blkid");
    assert_eq!(host.ran().into_iter().filter(|line| !blkid(line)).collect::<Vec<_>>(), ran);
}

const MAKES: [&str; 3] = [
    "fallocate -l 1048576 /swap-file.drover-new",
    "mkswap /swap-file.drover-new",
    "mv -f /swap-file.drover-new /swap-file",
];

#[test]
fn a_new_file_is_made_beside_its_place_and_switched_on() {
    let host = host("");
    does(&spec(Some(1)), &host, "created with 1 MiB; switched on", &[&MAKES[..], &["swapon /swap-file"]].concat());
    assert_eq!(host.entry("/swap-file.drover-new").unwrap().unwrap().access, ACCESS);
}

#[test]
fn a_file_system_that_cannot_allocate_gets_zeros() {
    let why = "fallocate: fallocate failed: Operation not supported";
    let host = host("").command("fallocate", 1, "", why);
    let dd = "dd if=/dev/zero of=/swap-file.drover-new bs=1048576 count=1 conv=fsync";
    let ran = [MAKES[0], dd, MAKES[1], MAKES[2], "swapon /swap-file"];
    does(&spec(Some(1)), &host, "created with 1 MiB; switched on", &ran);
}

#[test]
fn what_could_not_be_made_leaves_nothing_behind() {
    let full = "fallocate: fallocate failed: No space left on device";
    let large = "fallocate: fallocate failed: File too large";
    for (program, code, says) in [("mkswap", 1, "no space"), ("fallocate", 1, full), ("fallocate", 1, large)] {
        let host = host("").command(program, code, "", says);
        let error = apply(&spec(Some(1)), &host).unwrap_err().to_string();
        assert_eq!(error, format!("{program} exited with {code}: {says}"));
        assert_eq!(host.entry("/swap-file.drover-new").unwrap(), None);
        assert!(host.ran().iter().all(|line| !line.starts_with("dd ")), "{says}");
    }
}

#[test]
fn systemd_switches_on_what_it_runs() {
    let systemd = || area(with_file("", ACCESS)).directory("/run/systemd/system", ROOT);
    let transient = "systemd-run --quiet --wait --collect -- swapon /swap-file";
    does(&spec(Some(1)), &systemd(), "switched on", &[transient]);
    let fstab = systemd().file("/etc/fstab", "/swap-file none swap sw 0 0\n", ROOT);
    check(&spec(Some(1)), &fstab, "switched on");
    apply(&spec(Some(1)), &fstab).unwrap();
    assert_eq!(fstab.log(), "reload unit files\nstart swap\\x2dfile.swap");
}

#[test]
fn a_priority_is_given_and_another_one_is_a_difference() {
    let with = |priority| SwapSpec { priority: Some(priority), ..spec(Some(1)) };
    let on = "systemd-run --quiet --wait --collect -- swapon --priority 5 /swap-file";
    let systemd = |swaps: &str, line: &str| {
        area(with_file(swaps, ACCESS)).directory("/run/systemd/system", ROOT).file("/etc/fstab", line, ROOT)
    };
    let active = "/swap-file file 1020 0 7\n";
    // What is in fstab is what was wanted before.
    for line in ["", "/swap-file none swap sw 0 0\n", "/swap-file none swap sw,pri=7 0 0\n"] {
        does(&with(5), &systemd("", line), "switched on", &[on]);
        does(&with(5), &systemd(active, line), "priority 7 -> 5", &["swapoff /swap-file", on]);
        does(&with(7), &systemd(active, line), "", &[]);
        does(&spec(Some(1)), &systemd(active, line), "", &[]);
    }
    let fstab = systemd("/swap-file file 1020 0 -2\n", "/swap-file none swap sw,pri=5 0 0\n");
    does(&with(5), &fstab, "priority -2 -> 5", &["swapoff /swap-file"]);
    check(&spec(Some(1)), &systemd("", "/swap-file none swap sw,pri=5 0 0\n"), "switched on");
    let tools = ["swapoff /swap-file", "swapon --priority 5 /swap-file"];
    does(&with(5), &with_file(active, ACCESS), "priority 7 -> 5", &tools);
    let larger = SwapSpec { size_mib: Some(2), ..with(5) };
    check(&larger, &with_file(active, ACCESS), "size 1 -> 2 MiB; switched on");
}

#[test]
fn size_and_mode_are_as_they_must_be() {
    let active = "/swap-file file 1020 0 -2\n";
    does(&spec(Some(1)), &with_file(active, ACCESS), "", &[]);
    does(&spec(None), &with_file(active, ACCESS), "", &[]);
    let grown = MAKES.map(|line| line.replace("1048576", "2097152"));
    let grown: Vec<&str> = grown.iter().map(String::as_str).collect();
    let words = "size 1 -> 2 MiB; switched on";
    let ran = [grown[0], grown[1], "swapoff /swap-file", grown[2], "swapon /swap-file"];
    does(&spec(Some(2)), &with_file(active, ACCESS), words, &ran);
    does(&spec(Some(2)), &area(with_file("", ACCESS)), words, &[&grown[..], &["swapon /swap-file"]].concat());
    let open = with_file(active, Access { mode: 0o644, ..ACCESS });
    let ran = ["chown 0:0 /swap-file", "chmod 0600 /swap-file"];
    does(&spec(Some(1)), &open, "mode 0644 -> 0600", &ran);
}

#[test]
fn a_resize_that_goes_wrong_leaves_the_machine_its_swap() {
    for (program, off) in [("fallocate", false), ("mkswap", false), ("swapoff", true)] {
        let host = with_file("/swap-file file 1020 0 -2\n", ACCESS).command(program, 1, "", "no space");
        let error = apply(&spec(Some(2)), &host).unwrap_err().to_string();
        assert_eq!(error, format!("{program} exited with 1: no space"));
        let ran = host.ran();
        assert_eq!(ran.iter().any(|line| line == "swapoff /swap-file"), off, "{ran:?}");
        assert!(ran.iter().all(|line| !line.starts_with("mv ")), "{ran:?}");
        assert_eq!(host.entry("/swap-file").unwrap().unwrap().size, MIB);
        assert_eq!(host.entry("/swap-file.drover-new").unwrap(), None);
    }
}

#[test]
fn an_absent_one_is_switched_off_and_removed() {
    let host = with_file("/swap-file file 1020 0 -2\n", ACCESS);
    does(&absent(), &host, "switched off; removed", &["swapoff /swap-file"]);
    assert_eq!(host.entry("/swap-file").unwrap(), None);
    does(&absent(), &area(with_file("", ACCESS)), "removed", &[]);
    does(&absent(), &self::host(""), "", &[]);
}

#[test]
fn what_is_no_swap_area_is_never_touched() {
    let refusal = "refused: /swap-file is there and is no swap area; move it away, or choose another path";
    let precious = || with_file("", ACCESS).command("blkid", 2, "", "");
    check(&spec(Some(2)), &precious(), refusal);
    check(&absent(), &precious(), refusal);
    let folder = host("").directory("/swap-file", ROOT);
    check(&absent(), &folder, "refused: /swap-file is a directory; choose another path");
}

#[test]
fn a_block_device_is_only_switched() {
    let device = |path: &str, state| SwapSpec { path: path.into(), state, size_mib: None, priority: None };
    let host = |swaps| host(swaps).special("/dev/sda2", EntryKind::Special).link("/dev/disk/by-label/s", "../../sda2");
    let active = "/dev/sda2 partition 1020 0 -2\n";
    for path in ["/dev/sda2", "/dev/disk/by-label/s"] {
        let present = device(path, Presence::Present);
        does(&present, &host(""), "switched on", &[&format!("swapon {path}")]);
        does(&present, &host(active), "", &[]);
        does(&device(path, Presence::Absent), &host(active), "switched off", &[&format!("swapoff {path}")]);
        does(&device(path, Presence::Absent), &host(""), "", &[]);
    }
    let sized = SwapSpec { size_mib: Some(1), ..device("/dev/sda2", Presence::Present) };
    let refusal = "refused: /dev/sda2 is no regular file, and has the size it has; leave out sizeMib";
    check(&sized, &host(""), refusal);
    let missing = "refused: /swap-file is not there; give sizeMib to have a swap file made";
    check(&spec(None), &self::host(""), missing);
    check(&spec(Some(1)), &self::host("").without_kernel(), "refused: no kernel");
}
