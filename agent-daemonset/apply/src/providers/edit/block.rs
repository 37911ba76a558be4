//! Lines between two marker lines.

use drover_catalog::{Place, Presence, Sensitive};

use super::{
    EditError,
    text::{Text, one_line},
};

pub(super) fn edit(
    text: &mut Text,
    state: Presence,
    content: &Sensitive,
    (begin, end): (&str, &str),
    place: &Place,
) -> Result<(), EditError> {
    one_line("a marker", begin)?;
    one_line("a marker", end)?;
    let content: Vec<&str> = content.expose().lines().collect();
    if begin.is_empty() || end.is_empty() || begin == end || content.iter().any(|line| [begin, end].contains(line)) {
        return Err(EditError::Markers);
    }
    let (begins, ends) = (text.find(|line| line == begin), text.find(|line| line == end));
    match (begins.as_slice(), ends.as_slice(), state) {
        ([], [], Presence::Absent) => {}
        ([], [], Presence::Present) => {
            let at = text.place(place)?;
            let block = [begin].into_iter().chain(content).chain([end]);
            text.insert(at, block.map(str::to_owned));
        }
        ([first], [last], Presence::Absent) if first < last => text.remove(*first..=*last),
        ([first], [last], Presence::Present) if first < last => {
            let inside = first + 1..*last;
            if !text.lines().skip(inside.start).take(inside.len()).eq(content.iter().copied()) {
                text.remove(inside);
                text.insert(first + 1, content.into_iter().map(str::to_owned));
            }
        }
        _ => {
            let (begin, end) = (begin.to_owned(), end.to_owned());
            return Err(EditError::Block { begin, begins: begins.len(), end, ends: ends.len() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use drover_catalog::Edit;

    use super::{super::tests::check, *};

    fn block(state: Presence, content: &str) -> Edit {
        let place = Place::Before("^Match".into());
        Edit::Block { state, content: Sensitive::new(content), begin: "# [".into(), end: "# ]".into(), place }
    }

    #[test]
    fn a_block_is_there() {
        let ab = block(Presence::Present, "a\nb");
        check(&ab, "", "# [\na\nb\n# ]\n");
        check(&ab, "x", "x\n# [\na\nb\n# ]\n");
        check(&ab, "x\r\nMatch y\r\n", "x\r\n# [\r\na\r\nb\r\n# ]\r\nMatch y\r\n");
        check(&ab, "x\n# [\na\nb\n# ]\ny", "unchanged");
        check(&ab, "x\r\n# [\r\na\r\nb\r\n# ]\r\n", "unchanged");
        check(&ab, "# [\nb\n# ]", "# [\na\nb\n# ]");
        check(&ab, "# [\n# ]\ny\n", "# [\na\nb\n# ]\ny\n");
        check(&block(Presence::Present, "a\nb\n"), "# [\na\nb\n# ]\n", "unchanged");
        check(&block(Presence::Present, ""), "# [\na\n# ]\n", "# [\n# ]\n");
    }

    #[test]
    fn a_block_is_not_there() {
        let gone = block(Presence::Absent, "");
        check(&gone, "x\n# [\na\n# ]\ny\n", "x\ny\n");
        check(&gone, "x\n", "unchanged");
    }

    #[test]
    fn a_damaged_block_is_left_to_people() {
        for state in [Presence::Present, Presence::Absent] {
            let edit = block(state, "a");
            for (text, counts) in [
                ("# [\na\n", ("once", "never")),
                ("# ]\n# [\n", ("once", "once")),
                ("# [\n# ]\n# [\n# ]\n", ("2 times", "2 times")),
            ] {
                let (begins, ends) = counts;
                let error = format!(
                    "error: the line \"# [\" is there {begins} and the line \"# ]\" {ends}, which is not one block; \
                     repair it by hand"
                );
                check(&edit, text, &error);
            }
        }
        let markers = "error: the markers of a block must be two different lines that its content does not have";
        check(&block(Presence::Present, "a\n# ]\nb"), "", markers);
    }
}
