use drover_catalog::{Ownership, Place, Sensitive};
use futures::executor::block_on;
use proptest::prelude::*;

use super::*;
use crate::{
    host::memory::{MemoryHost, apply, check as check_provider},
    providers::Change as _,
};

/// What an edit makes of a text: the new text, `unchanged`, or `error: ` and why. Twice, it changes nothing more.
#[track_caller]
pub(super) fn check(how: &Edit, text: &str, expected: &str) {
    let found = match edit(text, how) {
        Ok(None) => "unchanged".to_owned(),
        Ok(Some(edited)) => {
            assert_eq!(edit(&edited, how), Ok(None), "the second time");
            edited
        }
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(found, expected, "of {text:?}");
}

fn states() -> impl Strategy<Value = Presence> {
    prop_oneof![Just(Presence::Present), Just(Presence::Absent)]
}

/// Few different lines, so that edits meet what they are about.
fn some_line() -> impl Strategy<Value = String> {
    prop_oneof!["[ab ]{0,3}", "[ ]?[ab]{1,2} ?[=:] ?[ab]{0,2}[\\\\]?", "\\[[ab]?\\]", "[#;] ?[ab]?", Just("# [".into())]
}

fn some_text() -> impl Strategy<Value = String> {
    let line = (some_line(), prop_oneof![8 => Just("\n"), 1 => Just("\r\n")]).prop_map(|(line, end)| line + end);
    (prop::collection::vec(line, 0..12), prop::option::of(some_line()))
        .prop_map(|(lines, last)| lines.concat() + &last.unwrap_or_default())
}

fn some_edit() -> impl Strategy<Value = Edit> {
    let place = prop_oneof![
        Just(Place::End),
        Just(Place::Beginning),
        "[ab]".prop_map(Place::After),
        "[ab]".prop_map(Place::Before),
    ];
    let line = (states(), some_line(), prop::option::of("\\^?[ab]"), place.clone())
        .prop_map(|(state, line, matching, place)| Edit::Line { state, line: Sensitive::new(line), matching, place });
    let block = (states(), prop::collection::vec(some_line(), 0..3), place).prop_map(|(state, lines, place)| {
        let content = Sensitive::new(lines.join("\n"));
        Edit::Block { state, content, begin: "# [".into(), end: "#".into(), place }
    });
    let separator = prop_oneof![Just(" = "), Just("="), Just(": "), Just(" ")];
    let ini = (states(), "[ab]?", "[ab]{1,2}", "[ab =\\\\]{0,3}", separator).prop_map(
        |(state, section, key, value, separator)| Edit::Ini {
            state,
            section,
            key,
            value: Sensitive::new(value),
            separator: separator.into(),
        },
    );
    let entry = (states(), 0..2_usize, "[ab]", "[ab #]{0,5}").prop_map(|(state, field, key, line)| Edit::Entry {
        state,
        field,
        key,
        line,
    });
    prop_oneof![line, block, ini, entry]
}

/// Lines without their ends: those may be added to a last line that had none.
fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// Whether one list is the other with something left out.
fn is_part_of(part: &[&str], whole: &[&str]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|line| whole.any(|other| other == line))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_second_time_nothing_changes(text in some_text(), how in some_edit()) {
        if let Ok(Some(edited)) = edit(&text, &how) {
            prop_assert_eq!(edit(&edited, &how), Ok(None), "after {:?}", edited);
        }
    }

    #[test]
    fn other_lines_stay_in_their_order(text in some_text(), how in some_edit()) {
        let Ok(Some(edited)) = edit(&text, &how) else { return Ok(()) };
        let (before, after) = (lines(&text), lines(&edited));
        match state(&how) {
            Presence::Absent => prop_assert!(is_part_of(&after, &before), "{:?}", edited),
            Presence::Present => {
                // What is the same at both ends is untouched; between them, something old made place for something new.
                let head = before.iter().zip(&after).take_while(|(old, new)| old == new).count();
                let rest = before.len().min(after.len()) - head;
                let tail = before.iter().rev().zip(after.iter().rev()).take(rest).take_while(|(old, new)| old == new).count();
                let (gone, came) = (before.len() - head - tail, after.len() - head - tail);
                match &how {
                    Edit::Line { .. } | Edit::Entry { .. } => prop_assert!(gone <= 1 && came == 1, "{:?}", edited),
                    // Its section, and a blank line before it.
                    Edit::Ini { .. } => prop_assert!(came <= 3 && (gone == 0 || came <= 1), "{:?}", edited),
                    Edit::Block { content, .. } => {
                        prop_assert!(came <= content.expose().lines().count() + 2, "{:?}", edited);
                    }
                }
            }
        }
    }
}

const OURS: Access = Access { mode: 0o640, user: 7, group: 4 };

fn port(create: bool) -> EditSpec {
    EditSpec {
        path: "/etc/sshd".into(),
        edit: Edit::Line {
            state: Presence::Present,
            line: Sensitive::new("Port hunter2"),
            matching: Some("^Port".into()),
            place: Place::End,
        },
        create: create.then(|| Ownership { mode: 0o600, owner: "root".into(), group: "adm".into() }),
        validate: None,
    }
}

fn without(mut spec: EditSpec) -> EditSpec {
    if let Edit::Line { state, .. } = &mut spec.edit {
        *state = Presence::Absent;
    }
    spec
}

#[test]
fn says_what_changes() {
    let found = |content| MemoryHost::new().file("/etc/sshd", content, OURS);
    check_provider(&port(false), &found("Port 22\n"), "line set");
    check_provider(&port(false), &found("Port hunter2\n"), "");
    check_provider(&without(port(false)), &found("Port 22\n"), "line removed");
    check_provider(&port(true), &MemoryHost::new(), "created; line set");
    check_provider(&without(port(true)), &MemoryHost::new(), "");
    check_provider(&without(port(false)), &MemoryHost::new(), "");
    let missing = "refused: /etc/sshd is not there; say in `create` how to make it, or require what makes it";
    check_provider(&port(false), &MemoryHost::new(), missing);
    let several = "refused: could not edit /etc/sshd: found 2 lines that match ^Port where one is meant; name it more \
                   exactly, or remove the others by hand";
    check_provider(&port(false), &found("Port 1\nPort 2\n"), several);
}

#[test]
fn refuses_what_is_no_text_in_a_file() {
    let host = MemoryHost::new().special("/etc/sshd", EntryKind::SymbolicLink);
    check_provider(&port(true), &host, "refused: /etc/sshd is a symbolic link; name the file that it leads to");
    let host = MemoryHost::new().directory("/etc/sshd", OURS);
    check_provider(&port(true), &host, "refused: /etc/sshd is no regular file; choose another path");
    let observed = Observed::File { access: OURS, content: Rc::from(&b"caf\xe9\n"[..]) };
    let error = port(true).diff(&observed).unwrap_err().to_string();
    assert_eq!(error, "/etc/sshd is no UTF-8 text, and its lines cannot be told; manage it as a whole file");
}

#[test]
fn the_files_owner_and_mode_stay_and_a_new_one_has_its_own() {
    let host = MemoryHost::new().file("/etc/sshd", "a\nPort 22\n", OURS);
    apply(&port(true), &host).unwrap();
    let (entry, content) = host.read_entry("/etc/sshd", 1000).unwrap().unwrap();
    assert_eq!((entry.access, content.as_slice()), (OURS, &b"a\nPort hunter2\n"[..]));
    assert_eq!(host.log(), "write /etc/sshd");
    let host = MemoryHost::new();
    apply(&port(true), &host).unwrap();
    let access = host.entry("/etc/sshd").unwrap().unwrap().access;
    assert_eq!(access, Access { mode: 0o600, user: 0, group: 4 });
}

#[test]
fn contents_are_given_and_no_word_or_event_shows_them() {
    for (mode, public) in [(0o644, true), (0o640, false)] {
        let host = MemoryHost::new().file("/etc/sshd", "Port 22\n", Access { mode, ..OURS });
        let spec = port(false);
        let changes = spec.diff(&block_on(spec.observe(&host, false)).unwrap()).unwrap();
        let contents = spec.contents(&host, &changes).unwrap().unwrap();
        assert_eq!(contents.before.unwrap(), b"Port 22\n");
        assert_eq!(contents.after.unwrap(), b"Port hunter2\n");
        assert_eq!(contents.public, public);
        for change in changes {
            let said = format!("{change} {:?}", change.event());
            assert!(!said.contains("hunter2") && !said.contains("22"), "{said}");
        }
    }
}
