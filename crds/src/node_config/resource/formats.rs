//! How strings of several types must look. A string with `{{` in it may be a template still (`render`); what comes out of
//! it is looked at when it is compiled, as everything here is once more.

use schemars::{Schema, SchemaGenerator, json_schema};

/// An absolute path that has one spelling. Shorter than the kernel's limit of 4096, because the API server estimates what
/// a rule costs by the longest string that it may see.
pub(super) fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 1024,
        "x-kubernetes-validations": [{
            "rule": r"self.contains('{{') || self.matches(r'^(/[^/\x00]+)+$') && !self.matches(r'/\.\.?(/|$)')",
            "message": "write an absolute path, without . and .. parts and without a slash at its end",
        }],
    })
}

/// Permission bits.
pub(super) fn mode(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 64,
        "x-kubernetes-validations": [{
            "rule": "self.contains('{{') || self.matches('^[0-7]{3,4}$')",
            "message": "write the permission bits as a string of three or four octal digits, such as \"0644\"",
        }],
    })
}

/// A user or a group, by name or number.
pub(super) fn account(_: &mut SchemaGenerator) -> Schema {
    text(64, r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$")
}

/// A name that becomes the name of a file.
pub(super) fn file_name(_: &mut SchemaGenerator) -> Schema {
    text(128, "^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
}

/// A systemd unit with its suffix.
pub(super) fn unit(_: &mut SchemaGenerator) -> Schema {
    text(255, r"^[A-Za-z0-9:_.\\@-]+\.(automount|device|mount|path|scope|service|slice|socket|swap|target|timer)$")
}

/// A URL that an agent can fetch.
pub(super) fn url(_: &mut SchemaGenerator) -> Schema {
    text(2048, r"^(https?|file)://[^\s]+$")
}

/// A SHA-256 in hexadecimal.
pub(super) fn sha256(_: &mut SchemaGenerator) -> Schema {
    text(64, "^[0-9a-f]{64}$")
}

/// A text on one line.
pub(super) fn line(_: &mut SchemaGenerator) -> Schema {
    text(1024, r"^[^\r\n\x00]+$")
}

fn text(length: u32, pattern: &str) -> Schema {
    json_schema!({"type": "string", "maxLength": length, "pattern": format!(r"{pattern}|\{{\{{")})
}
