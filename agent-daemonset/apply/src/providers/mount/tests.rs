use super::*;
use crate::host::{
    Access,
    memory::{MemoryHost, apply, check},
};

const ROOT: Access = Access { mode: 0o755, user: 0, group: 0 };
const UNIT: &str = r"mnt-my\x2ddisk.mount";
/// Has systemd run mount(8).
const IN_UNIT: &str = "systemd-run --quiet --wait --pipe --collect --property=KillMode=process -- mount";
const SDA: &str = "36 1 8:1 / /mnt/my-disk rw,relatime shared:1 - ext4 /dev/sda1 rw,discard";

fn spec() -> MountSpec {
    MountSpec {
        path: "/mnt/my-disk".into(),
        mounted: true,
        device: "/dev/sda1".into(),
        fstype: "ext4".into(),
        options: vec!["nofail".into()],
    }
}

fn absent() -> MountSpec {
    MountSpec { mounted: false, ..spec() }
}

fn with(options: &[&str]) -> MountSpec {
    MountSpec { options: options.iter().copied().map(str::to_owned).collect(), ..spec() }
}

fn host(mounts: &[&str]) -> MemoryHost {
    let table = [&["30 1 8:3 / / rw - ext4 /dev/sda3 rw"], mounts].concat().join("\n");
    MemoryHost::new().file("/proc/1/mountinfo", &table, ROOT).unit(UNIT, "inactive", "generated")
}

fn systemd(mounts: &[&str]) -> MemoryHost {
    host(mounts).directory("/run/systemd/system", ROOT)
}

fn fstab(mounts: &[&str]) -> MemoryHost {
    systemd(mounts).file("/etc/fstab", "/dev/sda1 /mnt/my-disk ext4 nofail 0 2\n", ROOT)
}

/// What is done: acts on units, and commands with their arguments.
#[track_caller]
fn does(spec: &MountSpec, host: &MemoryHost, change: &str, log: &str, ran: &[&str]) {
    check(spec, host, change);
    apply(spec, host).unwrap();
    assert_eq!((host.log().as_str(), host.ran()), (log, ran.iter().copied().map(str::to_owned).collect()));
}

#[test]
fn systemd_mounts_what_it_runs_and_else_the_tools_do() {
    let log = format!("reload unit files\nstart {UNIT}");
    does(&spec(), &fstab(&[]), "mounted", &log, &[]);
    let transient = format!("{IN_UNIT} -t ext4 /dev/sda1 /mnt/my-disk");
    does(&spec(), &systemd(&[]), "mounted", "run systemd-run", &[&transient]);
    let noexec = with(&["noauto", "noexec", "nofail"]);
    does(&noexec, &host(&[]), "mounted", "run mount", &["mount -t ext4 -o noexec /dev/sda1 /mnt/my-disk"]);
    let bare = MountSpec { fstype: "auto".into(), options: vec![], ..spec() };
    does(&bare, &host(&[]), "mounted", "run mount", &["mount /dev/sda1 /mnt/my-disk"]);
}

#[test]
fn a_line_of_fstab_that_says_something_else_mounts_nothing() {
    for line in [
        "/dev/sdb1 /mnt/my-disk ext4 nofail 0 2",
        "/dev/sda1 /mnt/other ext4 nofail 0 2",
        "/dev/sda1 /mnt/my-disk xfs nofail 0 2",
        "/dev/sda1 /mnt/my-disk ext4 nofail,noexec 0 2",
        "/dev/sda1 /mnt/my-disk ext4",
        "/dev/sda1 /mnt/my-disk",
    ] {
        let host = systemd(&[]).file("/etc/fstab", line, ROOT);
        let ran = format!("{IN_UNIT} -t ext4 /dev/sda1 /mnt/my-disk");
        does(&spec(), &host, "mounted", "run systemd-run", &[&ran]);
    }
    let log = format!("reload unit files\nstart {UNIT}");
    for line in ["/dev/sda1 /mnt/my-disk ext4", "/dev/sda1 /mnt/my-disk ext4 defaults"] {
        does(&with(&[]), &systemd(&[]).file("/etc/fstab", line, ROOT), "mounted", &log, &[]);
    }
}

#[test]
fn what_mount_says_is_told() {
    let host = systemd(&[]).command("systemd-run", 32, "", "mount: /mnt/my-disk: can't find /dev/sda1.");
    let error = apply(&spec(), &host).unwrap_err().to_string();
    assert_eq!(error, "systemd-run exited with 32: mount: /mnt/my-disk: can't find /dev/sda1.");
}

#[test]
fn what_is_mounted_so_is_left_alone() {
    for host in [fstab(&[SDA]), systemd(&[SDA]), host(&[SDA])] {
        check(&spec(), &host, "");
        check(&with(&["defaults", "discard", "x-systemd.device-timeout=5"]), &host, "");
    }
    check(&absent(), &fstab(&[]), "");
    let by_uuid = MountSpec { device: "UUID=1-2".into(), ..spec() };
    check(&by_uuid, &host(&[SDA]).link("/dev/disk/by-uuid/1-2", "../../sda1"), "");
    check(&by_uuid, &host(&[SDA]), "mounted in place of /dev/sda1 (ext4)");
    // What is mounted below it is another thing.
    check(&spec(), &host(&["36 1 8:1 / /mnt/my-disk/a rw - ext4 /dev/sda1 rw"]), "mounted");
    let tmpfs = MountSpec { device: "tmpfs".into(), fstype: "tmpfs".into(), ..spec() };
    check(&tmpfs, &host(&["36 1 0:9 / /mnt/my-disk rw - tmpfs none rw,size=4k"]), "");
    let nfs = MountSpec { device: "nas:/a/".into(), fstype: "nfs".into(), ..spec() };
    check(&nfs, &host(&["36 1 0:9 / /mnt/my-disk rw - nfs4 nas:/a rw,vers=4.2"]), "");
}

#[test]
fn a_file_is_known_by_its_loop_device() {
    let image = MountSpec { device: "/srv/a b.iso".into(), fstype: "iso9660".into(), ..with(&["loop", "ro"]) };
    let host = |source: &str, file: &str| {
        host(&[&format!("36 1 7:0 / /mnt/my-disk ro,relatime - iso9660 {source} ro")]).file(
            "/sys/block/loop7/loop/backing_file",
            file,
            ROOT,
        )
    };
    for (source, file, change) in [
        ("/dev/loop7", "/srv/a b.iso\n", ""),
        ("/dev/loop7", "/srv/other.iso\n", "mounted in place of /dev/loop7 (iso9660)"),
        ("/dev/loop7", "/srv/a b.iso (deleted)\n", "mounted in place of /dev/loop7 (iso9660)"),
        ("/dev/loop8", "/srv/a b.iso\n", "mounted in place of /dev/loop8 (iso9660)"),
        ("/dev/loop7p1", "/srv/a b.iso\n", "mounted in place of /dev/loop7p1 (iso9660)"),
    ] {
        check(&image, &host(source, file), change);
    }
}

#[test]
fn a_file_system_in_user_space_is_known_by_its_own_name() {
    for (wanted, found, same) in [
        ("glusterfs", "fuse.glusterfs", true),
        ("fuse.sshfs", "fuse.sshfs", true),
        ("sshfs", "fuse.sshfs", true),
        ("sshfs", "fuse.glusterfs", false),
        ("nfs", "nfs4", true),
        ("ext4", "ext3", false),
        ("fuse.sshfs", "sshfs", false),
    ] {
        assert_eq!(same_type(wanted, found), same, "{wanted} {found}");
    }
    let remote = MountSpec { device: "nas:/vol".into(), fstype: "glusterfs".into(), ..spec() };
    check(&remote, &host(&["36 1 0:9 / /mnt/my-disk rw - fuse.glusterfs nas:/vol rw"]), "");
}

#[test]
fn other_options_are_a_remount() {
    let wanted = with(&["noatime", "nofail"]);
    let words = "remounted with noatime";
    let line = "/dev/sda1 /mnt/my-disk ext4 noatime,nofail 0 2";
    let fstab_says_so = systemd(&[SDA]).file("/etc/fstab", line, ROOT);
    does(&wanted, &fstab_says_so, words, &format!("reload unit files\nreload {UNIT}"), &[]);
    does(&wanted, &host(&[SDA]), words, "run mount", &["mount -t ext4 -o remount,noatime /dev/sda1 /mnt/my-disk"]);
    let transient = format!("{IN_UNIT} -t ext4 -o remount,noatime /dev/sda1 /mnt/my-disk");
    // The line in fstab has the options of before.
    for host in [systemd(&[SDA]), fstab(&[SDA])] {
        does(&wanted, &host, words, "run systemd-run", &[&transient]);
    }
}

#[test]
fn another_device_takes_the_place_of_what_is_there() {
    let other = MountSpec { device: "/dev/sdb1".into(), ..spec() };
    let words = "mounted in place of /dev/sda1 (ext4)";
    let ran = format!("{IN_UNIT} -t ext4 /dev/sdb1 /mnt/my-disk");
    // The line in fstab is that of the other device until this has worked.
    does(&other, &fstab(&[SDA]), words, &format!("stop {UNIT}\nrun systemd-run"), &[&ran]);
    let said = systemd(&[SDA]).file("/etc/fstab", "/dev/sdb1 /mnt/my-disk ext4 nofail 0 2\n", ROOT);
    does(&other, &said, words, &format!("stop {UNIT}\nreload unit files\nstart {UNIT}"), &[]);
    check(&MountSpec { fstype: "xfs".into(), ..spec() }, &fstab(&[SDA]), words);
    // The uppermost counts.
    check(&spec(), &fstab(&[SDA, &SDA.replace("sda1", "sdb1")]), "mounted in place of /dev/sdb1 (ext4)");
}

#[test]
fn what_must_not_be_mounted_is_unmounted() {
    does(&absent(), &fstab(&[SDA]), "unmounted", &format!("stop {UNIT}"), &[]);
    does(&absent(), &host(&[SDA]), "unmounted", "run umount", &["umount /mnt/my-disk"]);
    let root = MountSpec { path: "/".into(), ..absent() };
    check(&root, &host(&[]), "refused: the root file system stays mounted");
}

#[test]
fn an_automount_is_as_good_as_mounted_and_goes_first() {
    let trap = "35 1 0:8 / /mnt/my-disk rw - autofs systemd-1 rw";
    let automounted = with(&["x-systemd.automount"]);
    check(&automounted, &fstab(&[trap]), "");
    check(&automounted, &fstab(&[trap, SDA]), "");
    check(&spec(), &fstab(&[trap]), "mounted");
    let automount = r"mnt-my\x2ddisk.automount";
    let host = fstab(&[trap, SDA]).unit(automount, "active", "generated");
    does(&absent(), &host, "unmounted", &format!("stop {automount}\nstop {UNIT}"), &[]);
}

#[test]
fn a_bind_mount_is_known_by_its_folder() {
    let bind = MountSpec { device: "/srv/data".into(), fstype: "none".into(), ..with(&["bind"]) };
    let of = |root: &str| format!("36 1 8:3 {root} /mnt/my-disk rw - ext4 /dev/sda3 rw");
    check(&bind, &host(&[&of("/srv/data")]), "");
    check(&bind, &host(&[&of("/srv/other")]), "mounted in place of /dev/sda3 (ext4)");
    let srv = "33 1 8:4 /vol /srv rw - ext4 /dev/sda4 rw";
    check(&bind, &host(&[srv, "36 1 8:4 /vol/data /mnt/my-disk rw - ext4 /dev/sda4 rw"]), "");
    check(&bind, &host(&[srv, &of("/srv/data")]), "mounted in place of /dev/sda3 (ext4)");
    let whole = MountSpec { device: "/srv".into(), ..bind };
    check(&whole, &host(&[srv, "36 1 8:4 /vol /mnt/my-disk rw - ext4 /dev/sda4 rw"]), "");
}

#[test]
fn it_waits_until_a_kernel_runs_and_takes_no_option_for_a_device() {
    check(&spec(), &host(&[]).without_kernel(), "refused: no kernel");
    let odd = MountSpec { device: "--all".into(), ..spec() };
    check(&odd, &host(&[]), r#"refused: "--all" can not be mounted at "/mnt/my-disk"; give whole paths"#);
}
