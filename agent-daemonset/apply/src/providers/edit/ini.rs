//! One setting of an INI file.
//!
//! There is no standard for these files. What is read here is what systemd, git-config(1), crudini and Python's
//! `configparser` agree on, and where they do not:
//!
//! - A comment begins with `#` or `;` as the first character of its line. Anything after a value belongs to the value.
//! - Names of sections and keys are compared as they are, upper and lower case apart.
//! - A section may be there several times; they count as one.
//! - A key that is there several times has the value of the last one, as for git; that one is changed and the others stay.
//!   Absent means that all are removed.
//! - The separator that the resource gives says which files it is about: with `:` in it keys end at the first `:`, with only white
//!   space at the first of that, else at the first `=`. A key alone on its line is a setting without a value.
//! - A value goes on after a `\` at the end of its line, and over following lines that are indented more than its key,
//!   unless they look like settings themselves.

use std::ops::Range;

use drover_catalog::{Presence, Sensitive};

use super::{
    EditError,
    text::{Text, one_line},
};

pub(super) fn edit(
    text: &mut Text,
    state: Presence,
    section: &str,
    key: &str,
    value: &Sensitive,
    separator: &str,
) -> Result<(), EditError> {
    let value = value.expose().trim();
    let syntax = Syntax::of(separator);
    check(section, key, value, separator, syntax)?;
    change(text, state, section, key, value, separator);
    let lines: Vec<&str> = text.lines().collect();
    let reads_right = match (state, Found::look(&lines, syntax, section, key).settings.last()) {
        (Presence::Absent, setting) => setting.is_none(),
        (Presence::Present, setting) => setting.is_some_and(|setting| setting.is(value)),
    };
    if reads_right {
        return Ok(());
    }
    // Such as a last line that ends with a backslash.
    Err(EditError::Setting { why: "it would run into the lines around it, which end or begin as if a value went on" })
}

fn change(text: &mut Text, state: Presence, section: &str, key: &str, value: &str, separator: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let found = Found::look(&lines, Syntax::of(separator), section, key);
    if state == Presence::Absent {
        text.remove(found.settings.into_iter().flat_map(|setting| setting.lines));
        return;
    }
    let new_line = |indent: &str| match value {
        "" => format!("{indent}{key}{}", separator.trim_end()),
        value => format!("{indent}{key}{separator}{value}"),
    };
    match (found.settings.last(), found.new_at) {
        (Some(setting), _) if setting.is(value) => {}
        (Some(setting), _) => {
            // Its own spacing, if it has a value to tell it by.
            let line = if setting.value.is_empty() || value.is_empty() {
                new_line(&setting.indent)
            } else {
                format!("{}{value}", setting.before_value)
            };
            let Range { start, end } = setting.lines.clone();
            text.replace(start, line);
            text.remove(start + 1..end);
        }
        (None, Some(at)) => text.insert(at, [new_line("")]),
        (None, None) => {
            let gap = lines.last().is_some_and(|last| !last.trim().is_empty());
            let header = gap.then(String::new).into_iter().chain([format!("[{section}]"), new_line("")]);
            let header: Vec<String> = header.collect();
            text.insert(text.len(), header);
        }
    }
}

/// Where a key ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    At(char),
    WhiteSpace,
}

impl Syntax {
    fn of(separator: &str) -> Self {
        match separator.trim() {
            "" => Self::WhiteSpace,
            text if text.contains('=') => Self::At('='),
            text if text.contains(':') => Self::At(':'),
            _ => Self::At('='),
        }
    }

    /// The key of a line, and where its value begins; `None` where the line is no setting.
    fn split(self, line: &str) -> Option<(&str, usize)> {
        if is_comment(line) || line.trim().is_empty() || header(line).is_some() {
            return None;
        }
        let indent = line.len() - line.trim_start().len();
        let rest = line.get(indent..)?;
        let end = match self {
            Self::At(separator) => rest.find(separator),
            Self::WhiteSpace => rest.find(char::is_whitespace),
        };
        let Some(end) = end else { return Some((rest.trim_end(), line.len())) };
        let after = rest.get(end..)?;
        let separator = match self {
            Self::At(separator) => separator.len_utf8(),
            Self::WhiteSpace => 0,
        };
        let after = after.get(separator..)?;
        let value = line.len() - after.trim_start().len();
        Some((rest.get(..end)?.trim_end(), value))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with(['#', ';'])
}

/// The name in a section's header. A `]` in quotes does not end it: git has sections like `[branch "a]b"]`.
fn header(line: &str) -> Option<&str> {
    let inside = line.trim_start().strip_prefix('[')?;
    let mut quoted = false;
    let end = inside.find(|character| {
        quoted ^= character == '"';
        character == ']' && !quoted
    })?;
    inside.get(..end)
}

/// A setting that is there.
struct Setting {
    /// Its line, and those that its value goes on over.
    lines: Range<usize>,
    indent: String,
    /// All of its first line before the value.
    before_value: String,
    value: String,
}

impl Setting {
    fn is(&self, value: &str) -> bool {
        self.lines.len() == 1 && self.value == value
    }
}

/// What is there of a key.
struct Found {
    settings: Vec<Setting>,
    /// Before which line a new setting of the section goes; `None` where there is no such section.
    new_at: Option<usize>,
}

impl Found {
    fn look(lines: &[&str], syntax: Syntax, section: &str, key: &str) -> Self {
        let mut settings = Vec::new();
        // Before the first section, a new key goes after the others there, else before what is said of that section.
        let mut new_at = section.is_empty().then(|| before_first_section(lines));
        let mut inside = section.is_empty();
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            let end = at + 1 + goes_on(lines, at, syntax);
            if let Some(name) = header(line) {
                inside = name == section && !section.is_empty();
                if inside {
                    new_at = Some(at + 1);
                }
                at += 1;
                continue;
            }
            if inside && let Some((found, value_at)) = syntax.split(line) {
                new_at = Some(end);
                if found == key {
                    let (before, value) = line.split_at_checked(value_at).unwrap_or((line, ""));
                    settings.push(Setting {
                        lines: at..end,
                        indent: line.chars().take_while(|c| c.is_whitespace()).collect(),
                        before_value: before.to_owned(),
                        value: value.trim_end().to_owned(),
                    });
                }
            }
            at = end;
        }
        Self { settings, new_at }
    }
}

/// The comment right above the first section is about that section.
fn before_first_section(lines: &[&str]) -> usize {
    let first = lines.iter().position(|line| header(line).is_some()).unwrap_or(lines.len());
    if first == lines.len() {
        return first;
    }
    let comments = lines.iter().take(first).rev().take_while(|line| is_comment(line)).count();
    first - comments
}

/// Over how many lines the value of a setting goes on.
fn goes_on(lines: &[&str], at: usize, syntax: Syntax) -> usize {
    let indent = |line: &str| line.chars().take_while(|c| c.is_whitespace()).count();
    let Some(first) = lines.get(at).filter(|line| syntax.split(line).is_some()) else { return 0 };
    let mut last = first;
    let mut count = 0;
    for line in lines.iter().skip(at + 1) {
        let indented = indent(line) > indent(first) && !line.trim().is_empty() && !is_comment(line);
        let looks_like_setting = || {
            header(line).is_some()
                || syntax.split(line).is_some_and(|(key, value_at)| {
                    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
                    value_at < line.len() && !key.is_empty() && key.chars().all(is_name)
                })
        };
        if !ends_in_backslash(last) && (!indented || looks_like_setting()) {
            break;
        }
        last = line;
        count += 1;
    }
    count
}

fn ends_in_backslash(line: &str) -> bool {
    line.chars().rev().take_while(|character| *character == '\\').count() % 2 == 1
}

/// Refuses a setting that would read as another one.
fn check(section: &str, key: &str, value: &str, separator: &str, syntax: Syntax) -> Result<(), EditError> {
    for (what, text) in [("a section", section), ("a key", key), ("a value", value), ("a separator", separator)] {
        one_line(what, text)?;
    }
    let refused = |why| Err(EditError::Setting { why });
    if !section.is_empty() && header(&format!("[{section}]")) != Some(section) {
        return refused("the name of the section has a ] in it");
    }
    let line = format!("{key}{separator}{value}");
    if key.is_empty() || syntax.split(&line).is_none_or(|(found, _)| found != key) {
        return refused("the key reads as a comment, a section or another key");
    }
    if syntax.split(&line).and_then(|(_, at)| line.get(at..)).map(str::trim_end) != Some(value) {
        return refused("the separator must be = or : or white space, with white space around it");
    }
    if ends_in_backslash(value) {
        return refused("a \\ at the end of its value would take in the next line");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
