//! Conditions by the contract of kstatus: `Ready`, `Reconciling` and `Stalled` on every kind, the kind's own beside them.
//!
//! `Stalled=True` means that nothing goes on without a change or a person; `Reconciling=True` that work is under way.
//! Each carries the generation it speaks of, and its transition time changes with its status only.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The object is as it should be, all of it.
pub const READY: &str = "Ready";
/// Work is under way.
pub const RECONCILING: &str = "Reconciling";
/// Nothing goes on without a change or a person.
pub const STALLED: &str = "Stalled";

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is being worked on, or not known.
    Unknown,
}

impl Status {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Sets one condition in place. The transition time moves with the status only. The list stays sorted by type, so that
/// equal states are equal bytes.
pub fn set(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: Status,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let message = message.into();
    if let Some(condition) = conditions.iter_mut().find(|c| c.type_ == type_) {
        if condition.status != status.as_str() {
            condition.last_transition_time = Time(now);
            status.as_str().clone_into(&mut condition.status);
        }
        reason.clone_into(&mut condition.reason);
        condition.message = message;
        condition.observed_generation = generation;
        return;
    }
    conditions.push(Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    });
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

/// Takes a condition away, if it is there.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// The condition of this type, if it is there.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition of this type is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|c| c.status == "True")
}

/// What [`summarise`] says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    /// Done: `Ready=True`.
    Ready,
    /// Under way: `Ready=Unknown`, `Reconciling=True`.
    Working,
    /// Waits for a person or a change: `Ready=False`, `Stalled=True`.
    Stalled,
    /// Waits for a person by their own wish (paused): `Ready=False`, neither stalled nor reconciling.
    Waiting,
}

/// Sets `Ready`, `Reconciling` and `Stalled` together, so that they never contradict each other.
pub fn summarise(
    conditions: &mut Vec<Condition>,
    summary: Summary,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let ready = match summary {
        Summary::Ready => Status::True,
        Summary::Working => Status::Unknown,
        Summary::Stalled | Summary::Waiting => Status::False,
    };
    set(conditions, READY, ready, reason, message, generation, now);
    for (type_, holds) in [(RECONCILING, summary == Summary::Working), (STALLED, summary == Summary::Stalled)] {
        if holds {
            set(conditions, type_, Status::True, reason, message, generation, now);
        } else {
            remove(conditions, type_);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let mut conditions = vec![];
        set(&mut conditions, READY, Status::False, "Waiting", "a", Some(1), at(1));
        set(&mut conditions, READY, Status::False, "StillWaiting", "b", Some(2), at(2));
        assert_eq!(conditions[0].last_transition_time, Time(at(1)));
        assert_eq!(conditions[0].reason, "StillWaiting");
        set(&mut conditions, READY, Status::True, "Done", "", Some(2), at(3));
        assert_eq!(conditions[0].last_transition_time, Time(at(3)));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_summary_never_contradicts_itself() {
        let mut conditions = vec![];
        for (summary, ready, reconciling, stalled) in [
            (Summary::Working, "Unknown", true, false),
            (Summary::Stalled, "False", false, true),
            (Summary::Waiting, "False", false, false),
            (Summary::Ready, "True", false, false),
        ] {
            summarise(&mut conditions, summary, "R", "m", Some(1), at(1));
            assert_eq!(find(&conditions, READY).unwrap().status, ready);
            assert_eq!(is_true(&conditions, RECONCILING), reconciling);
            assert_eq!(is_true(&conditions, STALLED), stalled);
        }
    }
}
