use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

use super::*;
use crate::host::EntryKind;

fn host() -> (tempfile::TempDir, LocalHost) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    // Links in a folder that its group can write, as some umasks make it, are not followed.
    for folder in ["", "etc"] {
        fs::set_permissions(root.path().join(folder), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let host = LocalHost::open(root.path(), false).unwrap();
    (root, host)
}

fn mine(mode: u32) -> Access {
    Access { mode, user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() }
}

fn write(host: &LocalHost, path: &str, content: &[u8], access: Access) -> Result<(), HostError> {
    futures::executor::block_on(host.write_file(path, content, access, None))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_reader_sees_the_old_file_or_the_new_one() {
    let (root, host) = host();
    let path = root.path().join("etc/motd");
    // Long enough that it takes several writes of the kernel's page cache.
    let contents = ["a".repeat(300_000), "b".repeat(200_000)];
    write(&host, "/etc/motd", contents[0].as_bytes(), mine(0o640)).unwrap();
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0_u32; 2];
            while !done.load(Ordering::Relaxed) {
                let found = fs::read_to_string(&path).unwrap();
                let which = contents.iter().position(|content| *content == found);
                seen[which.expect("torn")] += 1;
                assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
            }
            seen
        });
        // Until the reader has had its chance, however the threads are scheduled.
        for round in 1..=200 {
            write(&host, "/etc/motd", contents[round % 2].as_bytes(), mine(0o640)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(seen.iter().sum::<u32>() > 0);
    assert_eq!(names(&root.path().join("etc")), ["motd"]);
}

#[test]
fn a_link_on_the_way_stays_inside_the_root() {
    let (root, host) = host();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join(outside.path().strip_prefix("/").unwrap())).unwrap();
    symlink("../../../../../../../../../../..", root.path().join("etc/up")).unwrap();
    symlink(outside.path(), root.path().join("etc/absolute")).unwrap();

    write(&host, "/etc/up/climbed", b"moo", mine(0o644)).unwrap();
    assert_eq!(fs::read(root.path().join("climbed")).unwrap(), b"moo");
    assert!(!Path::new("/climbed").exists());

    write(&host, "/etc/absolute/file", b"moo", mine(0o644)).unwrap();
    assert_eq!(names(outside.path()), Vec::<String>::new());
    assert_eq!(host.read_file(&outside.path().join("file").to_string_lossy()).unwrap().unwrap(), b"moo");

    write(&host, "/etc/../../../dots", b"moo", mine(0o644)).unwrap();
    assert_eq!(fs::read(root.path().join("dots")).unwrap(), b"moo");
    host.make_directory("/etc/up/folder", mine(0o755)).unwrap();
    assert!(root.path().join("folder").is_dir());
    host.remove_file("/etc/up/climbed").unwrap();
    assert!(!root.path().join("climbed").exists());
}

#[test]
fn a_link_at_the_target_is_replaced_and_not_followed() {
    let (root, host) = host();
    fs::write(root.path().join("precious"), "keep").unwrap();
    symlink("/precious", root.path().join("etc/motd")).unwrap();
    assert_eq!(host.entry("/etc/motd").unwrap().unwrap().kind, EntryKind::SymbolicLink);
    write(&host, "/etc/motd", b"moo", mine(0o644)).unwrap();
    assert!(root.path().join("etc/motd").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(root.path().join("precious")).unwrap(), b"keep");

    symlink("/", root.path().join("etc/folder")).unwrap();
    assert!(host.set_directory_access("/etc/folder", mine(0o700)).is_err());
}

#[test]
fn a_directory_is_never_replaced_and_leaves_nothing_behind() {
    let (root, host) = host();
    let error = write(&host, "/etc", b"moo", mine(0o644)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/etc is a directory, which is never replaced by a file; move it away or choose another path"
    );
    host.remove_file("/etc").unwrap_err();
    let error = write(&host, "/missing/motd", b"moo", mine(0o644)).unwrap_err();
    assert!(error.to_string().contains("add it as a directory resource"), "{error}");
    assert_eq!(names(root.path()), ["etc"]);
}

#[test]
fn mode_and_owner_are_what_was_asked_for() {
    let (root, host) = host();
    let access =
        if rustix::process::geteuid().is_root() { Access { mode: 0o4750, user: 12, group: 34 } } else { mine(0o4750) };
    write(&host, "/etc/tool", b"", access).unwrap();
    host.make_directory("/etc/conf.d", Access { mode: 0o2775, ..access }).unwrap();
    assert_eq!(host.entry("/etc/tool").unwrap().unwrap().access, access);
    assert_eq!(host.entry("/etc/conf.d").unwrap().unwrap().access, Access { mode: 0o2775, ..access });
    assert_eq!(root.path().join("etc/tool").metadata().unwrap().uid(), access.user);
}

#[test]
fn leftovers_of_the_dead_are_removed_and_those_of_the_living_stay() {
    let (root, host) = host();
    let etc = root.path().join("etc");
    fs::write(etc.join(".drover-1-0.tmp"), "dead").unwrap();
    let alive = fs::File::create(etc.join(".drover-2-0.tmp")).unwrap();
    rustix::fs::flock(&alive, FlockOperation::LockExclusive).unwrap();
    fs::write(etc.join(".drover-notes"), "not ours").unwrap();
    host.remove_leftovers("/etc").unwrap();
    assert_eq!(names(&etc), [".drover-2-0.tmp", ".drover-notes"]);
    host.remove_leftovers("/nowhere").unwrap();
}

#[test]
fn accounts_are_the_machines_own() {
    let (root, host) = host();
    assert!(host.user_id("www").is_err());
    fs::write(root.path().join("etc/passwd"), "www:x:4711:4712::/:\n").unwrap();
    fs::write(root.path().join("etc/group"), "web:x:4713:\n").unwrap();
    assert_eq!(host.user_id("www").unwrap(), 4711);
    assert_eq!(host.group_id("web").unwrap(), 4713);
    assert_eq!(host.user_id("99").unwrap(), 99);
    let error = host.group_id("www").unwrap_err().to_string();
    assert!(error.starts_with("the machine has no group www"), "{error}");
}

#[test]
fn a_kernel_parameter_is_written_in_place() {
    let (root, _) = host();
    fs::create_dir_all(root.path().join("proc/sys/vm")).unwrap();
    fs::write(root.path().join("proc/sys/vm/swappiness"), "60\n").unwrap();
    let host = LocalHost::open(root.path(), true).unwrap();
    host.set_kernel_parameter("vm/swappiness", "10\n").unwrap();
    assert_eq!(host.kernel_parameter("vm/swappiness").unwrap().unwrap(), "10\n");
    assert_eq!(host.kernel_parameter("vm/none").unwrap(), None);
    assert!(host.set_kernel_parameter("vm/none", "1").is_err(), "the kernel makes its own files");
    let image = LocalHost::open(root.path(), false).unwrap();
    assert!(matches!(image.kernel_parameter("vm/swappiness"), Err(HostError::Unavailable(_))));
}

fn this_machine() -> LocalHost {
    LocalHost::open(Path::new("/"), true).unwrap()
}

fn sh(script: &str, timeout: Duration) -> Command {
    Command::new(["sh", "-c", script], timeout)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_command_gives_its_code_and_output_and_sees_only_its_own_environment() {
    let mut command = sh("echo \"$GREETING$CARGO_MANIFEST_DIR\"; pwd; cat; echo oops >&2; exit 3", LONG);
    command.environment.insert("GREETING".into(), drover_catalog::Sensitive::new("moo"));
    command.cwd = Some("/etc".into());
    let output = this_machine().run(&command).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "moo\n/etc\n");
    assert_eq!(output.failure(), "exited with 3: oops");
}

#[tokio::test]
async fn much_output_neither_blocks_nor_fills_the_memory() {
    let output = this_machine().run(&sh("seq 100000; seq 100000 >&2", LONG)).await.unwrap();
    assert_eq!(output.stdout.len(), 64 * 1024);
    assert_eq!(output.stderr.len(), 500);
    assert!(output.stderr.ends_with(b"100000\n"));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
    let error = this_machine().run(&sh(&script, Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "sh was still running after 1 s and was ended; raise timeoutSeconds if it needs longer"
    );
    let child = fs::read_to_string(&pid_file).unwrap();
    let deadline = Instant::now() + LONG;
    // Its new parent reaps it soon.
    while is_alive(child.trim()) {
        assert!(Instant::now() < deadline, "the child {child} lives on");
        thread::yield_now();
    }
}

/// A zombie has ended too.
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_daemon_that_keeps_the_output_open_does_not_hold_up_its_parent() {
    let output = this_machine().run(&sh("sleep 3 & echo started", Duration::from_secs(2))).await.unwrap();
    assert_eq!((output.code, output.stdout.as_slice()), (Some(0), &b"started\n"[..]));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let command = Command::new(["no-such-program", "--key=hunter2"], LONG);
    let error = this_machine().run(&command).await.unwrap_err().to_string();
    assert!(error.starts_with("there is no program no-such-program"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn in_a_folder_nothing_starts() {
    let (_root, host) = host();
    let deferred = host.run_unit_job("nginx.service", UnitJob::Start).await.unwrap_err();
    assert!(matches!(deferred, HostError::Unavailable(_)), "{deferred}");
    let deferred = host.unit("nginx.service").await.unwrap_err();
    assert!(matches!(deferred, HostError::Unavailable(_)), "{deferred}");
}

#[test]
fn a_file_that_an_earlier_run_has_read_is_not_read_again() {
    let (root, host) = host();
    write(&host, "/etc/motd", b"moo", mine(0o644)).unwrap();
    let state = StateDir::new(root.path(), "/state").unwrap();
    let known = serde_json::json!({ Digest::of(b"/etc/motd").as_str(): {
        "device": root.path().join("etc/motd").metadata().unwrap().dev(),
        "version": host.file_version("/etc/motd").unwrap(),
        "digest": Digest::of(b"as it was read"),
    }});
    state.write_json("digests.json", &known).unwrap();
    let host = host.with_digests(&state);
    assert_eq!(host.file_digest("/etc/motd").unwrap(), Some(Digest::of(b"as it was read")));
    host.keep_digests(&state);
    assert_eq!(state.read_json("digests.json").unwrap(), Some(known));
    write(&host, "/etc/motd", b"baa", mine(0o644)).unwrap();
    assert_eq!(host.file_digest("/etc/motd").unwrap(), Some(Digest::of(b"baa")));
    // Another run, that asks for nothing.
    let host = LocalHost::open(root.path(), false).unwrap().with_digests(&state);
    host.keep_digests(&state);
    assert_eq!(state.read_json("digests.json").unwrap(), Some(serde_json::json!({})));
}
