//! Windows on the time line: when one is open, until when, and when it opens next.
//!
//! A recurring window is open from each start of its cron expression for as long as it says, in time that really passes.
//! What becomes of a start in the hour that a change of the clock leaves out, or repeats, is croner's rule: a start at a
//! fixed hour and minute comes once, after the gap or at the first of the two; a start with a `*` there follows the clock.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use drover_crds::{Window, WindowKind};
use jiff::{
    SignedDuration, Timestamp, Zoned,
    tz::{TimeZone, TimeZoneDatabase},
};

/// How many starts and ends are followed to find when it opens or closes: a bound for windows that follow each other
/// without a break, such as one of an hour at each hour.
const MOST_CHANGES: usize = 256;

/// Windows that were understood.
#[derive(Debug)]
pub(crate) struct Calendar {
    windows: Vec<Span>,
}

/// What is so at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Machines may be begun.
    Open {
        /// When that ends; absent when no end is in sight.
        until: Option<Timestamp>,
        /// How long it is open from the start on, as far as that can be told.
        length: Option<SignedDuration>,
    },
    /// They may not.
    Closed {
        /// When it closed, as far as that can be told.
        since: Option<Timestamp>,
        /// When it opens; absent when no opening is in sight.
        until: Option<Timestamp>,
        /// A window that denies is open. Else none that allows is.
        denied: bool,
        /// In words: until when, and why.
        message: String,
    },
}

#[derive(Debug)]
struct Span {
    kind: WindowKind,
    reason: Option<String>,
    times: Times,
}

#[derive(Debug)]
enum Times {
    Recurring { cron: Box<Cron>, zone: TimeZone, duration: SignedDuration },
    Once { from: Timestamp, to: Timestamp },
}

impl Calendar {
    /// Reads the windows. The error names the first that can not be understood, as `windows[2]`, says what is wrong with it
    /// and what to write.
    pub(crate) fn of(windows: &[Window], now: Timestamp) -> Result<Self, String> {
        let read = |(index, window): (usize, &Window)| {
            span(window, now).map_err(|why| format!("windows[{index}] can not be understood: {why}"))
        };
        Ok(Self { windows: windows.iter().enumerate().map(read).collect::<Result<_, _>>()? })
    }

    /// What is so at this moment.
    pub(crate) fn at(&self, now: Timestamp) -> At {
        let until = self.next_change(now);
        let spans = |kind| self.windows.iter().filter(move |span| span.kind == kind);
        let denied = spans(WindowKind::Deny).filter_map(|span| Some((span, span.at(now)?)));
        if let Some((span, (from, to))) = denied.max_by_key(|(_, (_, to))| *to) {
            let reason = span.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            let opens = match until {
                Some(until) if until == to => String::new(),
                until => format!("; {}", self.opens(until)),
            };
            let message = format!("frozen until {}{reason}{opens}", self.moment(to));
            return At::Closed { since: Some(from), until, denied: true, message };
        }
        let allowed = spans(WindowKind::Allow).filter_map(|span| span.at(now)).map(|(from, _)| from).min();
        if allowed.is_some() || spans(WindowKind::Allow).next().is_none() {
            let thawed = spans(WindowKind::Deny).filter_map(|span| span.last_end(now)).max();
            let since = thawed.max(allowed);
            return At::Open { until, length: until.zip(since).map(|(until, since)| until.duration_since(since)) };
        }
        let since = spans(WindowKind::Allow).filter_map(|span| span.last_end(now)).max();
        let message = format!("outside its windows; {}", self.opens(until));
        At::Closed { since, until, denied: false, message }
    }

    /// When it opens next, in words.
    pub(crate) fn opens(&self, at: Option<Timestamp>) -> String {
        at.map_or_else(|| "none opens again".to_owned(), |at| format!("opens {}", self.moment(at)))
    }

    /// A moment to the minute, in the time zone of the first window that has one.
    pub(crate) fn moment(&self, at: Timestamp) -> String {
        let zone = self.windows.iter().find_map(|span| match &span.times {
            Times::Recurring { zone, .. } => Some(zone),
            Times::Once { .. } => None,
        });
        match zone.filter(|zone| zone.iana_name().is_some_and(|name| name != "UTC")) {
            Some(zone) => {
                let name = zone.iana_name().unwrap_or_default();
                format!("{} {name}", at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M%:z"))
            }
            None => at.strftime("%Y-%m-%dT%H:%MZ").to_string(),
        }
    }

    fn is_open(&self, at: Timestamp) -> bool {
        let is = |kind| self.windows.iter().any(|span| span.kind == kind && span.at(at).is_some());
        let unless_allowed = self.windows.iter().all(|span| span.kind == WindowKind::Deny);
        !is(WindowKind::Deny) && (unless_allowed || is(WindowKind::Allow))
    }

    /// When it opens or closes next.
    fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let is_open = self.is_open(now);
        let mut at = now;
        for _ in 0..MOST_CHANGES {
            at = self.windows.iter().filter_map(|span| span.next_edge(at)).min()?;
            if self.is_open(at) != is_open {
                return Some(at);
            }
        }
        None
    }
}

impl Span {
    /// From when to when it is open, if it is open at this moment.
    fn at(&self, at: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let (from, to) = match &self.times {
            Times::Recurring { duration, .. } => {
                let from = self.last_start(at)?;
                (from, from.checked_add(*duration).ok()?)
            }
            Times::Once { from, to } => (*from, *to),
        };
        (from <= at && at < to).then_some((from, to))
    }

    fn last_start(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.times {
            Times::Recurring { cron, zone, .. } => {
                let found = cron.find_previous_occurrence(&clock(at, zone), true).ok()?;
                Some(found.timestamp())
            }
            Times::Once { from, .. } => (*from <= at).then_some(*from),
        }
    }

    /// When it last ended before this moment.
    fn last_end(&self, at: Timestamp) -> Option<Timestamp> {
        let end = match &self.times {
            Times::Recurring { duration, .. } => self.last_start(at)?.checked_add(*duration).ok()?,
            Times::Once { to, .. } => *to,
        };
        (end <= at).then_some(end)
    }

    /// When it starts or ends next after this moment.
    fn next_edge(&self, at: Timestamp) -> Option<Timestamp> {
        let end = self.at(at).map(|(_, to)| to);
        let start = match &self.times {
            Times::Recurring { cron, zone, .. } => {
                cron.find_next_occurrence(&clock(at, zone), false).ok().map(|found| found.timestamp())
            }
            Times::Once { from, .. } => Some(*from).filter(|from| *from > at),
        };
        [start, end].into_iter().flatten().filter(|edge| *edge > at).min()
    }
}

/// What the clock shows there, to the second: cron knows nothing smaller.
fn clock(at: Timestamp, zone: &TimeZone) -> Zoned {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_zoned(zone.clone())
}

fn span(window: &Window, now: Timestamp) -> Result<Span, String> {
    let times = match (&window.schedule, &window.from, &window.to) {
        (Some(schedule), None, None) => {
            let cron = cron(schedule)?;
            let name = window.resolved_time_zone();
            // The bundled ones: the answer must not depend on the machine.
            let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| {
                format!("{name} is no time zone that is known; write an IANA name such as Europe/Berlin")
            })?;
            if cron.find_next_occurrence(&clock(now, &zone), false).is_err() {
                return Err(format!("{schedule:?} never comes; write a schedule that has a day in the calendar"));
            }
            let duration = SignedDuration::from_secs(i64::from(window.resolved_duration_seconds()));
            if !duration.is_positive() {
                return Err("it has no durationSeconds; write how long it is open from each start".to_owned());
            }
            Times::Recurring { cron: Box::new(cron), zone, duration }
        }
        (None, Some(from), Some(to)) if from.0 < to.0 => Times::Once { from: from.0, to: to.0 },
        (None, Some(_), Some(_)) => return Err("from is not before to".to_owned()),
        _ => return Err("write either schedule and durationSeconds, or from and to".to_owned()),
    };
    Ok(Span { kind: window.kind, reason: window.reason.clone(), times })
}

fn cron(schedule: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(schedule).map_err(|error| {
        format!("{schedule:?} is no cron expression: {error}; write minute, hour, day of month, month and day of week")
    })
}

#[cfg(test)]
mod tests;
