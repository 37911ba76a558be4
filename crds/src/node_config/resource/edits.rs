//! Parts of files whose rest belongs to somebody else.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{Ensure, formats};

/// One line of a file. The rest of the file, its owner and its mode stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.insertAfter), has(self.insertBefore), has(self.atBeginning)].filter(x, x).size() <= 1",
    "a line has at most one of insertAfter, insertBefore and atBeginning"
))]
#[x_kube(validation = (
    "has(self.line) || (has(self.ensure) && self.ensure == 'Absent' && has(self.matching))",
    "a line says what it is in line; only one that is Absent may have matching alone"
))]
pub struct Line {
    /// The file: absolute. A symbolic link is an error.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// The line, without its end.
    #[schemars(schema_with = "formats::line")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<String>,
    /// A regular expression (Rust's `regex`) that finds the line to replace; it must match `line` as well. Several matches
    /// are an error, unless all are as they must be. With `ensure: Absent` all matches go. Left out: the line itself.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub matching: Option<String>,
    /// A new line goes after the last one that matches this regular expression; else to the end.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub insert_after: Option<String>,
    /// A new line goes before the first one that matches this regular expression; else to the end.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub insert_before: Option<String>,
    /// A new line goes to the beginning of the file. Left out: to the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at_beginning: Option<bool>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Make the file when it is not there; else that is an error. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub create: Option<bool>,
    /// Permission bits of a file that is made, in octal. Left out: `"0644"`.
    #[schemars(schema_with = "formats::mode")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// The owner of a file that is made. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// The group of a file that is made. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// A command that must succeed before the new content takes the file's place; `%` stands for the path of the new content.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validate: Option<Vec<String>>,
}

/// Lines of a file between two marker lines. The rest of the file, its owner and its mode stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.ensure) && self.ensure == 'Absent' ? !has(self.content) && !has(self.template) : has(self.content) != has(self.template)",
    "a block has either content or template; to remove a block write ensure: Absent and neither of them"
))]
pub struct Block {
    /// The file: absolute. A symbolic link is an error.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// The lines.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content: Option<String>,
    /// The lines as a Jinja template; see `file.template`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub template: Option<String>,
    /// What begins a comment in this file: the marker lines are made of it. Left out: `#`.
    #[schemars(length(max = 16), regex(pattern = r"^[^\s]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comment: Option<String>,
    /// A new block goes after the last line that matches this regular expression. Left out: to the end.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub insert_after: Option<String>,
    /// Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Make the file when it is not there; else that is an error. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub create: Option<bool>,
    /// Permission bits of a file that is made, in octal. Left out: `"0644"`.
    #[schemars(schema_with = "formats::mode")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// The owner of a file that is made. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// The group of a file that is made. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// A command that must succeed before the new content takes the file's place; `%` stands for the path of the new content.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validate: Option<Vec<String>>,
}

/// One setting of an INI file. The rest of the file, its owner and its mode stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.value) != (has(self.ensure) && self.ensure == 'Absent')",
    "a setting has a value; to remove one write ensure: Absent and no value"
))]
pub struct Ini {
    /// The file: absolute. A symbolic link is an error.
    #[schemars(schema_with = "formats::path")]
    pub path: String,
    /// The section, without brackets. Left out: before the first section.
    #[schemars(length(max = 255), regex(pattern = r"^[^\]\r\n]+$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub section: Option<String>,
    /// The key.
    #[schemars(length(max = 255), regex(pattern = r"^[^=\[;#\s]([^=\r\n]*[^=\s])?$|\{\{"))]
    pub key: String,
    /// Its value.
    #[schemars(length(max = 1024), regex(pattern = r"^[^\r\n\x00]*$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// What stands between key and value in a new line. Left out: ` = `.
    #[schemars(length(max = 8), regex(pattern = r"^[ \t]*[=:]?[ \t]*$|\{\{"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub separator: Option<String>,
    /// A section that is left empty stays. Left out: `Present`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ensure: Option<Ensure>,
    /// Make the file when it is not there; else that is an error. Left out: false.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub create: Option<bool>,
    /// Permission bits of a file that is made, in octal. Left out: `"0644"`.
    #[schemars(schema_with = "formats::mode")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// The owner of a file that is made. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// The group of a file that is made. Left out: `root`.
    #[schemars(schema_with = "formats::account")]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    /// A command that must succeed before the new content takes the file's place; `%` stands for the path of the new content.
    #[schemars(length(min = 1, max = 128))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub validate: Option<Vec<String>>,
}
