//! Some lines of a file whose rest is not ours.
//!
//! What an edit makes of a text is [`edit()`], a pure function; done twice, it changes nothing the second time.

mod block;
mod entry;
mod ini;
mod line;
mod text;

use std::{fmt, rc::Rc};

use drover_catalog::{Edit, EditSpec, Presence, PropertyEvent};
use thiserror::Error;

use super::{Contents, Provider, ProviderError, event, event_of, file::is_public, wanted_access};
use crate::host::{Access, EntryKind, Host, LARGEST_CONFIGURATION};

/// Why a text can not be edited. No content is in it: the lines of an edit may be secrets.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum EditError {
    #[error("{what} must be one line, without a line break in it")]
    NotOneLine { what: &'static str },
    #[error("the regular expression {pattern} is not valid: {why}")]
    Pattern { pattern: String, why: String },
    #[error("found {count} {what} where one is meant; name it more exactly, or remove the others by hand")]
    Several { what: String, count: usize },
    #[error("the markers of a block must be two different lines that its content does not have")]
    Markers,
    #[error(
        "the line {begin:?} is there {} and the line {end:?} {}, which is not one block; repair it by hand",
        times(*begins),
        times(*ends)
    )]
    Block { begin: String, begins: usize, end: String, ends: usize },
    #[error("the setting can not be written so that it is found again: {why}")]
    Setting { why: &'static str },
    #[error("the first line would begin with a byte order mark (U+FEFF), which is no part of a line; leave it out")]
    Mark,
    #[error("the entry must have {key} as field {field} (from 0), by which it is found")]
    Key { key: String, field: usize },
}

fn times(count: usize) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        several => format!("{several} times"),
    }
}

/// The text as it must be; `None` where it is so.
pub(crate) fn edit(text: &str, edit: &Edit) -> Result<Option<String>, EditError> {
    let mut lines = text::Text::parse(text);
    match edit {
        Edit::Line { state, line, matching, place } => {
            line::edit(&mut lines, *state, line, matching.as_deref(), place)?;
        }
        Edit::Block { state, content, begin, end, place } => {
            block::edit(&mut lines, *state, content, (begin, end), place)?;
        }
        Edit::Ini { state, section, key, value, separator } => {
            ini::edit(&mut lines, *state, section, key, value, separator)?;
        }
        Edit::Entry { state, field, key, line } => entry::edit(&mut lines, *state, *field, key, line)?,
    }
    let edited = lines.render();
    // Else the next run would take it for the file's own, and not find the line.
    if !lines.has_mark() && edited.starts_with(text::BYTE_ORDER_MARK) {
        return Err(EditError::Mark);
    }
    Ok((edited != text).then_some(edited))
}

fn state(edit: &Edit) -> Presence {
    match edit {
        Edit::Line { state, .. } | Edit::Block { state, .. } | Edit::Ini { state, .. } | Edit::Entry { state, .. } => {
            *state
        }
    }
}

/// What an edit is about, without its content.
fn subject(edit: &Edit) -> String {
    match edit {
        Edit::Line { .. } => "line".to_owned(),
        Edit::Block { begin, .. } => format!("block {begin}"),
        Edit::Ini { section, key, .. } if section.is_empty() => format!("setting {key}"),
        Edit::Ini { section, key, .. } => format!("setting [{section}] {key}"),
        Edit::Entry { key, .. } => format!("entry {key}"),
    }
}

/// A file as it is.
pub(crate) enum Observed {
    /// None, and how it would be made.
    Missing(Option<Access>),
    /// A regular file.
    File { access: Access, content: Rc<[u8]> },
    /// Something else.
    Other(EntryKind),
}

/// What must change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Make the file, empty at first.
    Create,
    /// Put the edited text in its place.
    Write {
        /// What of it is edited.
        subject: String,
        /// Whether that must be there.
        state: Presence,
        /// The file's own, or the new one's.
        access: Access,
        /// What is there.
        before: Option<Rc<[u8]>>,
        /// What must be there.
        after: Rc<[u8]>,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("created"),
            Self::Write { subject, state: Presence::Present, .. } => write!(f, "{subject} set"),
            Self::Write { subject, state: Presence::Absent, .. } => write!(f, "{subject} removed"),
        }
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::Create => event_of("ensure", Some("absent".into()), Some("present".into())),
            Self::Write { subject, .. } => event(subject),
        }
    }
}

impl Provider for EditSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, _notified: bool) -> Result<Observed, ProviderError> {
        // At once: the owner and the mode of one file with the content of another could give a secret away.
        Ok(match host.read_entry(&self.path, LARGEST_CONFIGURATION)? {
            Some((entry, content)) if entry.kind == EntryKind::File => {
                Observed::File { access: entry.access, content: content.into() }
            }
            Some((entry, _)) => Observed::Other(entry.kind),
            None => {
                let create = self.create.as_ref().filter(|_| state(&self.edit) == Presence::Present);
                let access = create.map(|new| wanted_access(host, new.mode, &new.owner, &new.group));
                Observed::Missing(access.transpose()?)
            }
        })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let path = &self.path;
        let refused = |why: String| Err(ProviderError::Refused(why));
        let (access, before) = match observed {
            Observed::File { access, content } => (*access, Some(content)),
            Observed::Missing(Some(access)) => (*access, None),
            Observed::Missing(None) if state(&self.edit) == Presence::Absent => return Ok(Vec::new()),
            Observed::Missing(None) => {
                return refused(format!(
                    "{path} is not there; say in `create` how to make it, or require what makes it"
                ));
            }
            Observed::Other(EntryKind::SymbolicLink) => {
                return refused(format!("{path} is a symbolic link; name the file that it leads to"));
            }
            Observed::Other(_) => return refused(format!("{path} is no regular file; choose another path")),
        };
        let Ok(text) = std::str::from_utf8(before.map_or(&[], |content| &content[..])) else {
            return refused(format!(
                "{path} is no UTF-8 text, and its lines cannot be told; manage it as a whole file"
            ));
        };
        let edited = match edit(text, &self.edit) {
            Ok(edited) => edited,
            Err(error) => return refused(format!("could not edit {path}: {error}")),
        };
        let Some(after) = edited else { return Ok(Vec::new()) };
        let write = Change::Write {
            subject: subject(&self.edit),
            state: state(&self.edit),
            access,
            before: before.cloned(),
            after: after.into_bytes().into(),
        };
        Ok(before.is_none().then_some(Change::Create).into_iter().chain([write]).collect())
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match change {
                // It comes with its first text.
                Change::Create => {}
                Change::Write { access, after, .. } => {
                    host.write_file(&self.path, after, *access, self.validate.as_deref()).await?;
                }
            }
        }
        Ok(())
    }

    fn contents(&self, _host: &impl Host, changes: &[Change]) -> Result<Option<Contents>, ProviderError> {
        Ok(changes.iter().find_map(|change| match change {
            Change::Create => None,
            Change::Write { access, before, after, .. } => Some(Contents {
                path: self.path.clone(),
                before: before.as_ref().map(|before| before.to_vec()),
                public: is_public(*access),
                after: Some(after.to_vec()),
            }),
        }))
    }
}

#[cfg(test)]
mod tests;
