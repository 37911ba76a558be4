//! Systemd units: running or not, started at boot or not, and restarted when something that they read has changed.

use std::fmt;

use drover_catalog::{PropertyEvent, ServiceSpec, ServiceState};

use super::{Provider, ProviderError, event, event_of};
use crate::host::{Host, Unit, UnitJob};

/// A unit as it is.
pub(crate) struct Observed {
    unit: Unit,
    notified: bool,
}

/// What must change about a unit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Have systemd read its file before anything else; a step on the way, never the only one.
    ReadUnitFiles,
    /// Let nobody start it, or take that away; it was in this state.
    Mask { to: bool, was: String },
    /// Start it at boot, or not; it was in this state.
    Enable { to: bool, was: String },
    /// Start, stop, restart or reload it; it was in this state.
    Job { job: UnitJob, was: String },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadUnitFiles => "unit files read again",
            Self::Mask { to: true, .. } => "masked",
            Self::Mask { to: false, .. } => "unmasked",
            Self::Enable { to: true, .. } => "enabled",
            Self::Enable { to: false, .. } => "disabled",
            Self::Job { job: UnitJob::Start, .. } => "started",
            Self::Job { job: UnitJob::Stop, .. } => "stopped",
            Self::Job { job: UnitJob::Restart, .. } => "restarted",
            Self::Job { job: UnitJob::ReloadOrRestart, .. } => "reloaded",
        })
    }
}

impl super::Change for Change {
    /// In systemd's own words for states.
    fn event(&self) -> PropertyEvent {
        let of = |property, was: &String, to: &str| {
            event_of(property, Some(was.clone()).filter(|was| !was.is_empty()), Some(to.to_owned()))
        };
        match self {
            Self::ReadUnitFiles => event("unitFiles"),
            Self::Mask { to, was } => of("masked", was, if *to { "masked" } else { "unmasked" }),
            Self::Enable { to, was } => of("enabled", was, if *to { "enabled" } else { "disabled" }),
            Self::Job { job: UnitJob::Start, was } => of("state", was, "active"),
            Self::Job { job: UnitJob::Stop, was } => of("state", was, "inactive"),
            Self::Job { job: UnitJob::Restart, .. } => event("restart"),
            Self::Job { job: UnitJob::ReloadOrRestart, .. } => event("reload"),
        }
    }
}

impl Provider for ServiceSpec {
    type Observed = Observed;
    type Change = Change;

    async fn observe(&self, host: &impl Host, notified: bool) -> Result<Observed, ProviderError> {
        Ok(Observed { unit: host.unit(&self.unit).await?, notified })
    }

    fn diff(&self, observed: &Observed) -> Result<Vec<Change>, ProviderError> {
        let unit = &observed.unit;
        self.contradiction()?;
        let masked = is_masked(unit);
        let mut changes = Vec::new();
        let enable = |to| Change::Enable { to, was: unit.unit_file_state.clone() };
        let mask = |to| Change::Mask { to, was: unit.unit_file_state.clone() };
        let run = |job| Change::Job { job, was: unit.active_state.clone() };
        if masked && self.masked == Some(false) {
            changes.push(mask(false));
        }
        match self.enabled {
            Some(true) if !starts_at_boot(&unit.unit_file_state) => changes.push(enable(true)),
            // What a mask hid may be enabled.
            Some(false) if can_be_disabled(&unit.unit_file_state) || !changes.is_empty() => changes.push(enable(false)),
            _ => {}
        }
        let running = is_running(&unit.active_state);
        // It may have read what was there before the change; a reload would be refused.
        let starting_too_early = unit.active_state == "activating" && observed.notified;
        let restart = if self.reload_on_notify { UnitJob::ReloadOrRestart } else { UnitJob::Restart };
        match self.state {
            Some(ServiceState::Running) | None if starting_too_early => changes.push(run(UnitJob::Restart)),
            // One that starts now has read everything new: a notification asks for nothing more.
            Some(ServiceState::Running) if !running => changes.push(run(UnitJob::Start)),
            Some(ServiceState::Stopped) if !is_stopped(&unit.active_state) => changes.push(run(UnitJob::Stop)),
            Some(ServiceState::Running) | None if running && observed.notified => changes.push(run(restart)),
            _ => {}
        }
        let must_be_there = changes.iter().any(|change| !matches!(change, Change::Enable { to: false, .. }));
        if must_be_there && masked && self.masked.is_none() {
            let refusal = format!("{} is masked; `systemctl unmask` it, or take it out of the catalog", self.unit);
            return Err(ProviderError::Refused(refusal));
        }
        // Systemd may not have seen a unit file that came just now.
        let missing = unit.load_state == "not-found" && must_be_there;
        if !changes.is_empty() && (unit.needs_reload || missing) {
            changes.insert(0, Change::ReadUnitFiles);
        }
        // At last: systemd reads nothing more of a unit that is masked. There need not be such a unit.
        if !masked && self.masked == Some(true) {
            changes.push(mask(true));
        }
        Ok(changes)
    }

    fn absorbs_notification(&self, changes: &[Change]) -> bool {
        changes.iter().any(|change| matches!(change, Change::Job { .. }))
    }

    async fn apply(&self, host: &impl Host, changes: &[Change]) -> Result<(), ProviderError> {
        for change in changes {
            match change {
                Change::ReadUnitFiles => {
                    host.reload_unit_files().await?;
                    if host.unit(&self.unit).await?.load_state == "not-found" {
                        let (unit, what) = (&self.unit, "install its package or write its file, and require that");
                        return Err(ProviderError::Refused(format!("the machine has no unit {unit}; {what}")));
                    }
                }
                Change::Mask { to, .. } => host.set_unit_masked(&self.unit, *to).await?,
                Change::Enable { to, .. } => host.set_unit_enabled(&self.unit, *to).await?,
                Change::Job { job, .. } => host.run_unit_job(&self.unit, *job).await?,
            }
        }
        Ok(())
    }
}

/// What no unit can be at once.
trait Contradiction {
    fn contradiction(&self) -> Result<(), ProviderError>;
}

impl Contradiction for ServiceSpec {
    fn contradiction(&self) -> Result<(), ProviderError> {
        let runs = self.state == Some(ServiceState::Running) || self.enabled == Some(true);
        if self.masked == Some(true) && runs {
            let advice = "leave out `masked`, or stop and disable it";
            let refusal = format!("{} can not be masked and running or enabled; {advice}", self.unit);
            return Err(ProviderError::Refused(refusal));
        }
        Ok(())
    }
}

fn is_masked(unit: &Unit) -> bool {
    unit.load_state == "masked" || matches!(unit.unit_file_state.as_str(), "masked" | "masked-runtime")
}

/// As `systemctl is-enabled` succeeds, less `enabled-runtime`, which a reboot forgets. A `static` unit has no choice:
/// others start it.
fn starts_at_boot(unit_file_state: &str) -> bool {
    matches!(unit_file_state, "enabled" | "static" | "alias" | "indirect" | "generated")
}

fn can_be_disabled(unit_file_state: &str) -> bool {
    matches!(unit_file_state, "enabled" | "enabled-runtime" | "linked" | "linked-runtime")
}

fn is_running(active_state: &str) -> bool {
    matches!(active_state, "active" | "reloading" | "refreshing")
}

fn is_stopped(active_state: &str) -> bool {
    matches!(active_state, "" | "inactive" | "failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::{MemoryHost, apply, check, check_notified};

    fn spec(state: Option<ServiceState>, enabled: Option<bool>) -> ServiceSpec {
        ServiceSpec { unit: "nginx.service".into(), state, enabled, masked: None, reload_on_notify: false }
    }

    fn host(active_state: &str, unit_file_state: &str) -> MemoryHost {
        MemoryHost::new().unit("nginx.service", active_state, unit_file_state)
    }

    #[test]
    fn running_and_enabled_are_two_things() {
        let running = spec(Some(ServiceState::Running), None);
        check(&running, &host("inactive", "disabled"), "started");
        check(&running, &host("failed", "disabled"), "started");
        check(&running, &host("active", "disabled"), "");
        check(&running, &host("reloading", "disabled"), "");
        check(&running, &host("activating", "disabled"), "started");
        let stopped = spec(Some(ServiceState::Stopped), None);
        check(&stopped, &host("active", "enabled"), "stopped");
        check(&stopped, &host("activating", "enabled"), "stopped");
        check(&stopped, &host("failed", "enabled"), "");
        let both = spec(Some(ServiceState::Running), Some(true));
        check(&both, &host("inactive", "disabled"), "enabled; started");
        check(&both, &host("active", "enabled-runtime"), "enabled");
        check(&both, &host("active", "static"), "");
        let neither = spec(Some(ServiceState::Stopped), Some(false));
        check(&neither, &host("active", "enabled"), "disabled; stopped");
        check(&neither, &host("inactive", "static"), "");
    }

    #[test]
    fn a_notification_restarts_only_what_should_run_and_did_not_just_start() {
        let running = spec(Some(ServiceState::Running), Some(true));
        check_notified(&running, &host("active", "enabled"), "restarted");
        check_notified(&running, &host("inactive", "enabled"), "started");
        check_notified(&running, &host("active", "disabled"), "enabled; restarted");
        check_notified(&running, &host("activating", "enabled"), "restarted");
        check_notified(&running, &host("reloading", "enabled"), "restarted");
        check_notified(&running, &host("deactivating", "enabled"), "started");
        let reloading = ServiceSpec { reload_on_notify: true, ..running };
        check_notified(&reloading, &host("active", "enabled"), "reloaded");
        check_notified(&reloading, &host("activating", "enabled"), "restarted");
        let as_it_is = spec(None, None);
        check_notified(&as_it_is, &host("active", "enabled"), "restarted");
        check_notified(&as_it_is, &host("activating", "enabled"), "restarted");
        check_notified(&as_it_is, &host("inactive", "enabled"), "");
        let stopped = spec(Some(ServiceState::Stopped), None);
        check_notified(&stopped, &host("inactive", "enabled"), "");
        check_notified(&stopped, &host("active", "enabled"), "stopped");
        check_notified(&stopped, &host("activating", "enabled"), "stopped");
    }

    #[test]
    fn systemd_reads_a_changed_unit_file_first() {
        let running = spec(Some(ServiceState::Running), None);
        let changed = host("active", "enabled").stale_unit("nginx.service");
        check(&running, &changed, "");
        check_notified(&running, &changed, "unit files read again; restarted");
    }

    #[test]
    fn a_missing_unit_is_an_error_only_when_it_must_be_there() {
        let none = MemoryHost::new();
        check(&spec(Some(ServiceState::Stopped), Some(false)), &none, "");
        let wanted = spec(Some(ServiceState::Running), None);
        check(&wanted, &none, "unit files read again; started");
        let error = apply(&wanted, &none).unwrap_err().to_string();
        let advice = "install its package or write its file, and require that";
        assert_eq!(error, format!("the machine has no unit nginx.service; {advice}"));
    }

    #[test]
    fn a_masked_unit_is_not_forced() {
        let masked = host("inactive", "masked").masked_unit("nginx.service");
        let refusal = "refused: nginx.service is masked; `systemctl unmask` it, or take it out of the catalog";
        check(&spec(Some(ServiceState::Running), None), &masked, refusal);
        check(&spec(Some(ServiceState::Stopped), Some(false)), &masked, "");
    }

    #[test]
    fn a_mask_is_a_property_of_its_own() {
        let with = |masked, state, enabled| ServiceSpec { masked: Some(masked), ..spec(state, enabled) };
        let masked = || host("inactive", "masked").masked_unit("nginx.service");
        check(&with(true, None, None), &masked(), "");
        check(&with(true, None, None), &host("active", "enabled"), "masked");
        check(
            &with(true, Some(ServiceState::Stopped), Some(false)),
            &host("active", "enabled"),
            "disabled; stopped; masked",
        );
        check(&with(true, None, None), &MemoryHost::new(), "masked");
        check(&with(false, None, None), &host("active", "enabled"), "");
        check(&with(false, None, None), &masked(), "unmasked");
        check(&with(false, None, None), &host("inactive", "masked-runtime"), "unmasked");
        let all = with(false, Some(ServiceState::Running), Some(true));
        check(&all, &masked(), "unmasked; enabled; started");
        let host = masked();
        apply(&all, &host).unwrap();
        assert_eq!(host.log(), "unmask nginx.service\nenabled nginx.service\nstart nginx.service");
        check(&all, &host, "");
        check(&with(false, None, Some(false)), &masked(), "unmasked; disabled");
        let advice = "leave out `masked`, or stop and disable it";
        let refusal = format!("refused: nginx.service can not be masked and running or enabled; {advice}");
        check(&with(true, Some(ServiceState::Running), None), &host, &refusal);
        check(&with(true, None, Some(true)), &host, &refusal);
    }

    #[test]
    fn events_have_the_states_that_were() {
        let spec = ServiceSpec { masked: Some(false), ..spec(Some(ServiceState::Running), Some(true)) };
        let host = host("failed", "masked").masked_unit("nginx.service");
        let observed = futures::executor::block_on(spec.observe(&host, false)).unwrap();
        let told = |change: &Change| {
            let PropertyEvent { property, previous, desired } = super::super::Change::event(change);
            format!("{property} {} -> {}", previous.unwrap_or_default(), desired.unwrap_or_default())
        };
        let events: Vec<String> = spec.diff(&observed).unwrap().iter().map(told).collect();
        assert_eq!(events, ["masked masked -> unmasked", "enabled masked -> enabled", "state failed -> active"]);
    }
}
