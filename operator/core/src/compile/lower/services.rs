//! systemd units: their state, their files, and commands by the clock.

use drover_catalog::{DirectorySpec, Finish, Part, Presence, SensitiveBytes, ServiceSpec, ServiceState};
use drover_crds::{Ensure, NotifyAction, Service, ServiceStateWanted, SystemdDropIn, SystemdUnit, Timer};

use super::{
    Made,
    files::owned_by_root,
    scope::{Body, Scope, positive},
    units,
};
use crate::compile::CompileError;

const FOLDER: &str = "/etc/systemd/system";
/// The unit types of systemd.unit(5).
const UNIT_SUFFIXES: [&str; 11] = [
    ".automount",
    ".device",
    ".mount",
    ".path",
    ".scope",
    ".service",
    ".slice",
    ".socket",
    ".swap",
    ".target",
    ".timer",
];
const UNIT: &str = "must be a unit with its suffix, such as backup.service: letters, digits and : _ . \\ @ -";
const BODY: &str = "must have exactly one of content, template and contentFrom, or ensure: Absent and none of them";

pub(super) fn service(spec: &Service, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Service { unit, state, enabled, masked, on_notify } = spec;
    let said = state.is_some() || enabled.is_some() || masked.is_some();
    scope.ensure(said, "service", "must say something of its unit: add state, enabled or masked")?;
    let runs = *state == Some(ServiceStateWanted::Running) || *enabled == Some(true);
    scope.ensure(
        *masked != Some(true) || !runs,
        "service.masked",
        "must not be true for a unit that runs or is enabled",
    )?;
    let unit = if has_unit_suffix(unit) { unit.clone() } else { format!("{unit}.service") };
    scope.ensure(is_unit(&unit), "service.unit", "must be the name of a unit: letters, digits and : _ . \\ @ -")?;
    Ok(Part::Service(ServiceSpec {
        unit,
        state: state.map(|state| match state {
            ServiceStateWanted::Running => ServiceState::Running,
            ServiceStateWanted::Stopped => ServiceState::Stopped,
        }),
        enabled: *enabled,
        masked: *masked,
        reload_on_notify: *on_notify == Some(NotifyAction::Reload),
    })
    .into())
}

/// There is no `validate`: `systemd-analyze verify` goes by a unit file's own name, which a file that has not taken its
/// place yet does not have.
pub(super) fn unit(spec: &SystemdUnit, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let SystemdUnit { name, content, template, content_from, ensure } = spec;
    let name = scope.named("systemdUnit.name", name.as_ref(), is_unit, UNIT)?;
    let body =
        Body { ensure: *ensure, content: content.as_ref(), template: template.as_ref(), from: content_from.as_ref() };
    let content = scope.body("systemdUnit", BODY, body)?;
    let file = Part::File(owned_by_root(format!("{FOLDER}/{name}"), content, 0o644));
    Ok(Made::from(file).then(Finish::ReadUnitFiles))
}

pub(super) fn drop_in(spec: &SystemdDropIn, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let SystemdDropIn { unit, name, content, template, content_from, ensure } = spec;
    scope.ensure(is_unit(unit), "systemdDropIn.unit", UNIT)?;
    let name = scope.file_name("systemdDropIn.name", name.as_ref())?;
    let body =
        Body { ensure: *ensure, content: content.as_ref(), template: template.as_ref(), from: content_from.as_ref() };
    let content = scope.body("systemdDropIn", BODY, body)?;
    let folder = format!("{FOLDER}/{unit}.d");
    let mut parts = Vec::new();
    if content.is_some() {
        // Several drop-ins of a unit ask for their folder in the same way, so they do not compete. An empty one that is left
        // behind says nothing.
        parts.push(Part::Directory(DirectorySpec {
            path: folder.clone(),
            state: Presence::Present,
            mode: 0o755,
            owner: "root".to_owned(),
            group: "root".to_owned(),
            purge: false,
            keep: Vec::new(),
        }));
    }
    parts.push(Part::File(owned_by_root(format!("{folder}/{name}.conf"), content, 0o644)));
    Ok(Made::from(parts).then(Finish::ReadUnitFiles))
}

/// A service of type oneshot and the timer that starts it; see systemd.timer(5). Reading the unit files makes a running
/// timer go by its new times.
pub(super) fn timer(spec: &Timer, scope: &mut Scope<'_>) -> Result<Made, CompileError> {
    let Timer {
        name,
        description,
        on_calendar,
        command,
        user,
        environment,
        persistent,
        randomized_delay_seconds,
        timeout_seconds,
        ensure,
    } = spec;
    let name = scope.file_name("timer.name", name.as_ref())?;
    let wanted = "must be a name without a suffix; .service and .timer are added";
    scope.ensure(!has_unit_suffix(&name), "timer.name", wanted)?;
    let (service, timer) = (format!("{name}.service"), format!("{name}.timer"));
    let file = |unit: &str, text: Option<String>| {
        Part::File(owned_by_root(format!("{FOLDER}/{unit}"), text.map(SensitiveBytes::new), 0o644))
    };
    let state = |state, enabled| {
        Part::Service(ServiceSpec {
            unit: timer.clone(),
            state: Some(state),
            enabled: Some(enabled),
            masked: None,
            reload_on_notify: false,
        })
    };
    if *ensure == Some(Ensure::Absent) {
        let parts = vec![state(ServiceState::Stopped, false), file(&timer, None), file(&service, None)];
        return Ok(Made::from(parts).then(Finish::ReadUnitFiles));
    }

    let wanted = "must be given, or ensure be Absent";
    let on_calendar = on_calendar.as_deref().ok_or_else(|| scope.invalid("timer.onCalendar", wanted))?;
    let calendar = |c: char| c.is_ascii_alphanumeric() || "*:.,/~ _+-".contains(c);
    let fits = !on_calendar.is_empty() && on_calendar.chars().all(calendar);
    let wanted = "must be a time of systemd.time(7), such as `daily` or `Mon..Fri 04:00`";
    scope.ensure(fits, "timer.onCalendar", wanted)?;
    let command = scope.argv("timer.command", command.as_ref())?;
    let command = command.ok_or_else(|| scope.invalid("timer.command", "must be given, or ensure be Absent"))?;
    let program = command.first().is_some_and(|program| super::scope::is_absolute(program));
    scope.ensure(program, "timer.command", "must begin with the absolute path of a program, such as /bin/sh")?;
    let made = format!("{name}, made by Drover");
    let description = scope.one_line("timer.description", description.as_deref().unwrap_or(&made))?;
    // A backslash at the end of a line would join it with the next.
    scope.ensure(!description.ends_with('\\'), "timer.description", "must not end with a backslash")?;
    let user = scope.account("timer.user", user.as_ref())?;
    let unit = format!("{}[Unit]\nDescription={}\n", scope.header(), units::plain(description));

    let mut service_text = format!("{unit}\n[Service]\nType=oneshot\nUser={user}\n");
    for (variable, value) in environment.iter().flatten() {
        scope.ensure(is_variable(variable), "timer.environment", VARIABLE)?;
        scope.ensure(!value.contains('\0'), "timer.environment", "must not have a null character in a value")?;
        service_text.extend(["Environment=", &units::variable(variable, value), "\n"]);
    }
    if let Some(seconds) = timeout_seconds {
        service_text.extend(["TimeoutStartSec=", &seconds.to_string(), "\n"]);
    }
    let words: Vec<String> = command.iter().map(|argument| units::word(argument)).collect();
    service_text.extend(["ExecStart=", &words.join(" "), "\n"]);

    let mut timer_text = format!("{unit}\n[Timer]\nOnCalendar={on_calendar}\n");
    if *persistent == Some(true) {
        timer_text.push_str("Persistent=true\n");
    }
    match positive(*randomized_delay_seconds, 0) {
        0 => {}
        seconds => timer_text.extend(["RandomizedDelaySec=", &seconds.to_string(), "\n"]),
    }
    timer_text.push_str("\n[Install]\nWantedBy=timers.target\n");
    let parts =
        vec![file(&service, Some(service_text)), file(&timer, Some(timer_text)), state(ServiceState::Running, true)];
    Ok(Made::from(parts).then(Finish::ReadUnitFiles))
}

pub(super) const VARIABLE: &str =
    "must have names of letters, digits and _ that begin with no digit, and values without null characters";

/// A name of an environment variable, as a shell can read it.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn has_unit_suffix(name: &str) -> bool {
    UNIT_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn is_unit(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c);
    has_unit_suffix(name) && !name.starts_with('.') && name.len() <= 255 && name.chars().all(plain)
}
