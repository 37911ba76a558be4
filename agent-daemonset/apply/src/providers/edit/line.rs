//! One line.

use drover_catalog::{Place, Presence, Sensitive};

use super::{
    EditError,
    text::{Text, compile, one_line},
};

pub(super) fn edit(
    text: &mut Text,
    state: Presence,
    line: &Sensitive,
    matching: Option<&str>,
    place: &Place,
) -> Result<(), EditError> {
    let line = line.expose();
    one_line("the line", line)?;
    let pattern = matching.map(compile).transpose()?;
    let meant = text.find(|found| pattern.as_ref().map_or(found == line, |pattern| pattern.is_match(found)));
    if state == Presence::Absent {
        text.remove(meant);
        return Ok(());
    }
    let right = text.find(|found| found == line);
    match (meant.as_slice(), matching) {
        // It need not match the pattern that finds its predecessor: then it has been put in place before.
        ([], _) if right.is_empty() => {
            let at = text.place(place)?;
            text.insert(at, [line.to_owned()]);
        }
        ([], _) => {}
        (all, _) if all.iter().all(|at| right.contains(at)) => {}
        ([one], _) => text.replace(*one, line.to_owned()),
        (several, pattern) => {
            let what = format!("lines that match {}", pattern.unwrap_or_default());
            return Err(EditError::Several { what, count: several.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use drover_catalog::Edit;

    use super::{super::tests::check, *};

    fn line(state: Presence, line: &str, matching: Option<&str>, place: Place) -> Edit {
        Edit::Line { state, line: Sensitive::new(line), matching: matching.map(str::to_owned), place }
    }

    #[test]
    fn a_line_is_there() {
        let present = |matching, place| line(Presence::Present, "Port 22", matching, place);
        let plain = present(None, Place::End);
        check(&plain, "", "Port 22\n");
        check(&plain, "a", "a\nPort 22\n");
        check(&plain, "a\r\n", "a\r\nPort 22\r\n");
        check(&plain, "Port 22\na\n", "unchanged");
        check(&plain, "Port 22\r\nPort 22", "unchanged");
        check(&plain, "Port 222\n", "Port 222\nPort 22\n");
        check(&present(None, Place::Beginning), "a\n", "Port 22\na\n");
        check(&present(None, Place::After("^a".into())), "a\nab\nb\n", "a\nab\nPort 22\nb\n");
        check(&present(None, Place::After("^x".into())), "a\n", "a\nPort 22\n");
        check(&present(None, Place::Before("^a".into())), "b\na\na\n", "b\nPort 22\na\na\n");
        check(&present(None, Place::Before("^x".into())), "a\n", "a\nPort 22\n");
    }

    #[test]
    fn the_line_that_matches_is_replaced() {
        let port = line(Presence::Present, "Port 22", Some(r"(?i)^#?\s*port\s"), Place::End);
        check(&port, "a\n#port 2222\nb", "a\nPort 22\nb");
        check(&port, "a\nPort 2222", "a\nPort 22");
        check(&port, "a\r\nPort 1\r\n", "a\r\nPort 22\r\n");
        check(&port, "Port 22\nPort 22\n", "unchanged");
        check(
            &port,
            "Port 1\n#Port 2\n",
            "error: found 2 lines that match (?i)^#?\\s*port\\s where one is meant; name it more exactly, or remove the others by hand",
        );
        let other = line(Presence::Present, "new", Some("^old"), Place::Beginning);
        check(&other, "a\nold\n", "a\nnew\n");
        check(&other, "a\nnew\n", "unchanged");
        check(&other, "a\n", "new\na\n");
    }

    #[test]
    fn a_line_is_not_there() {
        let gone = line(Presence::Absent, "a", None, Place::End);
        check(&gone, "a\nb\na", "b\n");
        check(&gone, "ab\n", "unchanged");
        check(&gone, "", "unchanged");
        check(&line(Presence::Absent, "", Some("^x"), Place::End), "x\nax\nxx\n", "ax\n");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        check(
            &line(Presence::Present, "a\nb", None, Place::End),
            "",
            "error: the line must be one line, without a line break in it",
        );
        let mark = "error: the first line would begin with a byte order mark (U+FEFF), which is no part of a line; leave it out";
        check(&line(Presence::Present, "\u{feff}a", None, Place::Beginning), "b\n", mark);
        check(&line(Presence::Present, "\u{feff}a", None, Place::End), "b\n", "b\n\u{feff}a\n");
        let bad = line(Presence::Present, "a", Some("("), Place::End);
        let error = super::super::edit("", &bad).unwrap_err().to_string();
        assert!(error.starts_with("the regular expression ( is not valid: regex parse error"), "{error}");
        let huge = line(Presence::Present, "a", Some(r"(\w{500}){500}"), Place::End);
        super::super::edit("", &huge).unwrap_err();
    }
}
