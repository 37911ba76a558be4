//! How the content of a file differs, for people.

use std::fmt::Write as _;

use drover_catalog::ResourceId;
use similar::TextDiff;

/// So many lines of a difference are shown.
const MOST_LINES: usize = 200;
/// Larger content is not compared line by line.
const MOST_BYTES: usize = 1 << 20;

/// How a file differs, or why that is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The resource that changes it.
    pub id: ResourceId,
    /// The file.
    pub path: String,
    /// A unified diff, or one line in brackets that says why there is none.
    pub text: String,
}

impl Difference {
    /// Of a file that may hold a secret.
    pub(super) fn withheld(id: ResourceId, path: String) -> Self {
        Self { id, path, text: "[not shown: it may hold a secret]\n".to_owned() }
    }

    /// Between two contents; `None` where there is no file.
    pub(super) fn of(id: ResourceId, path: String, before: Option<&[u8]>, after: Option<&[u8]>) -> Self {
        let text = unified(&path, before, after);
        Self { id, path, text }
    }
}

fn unified(path: &str, before: Option<&[u8]>, after: Option<&[u8]>) -> String {
    let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
    if old.len().max(new.len()) > MOST_BYTES {
        return format!("[not shown: {} bytes -> {} bytes]\n", old.len(), new.len());
    }
    let (Ok(old_text), Ok(new_text)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return format!("[not shown: it is no text; {} bytes -> {} bytes]\n", old.len(), new.len());
    };
    let name = |content: Option<&[u8]>| if content.is_some() { path } else { "/dev/null" };
    let diff = TextDiff::from_lines(old_text, new_text);
    let whole = diff.unified_diff().context_radius(3).header(name(before), name(after)).to_string();
    let mut lines = whole.split_inclusive('\n');
    let mut shown: String = lines.by_ref().take(MOST_LINES).collect();
    let more = lines.count();
    if more > 0 {
        // Writing to a String does not fail.
        let _ = writeln!(shown, "[{more} more lines]");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: Option<&[u8]>, after: Option<&[u8]>, expected: &str) {
        assert_eq!(unified("/a", before, after), expected);
    }

    #[test]
    fn shows_what_a_person_can_read() {
        check(Some(b"a\nb\n"), Some(b"a\nc\n"), "--- /a\n+++ /a\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
        check(None, Some(b"moo\n"), "--- /dev/null\n+++ /a\n@@ -0,0 +1 @@\n+moo\n");
        check(Some(b"moo\n"), None, "--- /a\n+++ /dev/null\n@@ -1 +0,0 @@\n-moo\n");
        check(Some(&[0xff]), Some(b"moo"), "[not shown: it is no text; 1 bytes -> 3 bytes]\n");
        let long = vec![b'x'; MOST_BYTES + 1];
        check(None, Some(&long), "[not shown: 0 bytes -> 1048577 bytes]\n");
    }

    #[test]
    fn a_long_difference_is_cut_and_says_so() {
        let text = unified("/a", None, Some("x\n".repeat(1000).as_bytes()));
        assert_eq!(text.lines().count(), MOST_LINES + 1);
        assert!(text.ends_with("[803 more lines]\n"), "{text}");
    }
}
