use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};

use super::*;
use crate::host::Access;

/// A server that answers each request for a path with what it has been given; it ends with the test's process.
fn serve(answers: &'static [(&'static str, &'static str)], tls: Option<Arc<ServerConfig>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
    let address = base.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            match &tls {
                None => answer(stream, answers, &address),
                Some(config) => {
                    answer(
                        StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream),
                        answers,
                        &address,
                    );
                }
            }
        }
    });
    base
}

fn answer<S: io::Read + io::Write>(stream: S, answers: &[(&str, &str)], base: &str) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        // A client that trusts nobody hangs up.
        if stream.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        lines.push(line);
    }
    let path = lines.first().and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default();
    let found = answers.iter().find(|(known, _)| *known == path.split('?').next().unwrap_or_default());
    let text = found.map_or("HTTP/1.1 404 Not Found\r\n\r\n", |(_, text)| text).replace("BASE", base);
    let _ = stream.get_mut().write_all(text.as_bytes()).and_then(|()| stream.get_mut().flush());
}

const MOO: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nmoo";

fn access() -> Access {
    Access { mode: 0o640, user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() }
}

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("srv")).unwrap();
        Self { root }
    }

    fn download(&self, url: &str, content: &str) -> Result<(), HostError> {
        let tree = Tree::open(self.root.path()).unwrap();
        let sha256 = Digest::of(content.as_bytes());
        let timeout = Duration::from_secs(20);
        let wanted = Download { url, sha256: &sha256, path: "/srv/tool", access: access(), timeout };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(download(&tree, &wanted))
    }

    /// That nothing arrives, and why.
    #[track_caller]
    fn refuses(&self, url: &str, content: &str, why: &str) {
        let said = self.download(url, content).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(fs::read_dir(self.root.path().join("srv")).unwrap().count(), 0, "{url}");
    }
}

#[test]
fn a_file_arrives_with_its_owner_and_mode_or_not_at_all() {
    let base = serve(&[("/tool", MOO), ("/cut", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nmoo")], None);
    let machine = Machine::new();
    let secret = base.replace("://", "://user:hunter2@");
    let found = Digest::of(b"moo");
    machine.refuses(&format!("{secret}/tool?token=hunter2"), "baa", &format!("/tool: its SHA-256 is {found}, but"));
    machine.refuses(&format!("{base}/none"), "moo", "the server answered 404 Not Found");
    machine.refuses(&format!("{base}/cut"), "moo", "could not fetch");
    machine.refuses("ftp://x/tool", "moo", "ftp is not known");
    machine.refuses("no/url?hunter2", "moo", "could not fetch no/url: it is no URL");
    machine.download(&format!("{base}/tool"), "moo").unwrap();
    let path = machine.root.path().join("srv/tool");
    assert_eq!(fs::read_to_string(&path).unwrap(), "moo");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    let tree = Tree::open(machine.root.path()).unwrap();
    assert_eq!(digest(&tree, &Digests::default(), "/srv/tool").unwrap(), Some(found));
    assert_eq!(digest(&tree, &Digests::default(), "/srv/none").unwrap(), None);
}

#[test]
fn a_file_of_the_machine_is_of_the_machines_own_tree() {
    let machine = Machine::new();
    machine.refuses("file:///from%20here", "moo", "the machine has no such file");
    machine.refuses("file://from/here", "moo", "three slashes");
    fs::write(machine.root.path().join("from here"), "moo").unwrap();
    machine.refuses("file:///from%20here", "baa", "its SHA-256 is");
    machine.download("file:///from%20here", "moo").unwrap();
}

#[test]
fn it_may_not_be_larger_than_the_limit() {
    let mut target =
        Target { file: tempfile::tempfile().unwrap(), digester: Digester::default(), size: 0, limit: 1 << 20 };
    let chunk = vec![0; 1 << 19];
    assert!(target.take(&chunk).is_ok() && target.take(&chunk).is_ok());
    assert!(matches!(target.take(&chunk), Err(Trouble::Source(why)) if why.contains("larger than 1 MiB")));
}

#[test]
fn redirects_are_followed_within_bounds() {
    const ANSWERS: &[(&str, &str)] = &[
        ("/tool", MOO),
        (
            "/there",
            "HTTP/1.1 302 Found\r\nconnection: close\r\ncontent-length: 0\r\nlocation: BASE/tool?sig=hunter2\r\n\r\n",
        ),
        (
            "/loop",
            "HTTP/1.1 302 Found\r\nconnection: close\r\ncontent-length: 0\r\nlocation: BASE/loop?sig=hunter2\r\n\r\n",
        ),
    ];
    let base = serve(ANSWERS, None);
    Machine::new().download(&format!("{base}/there"), "moo").unwrap();
    Machine::new().refuses(&format!("{base}/loop"), "moo", "more than 5 redirects");
    let url = |text: &str| Url::parse(text).unwrap();
    let check = |previous: &[&str], next: &str, follows: bool| {
        let previous: Vec<Url> = previous.iter().map(|text| url(text)).collect();
        assert_eq!(may_follow(&previous, &url(next)).is_ok(), follows, "{next}");
    };
    check(&["https://a/"], "https://b/", true);
    check(&["http://a/"], "https://b/", true);
    check(&["http://a/"], "http://b/", true);
    check(&["https://a/"], "http://b/", false);
    check(&["https://a/", "https://b/"], "http://b/", false);
    check(&["https://a/"; 5], "https://b/", true);
    check(&["https://a/"; 6], "https://b/", false);
}

#[test]
fn the_machines_own_authorities_are_trusted_and_no_others() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let base = serve(&[("/tool", MOO)], Some(Arc::new(config)));
    let machine = Machine::new();
    machine.refuses(&format!("{base}/tool"), "moo", "install ca-certificates");
    let trusts = |pem: &str, path: &str| {
        let path = machine.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, pem).unwrap();
    };
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let [debian, red_hat] = AUTHORITIES;
    trusts(&other, debian);
    machine.refuses(&format!("{base}/tool"), "moo", "certificate");
    trusts("", debian);
    trusts(&format!("{other}{}", cert.pem()), red_hat);
    machine.download(&format!("{base}/tool"), "moo").unwrap();
}

#[test]
fn a_url_is_shown_without_its_secrets() {
    let check = |url, expected| assert_eq!(without_secrets(url), expected);
    check("https://user:pw@host:8443/a/b?token=x#y", "https://host:8443/a/b");
    check("https://host/a", "https://host/a");
    check("file:///srv/a", "file:///srv/a");
    check("https://user:pw@ho st/a?x", "ho st/a");
}
