//! The note that a machine must reboot: a file in `/run`, which a reboot empties.

use super::{Access, HostError, Tree};

/// One reason a line.
const FILE: &str = "/run/drover-reboot-required";

/// See [`Host::require_reboot`](super::Host::require_reboot).
pub(super) fn require(tree: &Tree, reason: &str) -> Result<(), HostError> {
    let mut reasons = reasons(tree)?;
    let reason = reason.replace('\n', " ");
    if reasons.contains(&reason) {
        return Ok(());
    }
    reasons.push(reason);
    tree.write_file(FILE, (reasons.join("\n") + "\n").as_bytes(), Access { mode: 0o644, user: 0, group: 0 })
}

/// See [`Host::reboot_reasons`](super::Host::reboot_reasons).
pub(super) fn reasons(tree: &Tree) -> Result<Vec<String>, HostError> {
    let text = tree.read_file(FILE)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}
