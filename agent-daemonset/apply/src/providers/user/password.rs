//! The password field of shadow(5): a hash as crypt(5) writes it; locked by a leading `!`; or something that is no hash
//! (`*`), and lets nobody in by a password.

use std::fmt;

use drover_catalog::Sensitive;

use super::{Change, ProviderError};

/// A password field. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(Sensitive);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Password {
    pub(super) fn new(field: &str) -> Self {
        Self(Sensitive::new(field))
    }

    /// The field itself, for chpasswd's standard input.
    pub(super) fn expose(&self) -> &str {
        self.0.expose()
    }

    fn is_locked(&self) -> bool {
        self.expose().starts_with('!')
    }

    fn hash(&self) -> &str {
        self.expose().trim_start_matches('!')
    }
}

/// The field of a new account, where it must be another than useradd makes it: locked, and with no hash.
pub(super) fn of_new_account(
    hash: Option<&Sensitive>,
    locked: Option<bool>,
) -> Result<Option<Password>, ProviderError> {
    match (hash, locked) {
        (Some(hash), locked) => Ok(Some(field(checked(hash)?, locked.unwrap_or_default()))),
        (None, Some(false)) => Err(nothing_to_unlock()),
        (None, Some(true) | None) => Ok(None),
    }
}

/// What must change about the field of an account.
pub(super) fn change(
    found: &Password,
    hash: Option<&Sensitive>,
    locked: Option<bool>,
) -> Result<Option<Change>, ProviderError> {
    if let Some(hash) = hash {
        let hash = checked(hash)?;
        if hash != found.hash() {
            // The lock of an account that never had a password is useradd's, and nobody's wish.
            let locked = locked.unwrap_or(found.is_locked() && !matches!(found.hash(), "" | "*"));
            // Both at once: a locked account is at no moment open.
            return Ok(Some(Change::Password(field(hash, locked))));
        }
    }
    let locked = locked.unwrap_or(found.is_locked());
    if locked == found.is_locked() {
        return Ok(None);
    }
    if !locked && found.hash().is_empty() {
        return Err(nothing_to_unlock());
    }
    Ok(Some(Change::Locked(locked)))
}

fn field(hash: &str, locked: bool) -> Password {
    Password::new(&format!("{}{hash}", if locked { "!" } else { "" }))
}

fn nothing_to_unlock() -> ProviderError {
    let why = "it has no password, and unlocked it would let everybody in; give it a passwordHash too";
    ProviderError::Refused(format!("its password can not be unlocked: {why}"))
}

/// Refuses what is no field: it would break the file, or be a password in clear text, which lets nobody in.
fn checked(hash: &Sensitive) -> Result<&str, ProviderError> {
    let hash = hash.expose();
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, ':' | ';' | '!' | '\\');
    let is_hash = hash == "*" || hash.starts_with(['$', '_']) || hash.len() == 13;
    if is_hash && hash.chars().all(fits) {
        return Ok(hash);
    }
    let advice = "make one with `openssl passwd -6` or `mkpasswd`; to lock the password, say so by `locked`";
    Err(ProviderError::Refused(format!("its passwordHash is no hash as crypt(5) writes it; {advice}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "$6$salt$old";
    const NEW: &str = "$6$salt$new";

    /// The change by its words, and the field that it sets.
    fn told(found: &str, hash: Option<&str>, locked: Option<bool>) -> String {
        match change(&Password::new(found), hash.map(Sensitive::new).as_ref(), locked) {
            Ok(None) => String::new(),
            Ok(Some(change @ Change::Password(_))) => {
                let Change::Password(field) = &change else { return String::new() };
                format!("{change} {}", field.expose())
            }
            Ok(Some(change)) => change.to_string(),
            Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn the_hash_and_the_lock_are_two_things() {
        let locked_old = format!("!{OLD}");
        for (found, hash, locked, expected) in [
            (OLD, None, None, ""),
            (OLD, Some(OLD), None, ""),
            (OLD, Some(OLD), Some(false), ""),
            (OLD, Some(NEW), None, "password set $6$salt$new"),
            (OLD, Some(NEW), Some(true), "password set !$6$salt$new"),
            (OLD, Some(OLD), Some(true), "password locked"),
            (OLD, None, Some(true), "password locked"),
            (&locked_old, None, None, ""),
            (&locked_old, Some(OLD), None, ""),
            (&locked_old, Some(OLD), Some(true), ""),
            (&locked_old, Some(NEW), None, "password set !$6$salt$new"),
            (&locked_old, Some(NEW), Some(false), "password set $6$salt$new"),
            (&locked_old, None, Some(false), "password unlocked"),
            // As useradd leaves it, where chpasswd did not run any more: it never had a password.
            ("!", None, None, ""),
            ("!", Some(NEW), None, "password set $6$salt$new"),
            ("!!", Some(NEW), None, "password set $6$salt$new"),
            ("*", Some(NEW), None, "password set $6$salt$new"),
            ("!*", Some(NEW), None, "password set $6$salt$new"),
            ("!", Some(NEW), Some(true), "password set !$6$salt$new"),
            ("!", None, Some(true), ""),
            ("!!", Some(NEW), Some(false), "password set $6$salt$new"),
            ("!", None, Some(false), "refused"),
            ("!*", Some("*"), None, ""),
            ("*", None, Some(false), ""),
        ] {
            assert_eq!(told(found, hash, locked), expected, "{found} {hash:?} {locked:?}");
        }
    }

    #[test]
    fn a_clear_text_or_a_broken_line_is_refused_and_not_shown() {
        for hash in ["", "hunter2", "$6$a:b", "$6$a\nroot::0", "!", "!$6$x", "$6$a b"] {
            let error = checked(&Sensitive::new(hash)).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        for hash in ["$6$rounds=5000$salt$aB./9", "*", "_J9..rasmBYk8r9AiWNc", "abJnggxhB/yWI", "$y$j9T$a$b"] {
            assert!(checked(&Sensitive::new(hash)).is_ok(), "{hash}");
        }
        assert!(!format!("{:?}", Change::Password(Password::new(NEW))).contains("salt"));
    }

    #[test]
    fn a_new_account_is_locked_until_a_hash_is_given() {
        let new = |hash: Option<&str>, locked| {
            of_new_account(hash.map(Sensitive::new).as_ref(), locked).map(|field| field.map(|p| p.expose().to_owned()))
        };
        assert_eq!(new(None, None).unwrap(), None);
        assert_eq!(new(None, Some(true)).unwrap(), None);
        assert!(new(None, Some(false)).is_err());
        assert_eq!(new(Some(NEW), None).unwrap().as_deref(), Some(NEW));
        assert_eq!(new(Some(NEW), Some(true)).unwrap().as_deref(), Some("!$6$salt$new"));
    }
}
