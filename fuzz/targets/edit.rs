//! An edit of a file that is done twice changes nothing the second time.
//!
//! The input is text, so that seeds can be read: fields, each ended by a line `--`, then the file. The first field is the
//! kind, `line`, `block`, `ini` or `entry`, with `absent` and a place (`beginning`, `after`, `before`) behind it.
#![no_main]

use drover_apply::fuzzing;
use drover_catalog::{Edit, Place, Presence, Sensitive};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((edit, text)) = parse(input) else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Some(edited) = fuzzing::edit(text, &edit) else { return };
    assert_ne!(edited, text, "a change that changes nothing");
    assert_eq!(fuzzing::edit(&edited, &edit), None, "done twice, {edit:?} changes something again");
});

fn parse(input: &[u8]) -> Option<(Edit, &[u8])> {
    let mut rest = input;
    let mut field = || {
        let end = rest.windows(4).position(|window| window == b"\n--\n")?;
        let (field, behind) = rest.split_at_checked(end)?;
        rest = behind.get(4..)?;
        std::str::from_utf8(field).ok().map(str::to_owned)
    };
    let kind = field()?;
    let mut words = kind.split_whitespace();
    let kind = words.next()?;
    let state = if kind_has(&mut words, "absent") { Presence::Absent } else { Presence::Present };
    let place = words.next().map(str::to_owned);
    let mut placed = || {
        Some(match place.as_deref() {
            Some("beginning") => Place::Beginning,
            Some("after") => Place::After(field()?),
            Some("before") => Place::Before(field()?),
            _ => Place::End,
        })
    };
    let edit = match kind {
        "line" => {
            let place = placed()?;
            let (line, matching) = (field()?, field()?);
            Edit::Line { state, line: Sensitive::new(line), matching: Some(matching).filter(|m| !m.is_empty()), place }
        }
        "block" => {
            let place = placed()?;
            Edit::Block { state, begin: field()?, end: field()?, content: Sensitive::new(field()?), place }
        }
        "ini" => Edit::Ini {
            state,
            section: field()?,
            key: field()?,
            value: Sensitive::new(field()?),
            separator: field()?,
        },
        "entry" => Edit::Entry { state, field: field()?.len(), key: field()?, line: field()? },
        _ => return None,
    };
    Some((edit, rest))
}

/// Takes the next word when it is this one.
fn kind_has<'a>(words: &mut (impl Iterator<Item = &'a str> + Clone), wanted: &str) -> bool {
    let has = words.clone().next() == Some(wanted);
    if has {
        words.next();
    }
    has
}
