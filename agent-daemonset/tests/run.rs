//! `drover-agent run` against a scripted master, over real HTTPS.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where it goes wrong")]

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{agent, catalog, file, master::Master, resource};
use drover_catalog::{Catalog, Facts, Outcome, Report, ResourceStatus};
use rustix::process::{Pid, Signal};

const CATALOG: &str = "GET /v1/catalog";
const FACTS: &str = "PUT /v1/facts";
const REPORT: &str = "POST /v1/report";

/// An agent on a folder that stands for a machine, and the folder that tells it of its masters.
struct Agent {
    process: Process,
    root: tempfile::TempDir,
    masters: tempfile::TempDir,
}

/// A process that does not outlive its test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    fn start(root: tempfile::TempDir, masters: tempfile::TempDir) -> Self {
        let child = agent("run", root.path())
            .arg("--masters-dir")
            .arg(masters.path())
            .arg("--token-file")
            .arg(masters.path().join("token"))
            .args(["--state-dir", "/state", "--log", "debug"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { process: Process(child), root, masters }
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }

    /// Ends it, and gives what it logged and its folders.
    fn end(mut self) -> (ExitStatus, String, tempfile::TempDir, tempfile::TempDir) {
        self.signal(Signal::TERM);
        let mut log = String::new();
        std::io::Read::read_to_string(&mut self.process.0.stderr.take().unwrap(), &mut log).unwrap();
        (self.process.0.wait().unwrap(), log, self.root, self.masters)
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join(path)).ok()
    }

    #[track_caller]
    fn wait_for(&self, path: &str, content: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.read(path).as_deref() != Some(content) {
            assert!(Instant::now() < deadline, "{path} is {:?}", self.read(path));
            thread::yield_now();
        }
    }
}

fn motd(generation: i64, content: &str) -> Catalog {
    catalog(generation, vec![resource("motd", file("/motd", content), &[])])
}

fn json(catalog: &Catalog) -> Vec<u8> {
    serde_json::to_vec(catalog).unwrap()
}

fn folders() -> (tempfile::TempDir, tempfile::TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

#[test]
fn tells_facts_applies_what_comes_and_reports() {
    let (root, folder) = folders();
    let master = Master::start(folder.path());
    let agent = Agent::start(root, folder);

    let facts = master.expect(FACTS);
    assert_eq!(serde_json::from_slice::<Facts>(&facts.body).unwrap().kernel, "Linux");
    facts.answer("204 No Content");
    let first = master.expect(CATALOG);
    assert_eq!((first.header("prefer"), first.header("if-none-match")), ("wait=55", ""));
    let offered = motd(7, "moo");
    master.send(first, &offered);

    let mut aside = Vec::new();
    let report = master.expect_among(REPORT, &mut aside);
    let told: Report = serde_json::from_slice(&report.body).unwrap();
    assert_eq!((told.generation, told.outcome), (7, Outcome::Converged));
    assert_eq!(told.resources[0].status, ResourceStatus::Changed);
    report.answer("204 No Content");
    assert_eq!(agent.read("motd").as_deref(), Some("moo"));

    let poll = aside.pop().unwrap_or_else(|| master.expect(CATALOG));
    assert_eq!((poll.line.as_str(), poll.header("if-none-match")), (CATALOG, offered.etag().as_str()));
    poll.answer("428 Precondition Required");
    master.expect(FACTS).answer("204 No Content");
    let _poll = master.expect(CATALOG);
    let (status, log, root, _) = agent.end();
    assert!(status.success(), "{log}");
    assert!(!log.contains("moo") && !log.contains("s3cret"), "{log}");
    let left: Vec<String> = ["catalog.json", "report.json", "running", "notifications.json"]
        .into_iter()
        .filter(|name| root.path().join("state").join(name).exists())
        .map(str::to_owned)
        .collect();
    assert_eq!(left, ["catalog.json"], "{log}");
}

#[test]
fn facts_are_told_again_when_they_change_and_not_before() {
    let (root, folder) = folders();
    let master = Master::start(folder.path());
    let agent = Agent::start(root, folder);
    master.expect(FACTS).answer("204 No Content");
    master.expect(CATALOG).answer("304 Not Modified");
    let poll = master.expect(CATALOG);
    let custom = agent.root.path().join("etc/drover/facts.d");
    fs::create_dir_all(&custom).unwrap();
    fs::write(custom.join("site.json"), r#"{"rack": "r1"}"#).unwrap();
    fs::write(custom.join("broken.json"), "no").unwrap();
    poll.answer("304 Not Modified");
    let facts = master.expect(FACTS);
    assert_eq!(serde_json::from_slice::<Facts>(&facts.body).unwrap().custom["rack"], "r1");
    facts.answer("204 No Content");
    master.expect(CATALOG).answer("304 Not Modified");
    let _poll = master.expect(CATALOG);
    let (_, log, ..) = agent.end();
    assert_eq!(log.matches("broken.json gives no facts").count(), 1, "{log}");
}

#[test]
fn a_stale_or_forged_catalog_changes_nothing() {
    let (root, folder) = folders();
    let master = Master::start(folder.path());
    let agent = Agent::start(root, folder);
    master.expect(FACTS).answer("204 No Content");
    let mut aside = Vec::new();
    master.send(master.expect(CATALOG), &motd(7, "good"));
    master.expect_among(REPORT, &mut aside).answer("204 No Content");
    let stale = motd(6, "stale");
    master.send(aside.pop().unwrap_or_else(|| master.expect(CATALOG)), &stale);
    let next = master.expect(CATALOG);
    assert_eq!(next.header("if-none-match"), stale.etag(), "it would be sent again at once");
    master.send(next, &Catalog { generation: 9, ..motd(7, "forged") });
    // The report of a later one proves that those before were done with.
    master.send(master.expect(CATALOG), &motd(8, "better"));
    let report = master.expect_among(REPORT, &mut aside);
    assert_eq!(serde_json::from_slice::<Report>(&report.body).unwrap().generation, 8);
    let (_, log, root, _) = agent.end();
    assert_eq!(fs::read_to_string(root.path().join("motd")).unwrap(), "better");
    assert_eq!(log.matches("refused a catalog").count(), 2, "{log}");
    assert_eq!(log.matches("replaced").count(), 1, "{log}");
}

#[test]
fn what_no_master_signed_for_now_is_refused_and_asked_for_again_with_a_pause() {
    let (root, folder) = folders();
    let master = Master::start(folder.path());
    master.appear_twice(folder.path());
    let agent = Agent::start(root, folder);
    master.expect(FACTS).answer("204 No Content");
    let mut aside = Vec::new();
    let good = motd(7, "good");
    master.send(master.expect(CATALOG), &good);
    master.expect_among(REPORT, &mut aside).answer("204 No Content");
    let offered = motd(8, "better");
    let began = Instant::now();
    let mut reached_at = Vec::new();
    for proof in [String::new(), master.sign(&offered, -3600)] {
        let poll = aside.pop().unwrap_or_else(|| master.expect(CATALOG));
        assert_eq!(poll.header("if-none-match"), good.etag(), "the entity tag of a refused one is not kept");
        reached_at.push(poll.reached_at);
        poll.answer_with("200 OK", &format!("etag: {}\r\n{proof}", offered.etag()), &json(&offered));
    }
    // With a signature that holds, the same catalog is taken.
    master.send(master.expect(CATALOG), &offered);
    assert_ne!(reached_at[0], reached_at[1], "another master is asked next");
    assert!(began.elapsed() > Duration::from_secs(1 + 2), "it asked in a hurry");
    let report = master.expect_among(REPORT, &mut aside);
    assert_eq!(serde_json::from_slice::<Report>(&report.body).unwrap().generation, 8);
    let (_, log, ..) = agent.end();
    for reason in ["it is not signed", "its signature expired 60 minutes ago"] {
        assert_eq!(log.matches(reason).count(), 1, "{reason}: {log}");
    }
}

#[test]
fn keeps_the_machine_without_any_master_and_delivers_the_report_later() {
    let (root, folder) = folders();
    keep_on_disk(root.path(), &motd(3, "kept"));
    let agent = Agent::start(root, folder);
    agent.wait_for("motd", "kept");
    // Only then a master comes: the files that tell of it are read again.
    let master = Master::start(agent.masters.path());
    let mut aside = Vec::new();
    let report = master.expect_among(REPORT, &mut aside);
    assert_eq!(serde_json::from_slice::<Report>(&report.body).unwrap().generation, 3);
    let (status, log, root, _) = agent.end();
    assert!(status.success(), "{log}");
    assert!(root.path().join("state/report.json").exists(), "it was never answered");
    assert_eq!(log.matches("cannot reach the masters").count(), 1, "{log}");
}

/// As an agent leaves it that was killed while it applied the catalog.
fn keep_on_disk(root: &Path, catalog: &Catalog) {
    fs::create_dir(root.join("state")).unwrap();
    fs::write(root.join("state/catalog.json"), json(catalog)).unwrap();
    fs::write(root.join("state/running"), "").unwrap();
}

#[test]
fn trouble_is_told_with_what_to_do() {
    let (root, folder) = folders();
    let master = Master::start(folder.path());
    let agent = Agent::start(root, folder);
    master.expect(FACTS).answer("401 Unauthorized");
    master.expect(FACTS).answer("401 Unauthorized");
    master.expect(FACTS).answer_with("503 Service Unavailable", "retry-after: 0\r\n", b"");
    let _facts = master.expect(FACTS);
    let (_, log, ..) = agent.end();
    assert_eq!(log.matches("drover.dev/master").count(), 1, "{log}");
    assert_eq!(log.matches("the masters are busy").count(), 1, "{log}");
}

#[test]
fn a_stranger_is_told_nothing() {
    let (root, folder) = folders();
    let master = Master::start(folder.path());
    let other = rcgen::generate_simple_self_signed(["masters.test".to_owned()]).unwrap();
    fs::write(folder.path().join("ca.crt"), other.cert.pem()).unwrap();
    let mut agent = Agent::start(root, folder);
    let mut log = std::io::BufReader::new(agent.process.0.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("cannot reach the masters") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut log, &mut line).unwrap(), 0, "it ended");
    }
    drop(agent);
    assert!(master.is_unasked());
}

/// The folder of one that knows both masters: `near` is in zone a of the pool eu.
fn both(folder: &Path, near: &Path) {
    let text = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let addresses = text(near, "addresses");
    let pools = serde_json::json!({
        "eu": {"serverName": text(near, "server-name"), "zones": {"a": addresses.lines().collect::<Vec<_>>()}}
    });
    fs::write(folder.join("pools.json"), pools.to_string()).unwrap();
    fs::write(folder.join("ca.crt"), text(folder, "ca.crt") + &text(near, "ca.crt")).unwrap();
}

#[test]
fn goes_to_the_masters_that_it_belongs_to_and_to_others_when_they_do_not_serve() {
    let (root, folder) = folders();
    let near_folder = tempfile::tempdir().unwrap();
    let (far, near) = (Master::start(folder.path()), Master::start(near_folder.path()));
    both(folder.path(), near_folder.path());
    let agent = Agent::start(root, folder);
    far.expect(FACTS).answer("204 No Content");
    far.expect(CATALOG).answer_with("404 Not Found", "drover-locality: pool=eu, zone=a\r\n", b"");
    near.expect(CATALOG).answer_with("503 Service Unavailable", "retry-after: 0\r\n", b"");
    let _poll = far.expect(CATALOG);
    let (_, log, root, folder) = agent.end();
    assert_eq!(log.matches("belongs to these masters").count(), 1, "{log}");

    // After a restart it knows where it belongs, even if those are gone that tell everybody.
    let agent = Agent::start(root, folder);
    near.expect(FACTS).answer("204 No Content");
    near.expect(CATALOG).answer_with("404 Not Found", "drover-locality: \r\n", b"");
    let _poll = far.expect(CATALOG);
    drop(agent);
}

#[test]
fn ping_says_whether_masters_answer_and_which() {
    let (root, folder) = folders();
    let master = Master::start(folder.path());
    let ping = |more: &[&str]| {
        let mut command = agent("ping", root.path());
        command.arg("--masters-dir").arg(folder.path()).arg("--token-file").arg(folder.path().join("token"));
        let child = command.args(["--state-dir", "/state"]).args(more).stdout(Stdio::piped()).spawn().unwrap();
        Process(child)
    };
    let ended = |mut process: Process| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut process.0.stdout.take().unwrap(), &mut text).unwrap();
        (process.0.wait().unwrap().code(), text)
    };
    let one = ping(&[]);
    let offered = motd(7, "moo");
    let headers = format!("drover-locality: pool=eu\r\n{}", master.sign(&offered, 60));
    master.expect(CATALOG).answer_with("200 OK", &headers, &json(&offered));
    let (code, text) = ended(one);
    assert!(code == Some(0) && text.contains("(pool=eu) has a catalog of generation 7 with 1 resources"), "{text}");
    assert!(!text.contains("moo"), "{text}");

    let three = ping(&["--count", "3", "--every", "1"]);
    master.expect(CATALOG).answer("404 Not Found");
    master.expect(CATALOG).answer("401 Unauthorized");
    master.expect(CATALOG).answer_with("503 Service Unavailable", "retry-after: 0\r\n", b"");
    master.expect(CATALOG).answer_with("200 OK", "", &json(&offered));
    let (code, text) = ended(three);
    assert!(code == Some(1) && text.contains("2: ") && text.contains("does not accept this machine's token"), "{text}");
    assert!(text.contains("3: ") && text.contains("refused: it is not signed"), "{text}");
    assert!(text.contains("answered 1 of 3"), "{text}");
}
