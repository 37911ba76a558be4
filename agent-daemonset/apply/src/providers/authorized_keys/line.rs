//! One line of an `authorized_keys` file: options, type, key, comment; see sshd(8).

use std::fmt;

/// A key. Two are the same when type and base64 are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// Separated by commas; empty where there are none. They may hold spaces between double quotes.
    pub(super) options: &'a str,
    /// Such as `ssh-ed25519`.
    pub(super) kind: &'a str,
    pub(super) base64: &'a str,
    /// Whatever comes after.
    pub(super) comment: &'a str,
}

impl<'a> Key<'a> {
    /// Reads a line. `None` where it is empty, a comment or no key.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') || line.contains(['\n', '\r', '\0']) {
            return None;
        }
        // As sshd does: a line that does not begin with a type begins with options.
        Self::after_options(line, "").or_else(|| {
            let (options, rest) = line.split_at(end_of_options(line)?);
            Self::after_options(rest.trim_start(), options)
        })
    }

    fn after_options(line: &'a str, options: &'a str) -> Option<Self> {
        let (kind, rest) = split_word(line);
        let (base64, comment) = split_word(rest);
        (is_kind(kind) && is_base64(base64)).then_some(Self { options, kind, base64, comment })
    }

    /// Whether both let the same key in.
    pub(super) fn is_same_key(&self, other: &Self) -> bool {
        (self.kind, self.base64) == (other.kind, other.base64)
    }

    /// The whole line, with single spaces.
    pub(super) fn line(&self) -> String {
        let words = [self.options, self.kind, self.base64, self.comment];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// For people: the type, and the comment or else the end of the key. Not the options, which hold commands.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comment: String = self.comment.chars().filter(|c| !c.is_control()).take(60).collect();
        if comment.is_empty() {
            let end = self.base64.len().saturating_sub(12);
            return write!(f, "{} ...{}", self.kind, self.base64.get(end..).unwrap_or_default());
        }
        write!(f, "{} {comment}", self.kind)
    }
}

/// The next word, and what comes after the white space behind it.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim())
}

/// Where the options end: at the first white space outside double quotes, in which `\"` is no end.
fn end_of_options(line: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return Some(at),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// The types of `ssh -Q key`, and those to come: they have these beginnings.
fn is_kind(word: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '@' | '.' | '_');
    ["ssh-", "ecdsa-", "sk-", "rsa-", "webauthn-"].iter().any(|kind| word.starts_with(kind)) && word.chars().all(fits)
}

fn is_base64(word: &str) -> bool {
    let digits = word.trim_end_matches('=');
    digits.len() >= 16 && digits.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA";

    #[track_caller]
    fn check(line: &str, expected: Option<(&str, &str, &str)>) {
        let found = Key::parse(line);
        assert_eq!(found.map(|key| (key.options, key.kind, key.comment)), expected, "{line}");
        if let Some(key) = found {
            assert_eq!(Key::parse(&key.line()), Some(key), "{line}");
        }
    }

    #[test]
    fn reads_lines_as_sshd_does() {
        check(&format!("ssh-ed25519 {KEY}"), Some(("", "ssh-ed25519", "")));
        check(
            &format!("  ssh-ed25519\t{KEY}  anna@home, her laptop "),
            Some(("", "ssh-ed25519", "anna@home, her laptop")),
        );
        check(
            &format!("no-pty,no-X11-forwarding ssh-rsa {KEY}== a"),
            Some(("no-pty,no-X11-forwarding", "ssh-rsa", "a")),
        );
        let command = r#"command="echo \"a b\", ssh-rsa x",from="10.0.0.0/8,!10.1.1.1""#;
        check(&format!("{command} ecdsa-sha2-nistp256 {KEY} b"), Some((command, "ecdsa-sha2-nistp256", "b")));
        check(&format!("sk-ssh-ed25519@openssh.com {KEY}"), Some(("", "sk-ssh-ed25519@openssh.com", "")));
        check("", None);
        check(&format!("# ssh-rsa {KEY}"), None);
        check("ssh-rsa", None);
        check("ssh-rsa short", None);
        check("no key at all", None);
        check(&format!("command=\"unclosed ssh-rsa {KEY}"), None);
        check(&format!("ssh-rsa {KEY} a\nssh-rsa {KEY} b"), None);
        check("-----BEGIN OPENSSH PRIVATE KEY-----", None);
    }

    #[test]
    fn a_key_is_named_without_its_options() {
        for (line, name) in [
            (format!("command=\"hunter2\" ssh-rsa {KEY} anna"), "ssh-rsa anna"),
            (format!("ssh-rsa {KEY}"), "ssh-rsa ...I1NTE5AAAAIA"),
        ] {
            assert_eq!(Key::parse(&line).unwrap().to_string(), name);
        }
    }
}
