//! Jobs of cron, whose times are checked here: cron itself leaves out a file with a mistake, and says so in a log only.

use drover_catalog::{Part, SensitiveBytes};
use drover_crds::{Cron, Ensure};

use super::{
    Made,
    files::owned_by_root,
    scope::Scope,
    services::{VARIABLE, is_variable},
};
use crate::compile::CompileError;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const NICKNAMES: [&str; 8] =
    ["@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const FIVE: &str = "must be five fields, `minute hour day-of-month month day-of-week`, or one of @reboot, @hourly, \
                    @daily, @weekly, @monthly and @yearly";

/// What one of the five fields may hold, by crontab(5), and what is said when it does not.
struct Field {
    first: u32,
    last: u32,
    /// Names of the numbers from `first` on.
    names: &'static [&'static str],
    wanted: &'static str,
}

const FIELDS: [Field; 5] = [
    Field {
        first: 0,
        last: 59,
        names: &[],
        wanted: "must begin with minutes from 0 to 59: *, a number, a range such as 1-5, a step such as */5, or a list of these",
    },
    Field {
        first: 0,
        last: 23,
        names: &[],
        wanted: "must have hours from 0 to 23 as its second field: *, a number, a range, a step or a list",
    },
    Field {
        first: 1,
        last: 31,
        names: &[],
        wanted: "must have days from 1 to 31 as its third field: *, a number, a range, a step or a list",
    },
    Field {
        first: 1,
        last: 12,
        names: MONTHS,
        wanted: "must have months from 1 to 12 as its fourth field: *, a number, a range, a step, a list, or one name such as jan",
    },
    Field {
        first: 0,
        last: 7,
        names: DAYS,
        wanted: "must have days of the week from 0 to 7 as its fifth field, where 0 and 7 are Sunday: *, a number, a range, a step, a list, or one name such as mon",
    },
];

/// A file of `/etc/cron.d`.
pub(super) fn cron(spec: &Cron, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Cron { name, schedule, user, command, environment, ensure } = spec;
    let wanted = "must be a name of letters, digits, - and _; cron ignores files with other names";
    let name = scope.named("cron.name", name.as_ref(), is_cron_name, wanted)?;
    let path = format!("/etc/cron.d/{name}");
    if *ensure == Some(Ensure::Absent) {
        return Ok(Part::File(owned_by_root(path, None, 0o644)).into());
    }
    let wanted = "must be given, or ensure be Absent";
    let schedule = schedule.as_deref().ok_or_else(|| scope.invalid("cron.schedule", wanted))?;
    check(schedule).map_err(|wanted| scope.invalid("cron.schedule", wanted))?;
    let schedule = schedule.split_whitespace().collect::<Vec<_>>().join(" ");
    let command = command.as_deref().ok_or_else(|| scope.invalid("cron.command", wanted))?;
    let command = scope.one_line("cron.command", command)?;
    // In crontab(5) a % ends the command and begins its input, unless there is a backslash before it.
    let wanted = "must have its % without a backslash; they are escaped for cron";
    scope.ensure(!command.contains("\\%"), "cron.command", wanted)?;
    let command = command.replace('%', "\\%");
    let user = scope.account("cron.user", user.as_ref())?;
    let mut text = scope.header();
    for (variable, value) in environment.iter().flatten() {
        scope.ensure(is_variable(variable), "cron.environment", VARIABLE)?;
        let plain = !value.contains(['\n', '\r', '\0', '"']);
        scope.ensure(
            plain,
            "cron.environment",
            "must have values on one line, without double quotes: cron can not escape",
        )?;
        text.extend([variable, "=\"", value, "\"\n"]);
    }
    text.extend([&schedule, " ", &user, " ", &command, "\n"]);
    Ok(Part::File(owned_by_root(path, Some(SensitiveBytes::new(text)), 0o644)).into())
}

/// As run-parts(8) takes them, which cron goes by.
fn is_cron_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// What is wrong with a schedule.
fn check(schedule: &str) -> Result<(), &'static str> {
    if schedule.contains(['\n', '\r', '\0']) {
        return Err(FIVE);
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if let [nickname] = fields.as_slice()
        && nickname.starts_with('@')
    {
        return if NICKNAMES.contains(nickname) { Ok(()) } else { Err(FIVE) };
    }
    if fields.len() != FIELDS.len() {
        return Err(FIVE);
    }
    let wrong = fields.iter().zip(&FIELDS).find(|(text, field)| !field.takes(text));
    wrong.map_or(Ok(()), |(_, field)| Err(field.wanted))
}

impl Field {
    /// A list of ranges, or a single name: crontab(5) knows no names in ranges and lists.
    fn takes(&self, text: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(text))
            || text.split(',').all(|part| self.takes_range(part))
    }

    /// `*`, `7` or `1-5`, with `/2` after `*` and ranges.
    fn takes_range(&self, part: &str) -> bool {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let steps = step.is_none_or(|step| number(step).is_some_and(|step| (1..=self.last).contains(&step)));
        let within = |text: &str| number(text).filter(|number| (self.first..=self.last).contains(number));
        let ranges = match range.split_once('-') {
            _ if range == "*" => true,
            Some((from, to)) => matches!((within(from), within(to)), (Some(from), Some(to)) if from <= to),
            None => within(range).is_some() && step.is_none(),
        };
        steps && ranges
    }
}

/// Digits alone; `+5` is no number here.
fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_cron_takes_and_no_more() {
        for schedule in [
            "* * * * *",
            "0 0 1 1 0",
            "59 23 31 12 7",
            "*/5 0-6/2 1,15 jan Mon",
            " 30  4 * * 1-5 ",
            "0,15,30-45 * * * *",
            "@daily",
            "@reboot",
        ] {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
        for (schedule, told) in [
            ("", FIVE),
            ("* * * *", FIVE),
            ("* * * * * *", FIVE),
            ("@fortnightly", FIVE),
            ("@daily @daily", FIVE),
            ("* * * *\n*", FIVE),
            ("60 * * * *", FIELDS[0].wanted),
            ("-1 * * * *", FIELDS[0].wanted),
            ("5/2 * * * *", FIELDS[0].wanted),
            ("*/0 * * * *", FIELDS[0].wanted),
            ("*/60 * * * *", FIELDS[0].wanted),
            ("1, * * * *", FIELDS[0].wanted),
            ("+1 * * * *", FIELDS[0].wanted),
            ("* 24 * * *", FIELDS[1].wanted),
            ("* 6-5 * * *", FIELDS[1].wanted),
            ("* * 0 * *", FIELDS[2].wanted),
            ("* * 32 * *", FIELDS[2].wanted),
            ("* * * 13 *", FIELDS[3].wanted),
            ("* * * jan-mar *", FIELDS[3].wanted),
            ("* * * * 8", FIELDS[4].wanted),
            ("* * * * mon,tue", FIELDS[4].wanted),
            ("* * * * monday", FIELDS[4].wanted),
        ] {
            assert_eq!(check(schedule), Err(told), "{schedule}");
        }
    }
}
