//! Whom agents trust, and when masters begin to use a certificate of another authority. Agents are told of an authority before
//! masters use it, and of the one before for as long afterwards: nobody is met by a certificate that he does not know.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// An authority that agents are told to trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// What tells it from others: a digest of its certificate.
    pub id: String,
    /// Its certificate, or several, as PEM.
    pub certificate: String,
    /// Since when agents are told of it.
    pub since: Timestamp,
    /// Since when masters use another one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaced: Option<Timestamp>,
}

/// Whose certificate masters are to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// What tells the authority from others.
    pub id: &'a str,
    /// Its own certificate, or several, as PEM.
    pub certificate: &'a str,
    /// Whether all that agents read names it by now.
    pub is_told: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Whom agents are told to trust from now on.
    pub bundle: Vec<Authority>,
    /// Whether masters may use the candidate's certificate now.
    pub may_serve: bool,
    /// When there is something else to be done.
    pub next: Option<Timestamp>,
}

/// Decides. `known`: whom agents were told to trust. `serving`: whose certificate masters use, if any.
///
/// Times count from what is so, not from what was meant: one who could not write for a while has told nobody anything, and masters
/// use what they were given last.
pub fn trust(
    known: &[Authority],
    serving: Option<&str>,
    candidate: Candidate<'_>,
    overlap: SignedDuration,
    now: Timestamp,
) -> Trust {
    let Candidate { id, certificate, is_told } = candidate;
    let later = |time: Timestamp| time.saturating_add(overlap).unwrap_or(time);
    let mut bundle = known.to_vec();
    match bundle.iter_mut().find(|authority| authority.id == id) {
        Some(authority) if !is_told => authority.since = now,
        Some(_) => {}
        None => {
            let (id, certificate) = (id.to_owned(), certificate.to_owned());
            bundle.push(Authority { id, certificate, since: now, replaced: None });
        }
    }
    let since = bundle.iter().find(|authority| authority.id == id).map_or(now, |authority| authority.since);
    // Where nobody knows the present one, there is nothing to be careful about.
    let is_known = |id: &str| known.iter().any(|authority| authority.id == id);
    let may_serve = serving.is_none_or(|serving| serving == id || !is_known(serving)) || later(since) <= now;
    for authority in &mut bundle {
        let is_wanted = Some(authority.id.as_str()) == serving || authority.id == id;
        authority.replaced = if is_wanted { None } else { authority.replaced.or(Some(now)) };
    }
    bundle.retain(|authority| authority.replaced.is_none_or(|replaced| later(replaced) > now));
    // The time of the present one runs from when the candidate is seen to be used.
    let switch = serving.is_some_and(|serving| serving != id).then(|| if may_serve { now } else { later(since) });
    let next = bundle.iter().filter_map(|authority| authority.replaced.map(later)).chain(switch).min();
    Trust { bundle, may_serve, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAP: SignedDuration = SignedDuration::from_secs(100);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ids(bundle: &[Authority]) -> Vec<&str> {
        bundle.iter().map(|authority| authority.id.as_str()).collect()
    }

    fn step(known: &[Authority], serving: Option<&str>, candidate: &str, now: i64) -> Trust {
        trust(known, serving, Candidate { id: candidate, certificate: "pem", is_told: true }, OVERLAP, at(now))
    }

    #[test]
    fn a_new_authority_is_known_before_it_is_used_and_an_old_one_after() {
        let first = step(&[], None, "a", 0);
        assert_eq!((ids(&first.bundle), first.may_serve, first.next), (vec!["a"], true, None));
        let steady = step(&first.bundle, Some("a"), "a", 10);
        assert_eq!(steady, first);

        let told = step(&steady.bundle, Some("a"), "b", 20);
        assert_eq!((ids(&told.bundle), told.may_serve, told.next), (vec!["a", "b"], false, Some(at(120))));
        let waiting = step(&told.bundle, Some("a"), "b", 119);
        assert_eq!(waiting, told);

        let used = step(&waiting.bundle, Some("a"), "b", 120);
        assert_eq!((ids(&used.bundle), used.may_serve, used.next), (vec!["a", "b"], true, Some(at(120))));
        // The certificate could not be written for a long time: what masters use is known all along.
        let again = step(&used.bundle, Some("a"), "b", 1000);
        assert_eq!((ids(&again.bundle), again.may_serve, again.next), (vec!["a", "b"], true, Some(at(1000))));
        let after = step(&again.bundle, Some("b"), "b", 1001);
        assert_eq!((ids(&after.bundle), after.next), (vec!["a", "b"], Some(at(1101))));
        let still = step(&after.bundle, Some("b"), "b", 1100);
        assert_eq!(still, after);
        let over = step(&still.bundle, Some("b"), "b", 1101);
        assert_eq!((ids(&over.bundle), over.next), (vec!["b"], None));
    }

    #[test]
    fn one_that_is_replaced_before_it_was_used_goes_and_the_present_one_stays() {
        let first = step(&[], None, "a", 0);
        let told = step(&first.bundle, Some("a"), "b", 10);
        let other = step(&told.bundle, Some("a"), "c", 20);
        assert_eq!((ids(&other.bundle), other.may_serve), (vec!["a", "b", "c"], false));
        let later = step(&other.bundle, Some("a"), "c", 119);
        assert!(!later.may_serve && ids(&later.bundle).contains(&"a"));
        let used = step(&later.bundle, Some("a"), "c", 120);
        assert_eq!((ids(&used.bundle), used.may_serve), (vec!["a", "c"], true));
    }

    #[test]
    fn the_time_of_a_new_authority_runs_from_when_agents_can_read_of_it() {
        let first = step(&[], None, "a", 0);
        let told = step(&first.bundle, Some("a"), "b", 10);
        // What agents read could not be written for a long time.
        let candidate = Candidate { id: "b", certificate: "pem", is_told: false };
        let late = trust(&told.bundle, Some("a"), candidate, OVERLAP, at(1000));
        assert_eq!((late.may_serve, late.next), (false, Some(at(1100))));
        assert!(!step(&late.bundle, Some("a"), "b", 1099).may_serve);
        assert!(step(&late.bundle, Some("a"), "b", 1100).may_serve);
    }

    #[test]
    fn back_again_is_no_trouble() {
        let first = step(&[], None, "a", 0);
        let told = step(&first.bundle, Some("a"), "b", 10);
        let back = step(&told.bundle, Some("a"), "a", 20);
        assert!(back.may_serve && ids(&back.bundle) == ["a", "b"]);
        assert_eq!(ids(&step(&back.bundle, Some("a"), "a", 120).bundle), ["a"]);
    }

    #[test]
    fn a_certificate_that_nobody_can_know_is_replaced_at_once() {
        let first = step(&[], Some("lost"), "a", 0);
        assert!(first.may_serve);
    }
}
