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
    // Two letters in the wrong order are the commonest slip, and count once.
    let candidates = known.into_iter().map(|name| (strsim::osa_distance(wanted, name), name));
    candidates.filter(|(edits, _)| *edits <= allowed).min_by_key(|(edits, _)| *edits).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_edits_are_a_slip_and_many_another_word() {
        for (wanted, meant) in [("famly", Some("family")), ("mtod", Some("motd")), ("moot", None), ("kernel", None)] {
            assert_eq!(nearest(wanted, ["motd", "family"]), meant, "{wanted}");
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
