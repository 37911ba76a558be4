//! The public host keys of sshd; see the section on formats in sshd(8).

use std::collections::BTreeMap;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use drover_catalog::facts::{SshFingerprints, SshKey};
use sha2::{Digest as _, Sha256};

use super::Files;

/// The algorithms whose keys are looked for: the names of the files that sshd has by default.
const ALGORITHMS: [&str; 3] = ["rsa", "ecdsa", "ed25519"];

pub(super) fn gather(files: &Files) -> BTreeMap<String, SshKey> {
    let key = |algorithm| parse(&files.text(&format!("/etc/ssh/ssh_host_{algorithm}_key.pub")));
    ALGORITHMS.into_iter().filter_map(|algorithm| Some((algorithm.to_owned(), key(algorithm)?))).collect()
}

/// `TYPE BASE64 COMMENT`; the fingerprint is the SHA-256 of what the base64 stands for (RFC 4253, section 6.6).
fn parse(line: &str) -> Option<SshKey> {
    let mut words = line.split_whitespace();
    let (r#type, key) = (words.next()?, words.next()?);
    let digest = Sha256::digest(BASE64_STANDARD.decode(key).ok()?);
    let sha256 = format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(digest));
    Some(SshKey { r#type: r#type.to_owned(), key: key.to_owned(), fingerprints: SshFingerprints { sha256 } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::machine;

    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        // Made with `ssh-keygen -t ed25519`; the fingerprint is what `ssh-keygen -lf` says.
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK38ejUAnjCnQY1BL4OSUKcl5TgTWNQSkO33gOkB0reL root@example";
        let (_root, files) = machine(&[
            ("/etc/ssh/ssh_host_ed25519_key.pub", line),
            ("/etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa not*base64 root@x"),
            ("/etc/ssh/ssh_host_ecdsa_key.pub", ""),
        ]);
        let keys = gather(&files);
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["ed25519"]);
        let key = &keys["ed25519"];
        assert_eq!(key.r#type, "ssh-ed25519");
        assert_eq!(key.fingerprints.sha256, "SHA256:oBHcSmMVht/z95HdFqJkbNcY3UjUDgnG8NmdUUtddEo");
    }
}
