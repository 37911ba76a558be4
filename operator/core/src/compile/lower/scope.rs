//! What the lowering of each type has at hand: checks of fields, errors that name them, contents.

use drover_catalog::{Digest, Facts, Ownership, Sensitive, SensitiveBytes};
use drover_crds::{ContentSource, Ensure};
use serde::{
    Deserialize as _,
    de::value::{Error as Malformed, StrDeserializer},
};

use super::super::{CompileError, Inputs};

/// How long a command or a fetch may take, in seconds, when nothing is said.
pub(super) const DEFAULT_TIMEOUT_SECONDS: u32 = 300;

const PATH: &str = "must be absolute, without empty, `.` and `..` parts, and not end with a slash";
const MODE: &str = "must be three or four octal digits as a string, such as \"0644\"";
const ACCOUNT: &str =
    "must be the name or number of a user or group: letters, digits and _ . -, with a letter, digit or _ first";
const FILE_NAME: &str = "must be a name of letters, digits and _ . -, with a letter, digit or _ first";
const ONE_LINE: &str = "must be one line of text that is not empty";
const ARGV: &str = "must name a program; write [\"program\", \"argument\"]";
const URL: &str = "must be a URL that begins with https://, http:// or file:// and has no white space";
const SHA256: &str = "must be the 64 lower-case hexadecimal digits that sha256sum prints";

/// The fields that a body of text may come from: `content`, `template`, `contentFrom`.
#[derive(Clone, Copy, Default)]
pub(super) struct Body<'a> {
    pub(super) ensure: Option<Ensure>,
    pub(super) content: Option<&'a String>,
    pub(super) template: Option<&'a String>,
    pub(super) from: Option<&'a ContentSource>,
}

/// The fields that say whose a file is: their names and what they say.
pub(super) struct Owned<'a> {
    pub(super) fields: [&'static str; 3],
    pub(super) mode: Option<&'a String>,
    pub(super) default_mode: u32,
    pub(super) owner: Option<&'a String>,
    pub(super) group: Option<&'a String>,
}

/// One resource that is lowered.
pub(super) struct Scope<'a> {
    name: &'a str,
    label: &'a str,
    inputs: &'a mut dyn Inputs,
}

impl<'a> Scope<'a> {
    pub(super) fn new(name: &'a str, label: &'a str, inputs: &'a mut dyn Inputs) -> Self {
        Self { name, label, inputs }
    }

    /// How the resource is called in errors, and in files that say where they come from.
    pub(super) fn label(&self) -> &str {
        self.label
    }

    /// The first line of a file that is ours alone, and whose comments begin with `#`.
    pub(super) fn header(&self) -> String {
        format!("# Written by Drover for {}; changes here are undone.\n", self.label)
    }

    pub(super) fn facts(&self) -> Option<&Facts> {
        self.inputs.facts()
    }

    pub(super) fn invalid(&self, field: &'static str, wanted: &'static str) -> CompileError {
        CompileError::Invalid { resource: self.label.to_owned(), field, wanted }
    }

    /// The error, unless the condition holds.
    pub(super) fn ensure(&self, holds: bool, field: &'static str, wanted: &'static str) -> Result<(), CompileError> {
        if holds { Ok(()) } else { Err(self.invalid(field, wanted)) }
    }

    /// The path, when nobody can write another one for the same file (links aside).
    pub(super) fn path(&self, field: &'static str, path: &str) -> Result<String, CompileError> {
        self.ensure(is_absolute(path), field, PATH)?;
        Ok(path.to_owned())
    }

    pub(super) fn octal(&self, field: &'static str, text: Option<&String>, default: u32) -> Result<u32, CompileError> {
        let Some(text) = text else { return Ok(default) };
        octal(text).ok_or_else(|| self.invalid(field, MODE))
    }

    /// A user or group; `root` when nothing is said.
    pub(super) fn account(&self, field: &'static str, name: Option<&String>) -> Result<String, CompileError> {
        let Some(name) = name else { return Ok("root".to_owned()) };
        self.ensure(is_account(name), field, ACCOUNT)?;
        Ok(name.clone())
    }

    pub(super) fn ownership(&self, owned: &Owned<'_>) -> Result<Ownership, CompileError> {
        let [mode, owner, group] = owned.fields;
        Ok(Ownership {
            mode: self.octal(mode, owned.mode, owned.default_mode)?,
            owner: self.account(owner, owned.owner)?,
            group: self.account(group, owned.group)?,
        })
    }

    /// What names the resource's thing on the machine: the field, else the resource's own name.
    pub(super) fn named(
        &self,
        field: &'static str,
        given: Option<&String>,
        fits: fn(&str) -> bool,
        wanted: &'static str,
    ) -> Result<String, CompileError> {
        let name = given.map_or(self.name, String::as_str);
        self.ensure(fits(name), field, wanted)?;
        Ok(name.to_owned())
    }

    /// As [`Self::named`], for a name that becomes the name of a file.
    pub(super) fn file_name(&self, field: &'static str, given: Option<&String>) -> Result<String, CompileError> {
        self.named(field, given, is_file_name, FILE_NAME)
    }

    pub(super) fn one_line<'t>(&self, field: &'static str, text: &'t str) -> Result<&'t str, CompileError> {
        self.ensure(!text.is_empty() && is_one_line(text), field, ONE_LINE)?;
        Ok(text)
    }

    /// Words of a line: each without white space.
    pub(super) fn words<'t>(&self, field: &'static str, words: &'t [String]) -> Result<&'t [String], CompileError> {
        let plain = |word: &String| !word.is_empty() && !word.chars().any(|c| c.is_whitespace() || c.is_control());
        self.ensure(words.iter().all(plain), field, "must be words without white space")?;
        Ok(words)
    }

    pub(super) fn argv(
        &self,
        field: &'static str,
        argv: Option<&Vec<String>>,
    ) -> Result<Option<Vec<String>>, CompileError> {
        let Some(argv) = argv else { return Ok(None) };
        let named = argv.first().is_some_and(|program| !program.is_empty());
        self.ensure(named && argv.iter().all(|word| !word.contains('\0')), field, ARGV)?;
        Ok(Some(argv.clone()))
    }

    /// A command that looks at a new file, which it finds by `%`.
    pub(super) fn validate(
        &self,
        field: &'static str,
        argv: Option<&Vec<String>>,
    ) -> Result<Option<Vec<String>>, CompileError> {
        let argv = self.argv(field, argv)?;
        let looks = argv.as_ref().is_none_or(|argv| argv.iter().any(|word| word.contains('%')));
        self.ensure(looks, field, "must have % in it, which stands for the path of the new content")?;
        Ok(argv)
    }

    pub(super) fn url(&self, field: &'static str, url: &str) -> Result<String, CompileError> {
        let scheme = ["https://", "http://", "file://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let fits =
            scheme.is_some_and(|rest| !rest.is_empty() && !rest.chars().any(|c| c.is_whitespace() || c.is_control()));
        self.ensure(fits, field, URL)?;
        Ok(url.to_owned())
    }

    pub(super) fn sha256(&self, field: &'static str, hex: &str) -> Result<Digest, CompileError> {
        let fits = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        self.ensure(fits, field, SHA256)?;
        Digest::deserialize(StrDeserializer::<Malformed>::new(hex)).map_err(|_| self.invalid(field, SHA256))
    }

    pub(super) fn render(&mut self, template: &str) -> Result<String, CompileError> {
        let made = self.inputs.render(template);
        made.map_err(|problem| CompileError::Template { resource: self.label.to_owned(), problem })
    }

    pub(super) fn content(&mut self, source: &ContentSource) -> Result<SensitiveBytes, CompileError> {
        let one = source.config_map_key_ref.is_some() != source.secret_key_ref.is_some();
        self.ensure(one, "a reference", "must be exactly one of configMapKeyRef and secretKeyRef")?;
        self.inputs.content(source)
    }

    /// The text of a key of a ConfigMap or Secret. `None` without a host, when there is no value yet.
    pub(super) fn text_of(
        &mut self,
        field: &'static str,
        source: &ContentSource,
    ) -> Result<Option<Sensitive>, CompileError> {
        let bytes = self.content(source)?;
        if source.secret_key_ref.is_some() {
            self.inputs.mark_sensitive();
        }
        if self.facts().is_none() {
            return Ok(None);
        }
        let text = std::str::from_utf8(bytes.expose()).ok();
        text.map(|text| Some(Sensitive::new(text))).ok_or_else(|| self.invalid(field, "must be UTF-8 text"))
    }

    /// The text that is there, from whichever field says it; `None` when it must not be there. `wanted` says what the
    /// fields must be.
    pub(super) fn body(
        &mut self,
        field: &'static str,
        wanted: &'static str,
        body: Body<'_>,
    ) -> Result<Option<SensitiveBytes>, CompileError> {
        let Body { ensure, content, template, from } = body;
        match (ensure.unwrap_or_default(), content, template, from) {
            (Ensure::Absent, None, None, None) => Ok(None),
            (Ensure::Present, Some(content), None, None) => Ok(Some(SensitiveBytes::new(content.as_str()))),
            (Ensure::Present, None, Some(template), None) => Ok(Some(SensitiveBytes::new(self.render(template)?))),
            (Ensure::Present, None, None, Some(from)) => self.content(from).map(Some),
            _ => Err(self.invalid(field, wanted)),
        }
    }
}

/// A number of seconds or the like, which the schema keeps positive.
pub(super) fn positive(number: Option<i32>, default: u32) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0).unwrap_or(default)
}

pub(super) fn is_absolute(path: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\n', '\r']);
    path.strip_prefix('/').is_some_and(|parts| parts.split('/').all(plain))
}

pub(super) fn octal(text: &str) -> Option<u32> {
    let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    digits.then(|| u32::from_str_radix(text, 8).ok())?
}

pub(super) fn is_one_line(text: &str) -> bool {
    !text.contains(['\n', '\r', '\0'])
}

/// What useradd(8) takes, and numbers.
pub(super) fn is_account(name: &str) -> bool {
    is_file_name(name.strip_suffix('$').unwrap_or(name)) && name.len() <= 64
}

pub(super) fn is_file_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= 128 && name.starts_with(word) && name.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}
