//! A text as lines that remember how they end, so that what is not touched stays byte for byte.

use drover_catalog::Place;
use regex::{Regex, RegexBuilder};

use super::EditError;

/// A compiled regular expression may take so many bytes.
const REGEX_SIZE: usize = 1 << 20;

pub(super) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A text, line by line.
pub(super) struct Text {
    has_mark: bool,
    /// How a new line ends: as the first one does.
    ending: &'static str,
    lines: Vec<Line>,
}

struct Line {
    text: String,
    /// Empty for a last line without an end, `\r` for one with half an end.
    ending: &'static str,
}

impl Line {
    /// Whether what is written behind it would be part of it.
    fn is_open(&self) -> bool {
        !self.ending.ends_with('\n')
    }
}

impl Text {
    pub(super) fn parse(text: &str) -> Self {
        let (has_mark, text) = match text.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let line = |whole: &str| {
            let (text, ending) = match (whole.strip_suffix("\r\n"), whole.strip_suffix('\n')) {
                (Some(text), _) => (text, "\r\n"),
                (None, Some(text)) => (text, "\n"),
                // A last line that lost the second half of its end; with a new line behind it, it gets it back.
                (None, None) => {
                    (whole.strip_suffix('\r').unwrap_or(whole), if whole.ends_with('\r') { "\r" } else { "" })
                }
            };
            Line { text: text.to_owned(), ending }
        };
        let lines: Vec<Line> = text.split_inclusive('\n').map(line).collect();
        let ending = lines.first().map_or("\n", |first| first.ending);
        Self { has_mark, ending: if ending == "\r\n" { ending } else { "\n" }, lines }
    }

    pub(super) fn render(&self) -> String {
        let mark = if self.has_mark { BYTE_ORDER_MARK } else { "" };
        let lines = self.lines.iter().flat_map(|line| [line.text.as_str(), line.ending]);
        [mark].into_iter().chain(lines).collect()
    }

    /// Whether the file begins with a byte order mark.
    pub(super) fn has_mark(&self) -> bool {
        self.has_mark
    }

    /// The lines without their ends.
    pub(super) fn lines(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.lines.iter().map(|line| line.text.as_str())
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The numbers, from 0, of the lines that are meant.
    pub(super) fn find(&self, is_meant: impl Fn(&str) -> bool) -> Vec<usize> {
        self.lines().enumerate().filter(|(_, line)| is_meant(line)).map(|(at, _)| at).collect()
    }

    /// Puts another text in place of a line, which keeps its end; an empty one needs an end to be a line.
    pub(super) fn replace(&mut self, at: usize, text: String) {
        if let Some(line) = self.lines.get_mut(at) {
            if text.is_empty() && line.is_open() {
                line.ending = self.ending;
            }
            line.text = text;
        }
    }

    /// Puts new lines before the line of this number; past the last one, a line without an end gets one.
    pub(super) fn insert(&mut self, at: usize, texts: impl IntoIterator<Item = String>) {
        let at = at.min(self.lines.len());
        if let Some(before) = at.checked_sub(1).and_then(|before| self.lines.get_mut(before))
            && before.is_open()
        {
            before.ending = if before.ending == "\r" { "\r\n" } else { self.ending };
        }
        let ending = self.ending;
        self.lines.splice(at..at, texts.into_iter().map(|text| Line { text, ending }));
    }

    /// Removes lines by their numbers.
    pub(super) fn remove(&mut self, numbers: impl IntoIterator<Item = usize>) {
        let mut numbers: Vec<usize> = numbers.into_iter().filter(|at| *at < self.lines.len()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for at in numbers.into_iter().rev() {
            self.lines.remove(at);
        }
    }

    /// Before which line something new goes.
    pub(super) fn place(&self, place: &Place) -> Result<usize, EditError> {
        let end = self.lines.len();
        Ok(match place {
            Place::End => end,
            Place::Beginning => 0,
            Place::After(pattern) => {
                let pattern = compile(pattern)?;
                self.lines().rposition(|line| pattern.is_match(line)).map_or(end, |at| at + 1)
            }
            Place::Before(pattern) => {
                let pattern = compile(pattern)?;
                self.lines().position(|line| pattern.is_match(line)).unwrap_or(end)
            }
        })
    }
}

/// A regular expression of a catalog.
pub(super) fn compile(pattern: &str) -> Result<Regex, EditError> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(|error| EditError::Pattern { pattern: pattern.to_owned(), why: error.to_string() })
}

/// Refuses what would be more than one line in the file, and then never found again. `what` is shown, `text` is not.
pub(super) fn one_line(what: &'static str, text: &str) -> Result<(), EditError> {
    if text.contains(['\n', '\r']) { Err(EditError::NotOneLine { what }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_byte_for_byte() {
        for text in ["", "a", "a\n", "\n", "a\r\nb\n\r\n", "\u{feff}a\n", "\r", "a\rb\n\n\n"] {
            assert_eq!(Text::parse(text).render(), text);
        }
    }

    #[test]
    fn new_lines_end_as_the_others_do() {
        #[track_caller]
        fn check(text: &str, at: usize, expected: &str) {
            let mut lines = Text::parse(text);
            lines.insert(at, ["x".to_owned()]);
            assert_eq!(lines.render(), expected);
        }
        check("", 0, "x\n");
        check("a", 9, "a\nx\n");
        check("a\nb", 1, "a\nx\nb");
        check("a\nb\r", 2, "a\nb\r\nx\n");
        check("a\r\nb", 2, "a\r\nb\r\nx\r\n");
        check("\u{feff}a\n", 0, "\u{feff}x\na\n");
    }
}
