use super::*;
use crate::host::memory::{MemoryHost, apply, check};

const ROOT: Access = Access { mode: 0o644, user: 0, group: 0 };
const ANNAS: Access = Access { mode: 0o600, user: 1000, group: 100 };
const FILE: &str = "/home/anna/.ssh/authorized_keys";

fn key(n: char, comment: &str) -> String {
    format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5{} {comment}", n.to_string().repeat(6)).trim_end().to_owned()
}

fn machine() -> MemoryHost {
    MemoryHost::new().file("/etc/passwd", "anna:x:1000:100::/home/anna/:/bin/sh\nno:x:1:1::relative:\n", ROOT)
}

fn host(lines: &[&str]) -> MemoryHost {
    let content: String = lines.iter().flat_map(|line| [*line, "\n"]).collect();
    machine().directory("/home/anna/.ssh", ANNAS).file(FILE, &content, ANNAS)
}

fn spec(state: Presence, keys: &[&str], exclusive: bool) -> AuthorizedKeysSpec {
    let keys = keys.iter().copied().map(str::to_owned).collect();
    AuthorizedKeysSpec { user: "anna".into(), state, keys, exclusive, path: None }
}

/// What changes, and what the file is then; a second look finds nothing.
#[track_caller]
fn becomes(spec: &AuthorizedKeysSpec, before: &[&str], changes: &str, after: &[&str]) {
    let host = host(before);
    check(spec, &host, changes);
    apply(spec, &host).unwrap();
    let content = String::from_utf8(host.read_file(FILE).unwrap().unwrap()).unwrap();
    assert_eq!(content.lines().collect::<Vec<_>>(), after);
    check(spec, &host, "");
    assert_eq!(host.entry(FILE).unwrap().unwrap().access, ANNAS);
}

#[test]
fn missing_keys_are_added_and_all_else_stays() {
    let (a, b, c) = (&*key('a', "a"), &*key('b', "b"), &*key('c', "c"));
    let both = spec(Presence::Present, &[a, b], false);
    let added = "key added: ssh-ed25519 b";
    becomes(&both, &[b, a], "", &[b, a]);
    becomes(&both, &["# mine", c, "", a, "what is this"], added, &["# mine", c, "", a, "what is this", b]);
    becomes(&both, &[], "key added: ssh-ed25519 a; key added: ssh-ed25519 b", &[a, b]);
}

#[test]
fn other_options_or_another_comment_replace_the_line() {
    let (plain, wide) = (key('a', "a"), key('a', "a").replace(' ', "   "));
    let tied = format!("from=\"10.0.0.1\" {plain}");
    let changed = "options or comment changed: ssh-ed25519 a";
    becomes(&spec(Presence::Present, &[&tied], false), &["# 1", &plain, "# 2"], changed, &["# 1", &tied, "# 2"]);
    becomes(&spec(Presence::Present, &[&plain], false), &[&key('a', "old")], changed, &[&plain]);
    becomes(&spec(Presence::Present, &[&plain], false), &[&wide], "", &[&wide]);
    // The first line counts for sshd, and the second would outlive it.
    let twice = "options or comment changed: ssh-ed25519 a; 1 other line removed";
    becomes(&spec(Presence::Present, &[&tied], false), &[&plain, &tied], twice, &[&tied]);
}

#[test]
fn exclusive_keys_are_all_that_there_is() {
    let (a, b, c) = (&*key('a', "a"), &*key('b', "b"), &*key('c', ""));
    let only = spec(Presence::Present, &[a], true);
    becomes(&only, &[a], "", &[a]);
    let changes = "key removed: ssh-ed25519 b; key removed: ssh-ed25519 ...I1NTE5cccccc; 2 other lines removed";
    becomes(&only, &["# mine", b, a, "what is this", c], changes, &[a]);
    becomes(&spec(Presence::Present, &[], true), &[b], "key removed: ssh-ed25519 b", &[]);
}

#[test]
fn absent_keys_go_whatever_their_options_are() {
    let (a, b) = (&*key('a', "a"), &*key('b', "b"));
    let tied = format!("no-pty {}", key('a', "other"));
    let gone = spec(Presence::Absent, &[a], false);
    becomes(&gone, &[b, &tied, "# x"], "key removed: ssh-ed25519 other", &[b, "# x"]);
    becomes(&gone, &[b], "", &[b]);
    check(&gone, &machine(), "");
    check(&AuthorizedKeysSpec { user: "gone".into(), ..gone }, &machine(), "");
}

#[test]
fn file_and_folder_belong_to_the_user_and_are_closed_to_others() {
    let wanted = spec(Presence::Present, &[&key('a', "a")], false);
    let fresh = machine();
    apply(&wanted, &fresh).unwrap();
    assert_eq!(fresh.log(), format!("make /home/anna/.ssh\nwrite {FILE}"));
    assert_eq!(fresh.entry("/home/anna/.ssh").unwrap().unwrap().access, Access { mode: 0o700, ..ANNAS });
    assert_eq!(fresh.entry(FILE).unwrap().unwrap().access, ANNAS);
    let open = machine().directory("/home/anna/.ssh", ANNAS).file(FILE, &(key('a', "a") + "\n"), ROOT);
    check(&wanted, &open, "owner 0:0 -> 1000:100; mode 0644 -> 0600");
    let elsewhere = AuthorizedKeysSpec { path: Some("/etc/ssh/keys/anna".into()), ..wanted };
    let host = machine();
    apply(&elsewhere, &host).unwrap();
    assert_eq!(host.log(), "write /etc/ssh/keys/anna");
}

#[test]
fn a_link_of_the_users_is_not_followed() {
    let wanted = spec(Presence::Present, &[&key('a', "a")], false);
    let linked = machine().directory("/home/anna/.ssh", ANNAS).link(FILE, "/etc/shadow");
    check(&wanted, &linked, &format!("refused: {FILE} is no regular file, and is not followed; remove it"));
}

#[test]
fn a_hard_link_of_the_users_is_not_copied() {
    let linked = host(&["root:$6$salt$hash:1::::::"]).other_name(FILE);
    let why = "is a hard link of a file with another name, and what is in it may be another file's; \
               remove it, or make it a copy of its own";
    for state in [Presence::Present, Presence::Absent] {
        check(&spec(state, &[&key('a', "a")], false), &linked, &format!("refused: {FILE} {why}"));
    }
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let wanted = spec(Presence::Present, &[&key('a', "a")], false);
    let with = |bytes| machine().directory("/home/anna/.ssh", ANNAS).file(FILE, &"\n".repeat(bytes), ANNAS);
    check(&wanted, &with(1 << 20), "key added: ssh-ed25519 a");
    let refusal = "is larger than 1 MiB, which no configuration file is; see what it is, and move it away";
    check(&wanted, &with((1 << 20) + 1), &format!("refused: {FILE} {refusal}"));
}

#[test]
fn what_cannot_be_meant_is_refused_without_being_shown() {
    let advice = "write it as in a .pub file: type, base64, comment, and options before them";
    let private = spec(Presence::Present, &[&key('a', "a"), "-----BEGIN OPENSSH PRIVATE KEY-----"], false);
    check(&private, &host(&[]), &format!("refused: keys[1] is no line of authorized_keys; {advice}"));
    let two = format!("{}\n{}", key('a', "a"), key('b', "b"));
    let two = spec(Presence::Present, &[&two], false);
    check(&two, &host(&[]), &format!("refused: keys[0] is no line of authorized_keys; {advice}"));
    let twice = spec(Presence::Present, &[&key('a', "a"), &key('a', "b")], false);
    check(&twice, &host(&[]), "refused: keys[1] is the same key as one before it; leave one out");
    let nobody = AuthorizedKeysSpec { user: "gone".into(), ..spec(Presence::Present, &[], false) };
    let advice = "add it first (a package or a command that this resource requires)";
    check(&nobody, &machine(), &format!("refused: the machine has no user gone; {advice}"));
    let homeless = AuthorizedKeysSpec { user: "no".into(), ..nobody };
    check(&homeless, &machine(), "refused: the user no has no home directory in /etc/passwd; give the file by path");
}
