//! Which known name somebody may have meant.

use std::fmt;

/// At most so many names are listed in one message.
const LISTED: usize = 20;

/// The part of an error that says what would have been known. Empty when there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint(String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Hint {
    /// `; did you mean ...?`, when one of the names is near.
    pub(crate) fn near<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        did_you_mean(wanted, known)
    }
}

/// `; did you mean ...?`, when one of the names is near.
pub(super) fn did_you_mean<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Hint {
    Hint(nearest(wanted, known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default())
}

/// `; <parent> has: ...`, with the nearest name first said when there is one.
pub(super) fn known_in(parent: &str, wanted: &str, known: &[String]) -> Hint {
    if known.is_empty() {
        return Hint(format!("; {parent} is empty"));
    }
    let near = nearest(wanted, known.iter().map(String::as_str));
    let near = near.map_or_else(|| ";".to_owned(), |name| format!("; did you mean `{name}`?"));
    let listed: Vec<&str> = known.iter().take(LISTED).map(String::as_str).collect();
    let more = if known.len() > LISTED { format!(" and {} more", known.len() - LISTED) } else { String::new() };
    Hint(format!("{near} {parent} has: {}{more}", listed.join(", ")))
}

/// The name that needs the fewest edits, when those are few for its length. The first one wins a draw.
fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wanted.chars().count() / 3).clamp(1, 3);
    let candidates = known.into_iter().map(|name| (edits(wanted, name), name));
    candidates.filter(|(edits, _)| *edits <= allowed).min_by_key(|(edits, _)| *edits).map(|(_, name)| name)
}

/// The Levenshtein distance: how many characters to insert, delete or replace.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        for (from, to, distance) in [("", "", 0), ("kitten", "sitting", 3), ("famly", "family", 1), ("a", "", 1)] {
            assert_eq!(edits(from, to), distance, "{from} {to}");
        }
    }

    #[test]
    fn lists_no_more_than_a_person_reads() {
        let known: Vec<String> = (0..25).map(|i| format!("key{i:02}")).collect();
        let text = known_in("data", "other", &known).to_string();
        assert!(text.starts_with("; data has: key00, key01") && text.ends_with("key19 and 5 more"), "{text}");
        assert_eq!(known_in("data", "x", &[]).to_string(), "; data is empty");
        assert!(known_in("data", "key3", &known).to_string().starts_with("; did you mean `key03`? data has:"));
    }
}
