//! Whether a catalog may be applied to this machine: it is whole, it is for this host, and it is not a step back.
//!
//! Masters are equal and may be of different minds for a moment, so a stale answer is normal; it must only do no harm.

use drover_catalog::Catalog;
use thiserror::Error;

/// What an acceptable catalog is, beside the one at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// The very same.
    Same,
    /// Another for the same host, or the first one.
    New,
    /// One for a host of the same name that was made again; its generations start anew.
    NewHost,
}

/// Why a catalog is refused.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    /// The digest does not fit the rest.
    #[error("its digest does not fit its content: it was changed on the way, or by hand")]
    Damaged,
    /// It is for another host.
    #[error(
        "it is for host {found}, and this is {expected}; if this machine was cloned or renamed, \
         remove the state folder"
    )]
    OtherHost {
        /// Who it is for.
        found: String,
        /// Who this is.
        expected: String,
    },
    /// It is older than the one at hand.
    #[error("its generation is {found}, and this host is at {current} already: the master is behind")]
    Older {
        /// Its generation.
        found: i64,
        /// The generation at hand.
        current: i64,
    },
    /// It contradicts the one at hand.
    #[error("it assigns other revisions under generation {generation}, which each change of assignment must raise")]
    Contradicts {
        /// The generation of both.
        generation: i64,
    },
}

/// Judges a catalog beside the one at hand and the name of this host, where they are known.
pub(crate) fn admit(
    offered: &Catalog,
    current: Option<&Catalog>,
    host_name: Option<&str>,
) -> Result<Admitted, Refusal> {
    if !offered.is_intact() {
        return Err(Refusal::Damaged);
    }
    if let Some(expected) = host_name.or(current.map(|catalog| catalog.host.name.as_str()))
        && offered.host.name != expected
    {
        return Err(Refusal::OtherHost { found: offered.host.name.clone(), expected: expected.to_owned() });
    }
    let Some(current) = current else {
        return Ok(Admitted::New);
    };
    if offered.host != current.host {
        return Ok(Admitted::NewHost);
    }
    if offered.generation < current.generation {
        return Err(Refusal::Older { found: offered.generation, current: current.generation });
    }
    if offered.generation == current.generation && offered.revisions != current.revisions {
        return Err(Refusal::Contradicts { generation: offered.generation });
    }
    // Facts may change a catalog under the same assignment.
    Ok(if offered.digest == current.digest { Admitted::Same } else { Admitted::New })
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Digest, HostIdentity, RevisionRef};

    use super::*;

    fn catalog(uid: &str, generation: i64, revision: &str, interval_seconds: u32) -> Catalog {
        Catalog {
            host: HostIdentity { name: "node-1".into(), uid: uid.into() },
            generation,
            revisions: vec![RevisionRef { node_config: "base".into(), revision: revision.into() }],
            interval_seconds,
            resources: vec![],
            reboot: None,
            commands: vec![],
            digest: Digest::of(b""),
        }
        .seal()
        .unwrap()
    }

    #[test]
    fn refuses_a_step_back() {
        let current = catalog("u1", 5, "base-b", 60);
        for (offered, expected) in [
            (catalog("u1", 5, "base-b", 60), Ok(Admitted::Same)),
            (catalog("u1", 5, "base-b", 90), Ok(Admitted::New)),
            (catalog("u1", 6, "base-a", 60), Ok(Admitted::New)),
            (catalog("u1", 4, "base-a", 60), Err(Refusal::Older { found: 4, current: 5 })),
            (catalog("u1", 4, "base-b", 60), Err(Refusal::Older { found: 4, current: 5 })),
            (catalog("u1", 5, "base-a", 60), Err(Refusal::Contradicts { generation: 5 })),
            (catalog("u2", 1, "base-a", 60), Ok(Admitted::NewHost)),
        ] {
            assert_eq!(admit(&offered, Some(&current), None), expected, "{offered:?}");
        }
    }

    #[test]
    fn refuses_what_was_changed_or_is_for_another() {
        let whole = catalog("u1", 5, "base-b", 60);
        let forged = Catalog { generation: 9, ..whole.clone() };
        assert_eq!(admit(&forged, None, None), Err(Refusal::Damaged));
        let other = || Err(Refusal::OtherHost { found: "node-1".into(), expected: "node-2".into() });
        assert_eq!(admit(&whole, None, Some("node-2")), other());
        let mut clone = whole.clone();
        clone.host.name = "node-2".into();
        assert_eq!(admit(&whole, Some(&clone.seal().unwrap()), None), other());
        assert_eq!(admit(&whole, None, Some("node-1")), Ok(Admitted::New));
    }
}
