use futures::executor::block_on;
use serde_json::json;

use super::*;
use crate::host::{Access, memory::MemoryHost};

const OURS: Access = Access { mode: 0o644, user: 0, group: 0 };
const PROGRAM: Access = Access { mode: 0o755, user: 0, group: 0 };
const TTL: Duration = Duration::from_secs(3600);

fn folder() -> MemoryHost {
    MemoryHost::new().directory(FOLDER, PROGRAM)
}

fn path(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

struct State {
    _root: tempfile::TempDir,
    state: StateDir,
}

impl State {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "/state").unwrap();
        Self { _root: root, state }
    }

    fn ask(&self, host: &MemoryHost, second: u64, refresh: bool) -> (Value, String) {
        let asked = Asked { host, state: &self.state, ttl: TTL, refresh };
        let (facts, warnings) = block_on(asked.gather(at(second)));
        (json!(facts), warnings.join("\n"))
    }
}

#[track_caller]
fn check(host: &MemoryHost, facts: &Value, warning: &str) {
    let (found, warnings) = State::new().ask(host, 1000, false);
    assert_eq!(found, *facts, "{warnings}");
    assert!(warnings.contains(warning) && warnings.is_empty() == warning.is_empty(), "{warnings}");
}

#[test]
fn a_machine_without_a_folder_has_none_and_nothing_is_written() {
    let state = State::new();
    assert_eq!(state.ask(&MemoryHost::new(), 1000, false), (json!({}), String::new()));
    assert_eq!(state.state.read("facts-cache.json").unwrap(), None);
}

#[test]
fn files_and_programs_say_facts() {
    let host = folder()
        .file(&path("10-site.json"), r#"{"rack": "r1", "height": {"units": 2, "empty": null}}"#, OURS)
        .file(&path("20-role"), "#!/bin/sh", PROGRAM)
        .command(&path("20-role"), 0, "# a comment\nrole = web\n\nurl=http://x/?a=b\n", "")
        .file(&path("30-gpu"), "", PROGRAM)
        .command(&path("30-gpu"), 0, "\n{\"rack\": \"r2\"}", "")
        .file(&path(".hidden"), "", OURS)
        .file(&path("40.json~"), "", OURS);
    let facts = json!({"rack": "r2", "height": {"units": 2}, "role": "web", "url": "http://x/?a=b"});
    check(&host, &facts, "");
}

#[test]
fn what_others_can_change_is_refused() {
    let access = |mode, user| Access { mode, user, group: 0 };
    // Whoever runs the test is nobody's 4711.
    for (folder, file, warning) in [
        (access(0o755, 0), access(0o755, 0), ""),
        (access(0o755, 0), access(0o700, rustix::process::geteuid().as_raw()), ""),
        (access(0o755, 0), access(0o755, 4711), "facts.d/role gives no facts: its owner is the user 4711"),
        (
            access(0o755, 0),
            access(0o775, 0),
            "facts.d/role gives no facts: others than its owner can write to it (mode 0775)",
        ),
        (access(0o755, 0), access(0o757, 0), "facts.d/role gives no facts: others than its owner"),
        (access(0o777, 0), access(0o755, 0), "facts.d is left out: others than its owner"),
        (access(0o755, 4711), access(0o755, 0), "facts.d is left out: its owner is"),
    ] {
        let host = MemoryHost::new().directory(FOLDER, folder).file(&path("role"), "", file).command(
            &path("role"),
            0,
            "a=b",
            "",
        );
        let facts = if warning.is_empty() { json!({"a": "b"}) } else { json!({}) };
        check(&host, &facts, warning);
        assert_eq!(host.count(&format!("run {}", path("role"))), usize::from(warning.is_empty()));
    }
    let writable = access(0o666, 0);
    check(&folder().file(&path("a.json"), "{}", writable), &json!({}), "a.json gives no facts: others than its owner");
}

#[test]
fn a_failing_one_gives_a_warning_and_the_others_their_facts() {
    let large = " ".repeat(MAX_BYTES + 1);
    let fails = |name: &str, access, content: &str, code, stdout: &str, stderr: &str| {
        folder().file(&path("good.json"), r#"{"good": true}"#, OURS).file(&path(name), content, access).command(
            &path(name),
            code,
            stdout,
            stderr,
        )
    };
    for (host, warning) in [
        (fails("role", PROGRAM, "", 3, "a=b", "oops"), "facts.d/role gives no facts: it exited with 3: oops"),
        (fails("role", PROGRAM, "", 0, "a=b\nsecret words", ""), "line 2 of what it prints is no key=value"),
        (fails("role", PROGRAM, "", 0, "{\"a\":\n 1,}", ""), "it is no JSON object: see line 2, column 4"),
        (fails("role", PROGRAM, "", 0, "my fact=1", ""), "\"my fact\" is no name"),
        (fails("role", PROGRAM, "", 0, &large[1..], ""), "more than the 65536 bytes"),
        (fails("role", OURS, "", 0, "", ""), "it is neither a .json file nor executable"),
        (fails("a.json", OURS, "[1]", 0, "", ""), "it is no JSON object"),
        (fails("a.json", OURS, "{\"0\": 1}", 0, "", ""), "\"0\" is no name"),
        (fails("a.json", OURS, &large, 0, "", ""), "it has 65537 bytes"),
        (fails("role", PROGRAM, "", 0, "", "").without_program(&path("role")), "there is no program"),
        (
            folder().file(&path("good.json"), r#"{"good": true}"#, OURS).link(&path("a.json"), "/x"),
            "it is no regular file",
        ),
    ] {
        check(&host, &json!({"good": true}), warning);
    }
    assert!(!State::new().ask(&fails("role", PROGRAM, "", 0, "secret words", ""), 1, false).1.contains("secret"));
}

#[test]
fn only_so_many_files_count() {
    let files = (0..=MAX_FILES).fold(folder(), |host, number| {
        host.file(&path(&format!("{number:02}.json")), &format!("{{\"f{number}\": 1}}"), OURS)
    });
    let (facts, warnings) = State::new().ask(&files, 1, false);
    assert_eq!(facts.as_object().unwrap().len(), MAX_FILES);
    assert!(warnings.contains("has 21 files, and only the first 20 count, up to 19.json"), "{warnings}");
}

#[test]
fn a_program_is_asked_again_when_its_time_is_up_or_it_has_changed() {
    let run = format!("run {}", path("role"));
    let host = folder().file(&path("role"), "v1", PROGRAM).command(&path("role"), 0, "a=1", "");
    let state = State::new();
    let asked = |second, refresh| {
        let (facts, warnings) = state.ask(&host, second, refresh);
        assert_eq!((facts, warnings.as_str()), (json!({"a": "1"}), ""), "at {second}");
        let count = host.count(&run);
        host.log();
        count
    };
    for (second, refresh, times) in [
        (1000, false, 1),
        (1001, false, 0),
        (4599, false, 0),
        (4600, false, 1),
        (4601, true, 1),
        (4602, false, 0),
        // The clock was set back.
        (100, false, 1),
    ] {
        assert_eq!(asked(second, refresh), times, "at {second}");
    }
    let host = host.file(&path("role"), "v2", PROGRAM);
    state.ask(&host, 101, false);
    assert_eq!(host.count(&run), 1, "it was changed");
}

#[test]
fn a_failure_is_remembered_too_but_not_as_long() {
    let run = format!("run {}", path("role"));
    let host = folder().file(&path("role"), "", PROGRAM).command(&path("role"), 1, "", "");
    let state = State::new();
    let warnings: Vec<String> = [0, 299, 300].map(|second| state.ask(&host, second, false).1).to_vec();
    assert_eq!(host.count(&run), 2);
    assert!(warnings.iter().all(|warning| *warning == warnings[0] && !warning.is_empty()), "{warnings:?}");
}

#[test]
fn programs_that_are_gone_are_forgotten_and_a_damaged_file_is_no_loss() {
    let state = State::new();
    let host = folder().file(&path("role"), "", PROGRAM).command(&path("role"), 0, "a=1", "");
    state.ask(&host, 1, false);
    assert!(String::from_utf8(state.state.read("facts-cache.json").unwrap().unwrap()).unwrap().contains("role"));
    state.ask(&folder(), 2, false);
    assert_eq!(state.state.read("facts-cache.json").unwrap().unwrap(), b"{}");
    state.state.write("facts-cache.json", b"{\"half").unwrap();
    assert_eq!(state.ask(&host, 3, false), (json!({"a": "1"}), String::new()));
}

#[test]
fn numbers_and_nulls_are_as_the_api_server_gives_them_back() {
    for (said, stored) in [
        (json!(1.0), json!(1)),
        (json!(-3.0), json!(-3)),
        (json!(1.5), json!(1.5)),
        (json!(7), json!(7)),
        (json!(1e300), json!(1e300)),
        (json!([1.0, null, {"a": null}]), json!([1, null, {}])),
    ] {
        assert_eq!(as_stored(said.clone()), Some(stored), "{said}");
    }
    assert_eq!(as_stored(Value::Null), None);
}
