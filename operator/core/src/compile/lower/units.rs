//! How texts are written in unit files; see systemd.syntax(7) and systemd.service(5), "Command lines".

/// A line of a unit file in which specifiers are expanded: a `%` is a `%`.
pub(super) fn plain(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word of a command line. Neither specifiers nor variables are expanded in it.
pub(super) fn word(text: &str) -> String {
    quoted(text).replace('%', "%%").replace('$', "$$")
}

/// A value of `Environment=`. Specifiers are expanded there, variables are not.
pub(super) fn variable(name: &str, value: &str) -> String {
    quoted(&format!("{name}={value}")).replace('%', "%%")
}

/// In double quotes, with C escapes.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_word_means_more_than_itself() {
        for (text, written) in [
            ("/bin/sh", r#""/bin/sh""#),
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("100% $HOME", r#""100%% $$HOME""#),
            ("say \"x\\y\"\n", r#""say \"x\\y\"\n""#),
        ] {
            assert_eq!(word(text), written, "{text}");
        }
        assert_eq!(variable("A", "1% $B \"x\""), r#""A=1%% $B \"x\"""#);
    }
}
