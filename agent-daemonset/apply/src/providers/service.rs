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
    /// Start it at boot, or not.
    Enable(bool),
    /// Start, stop, restart or reload it.
    Job(UnitJob),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadUnitFiles => "unit files read again",
            Self::Enable(true) => "enabled",
            Self::Enable(false) => "disabled",
            Self::Job(UnitJob::Start) => "started",
            Self::Job(UnitJob::Stop) => "stopped",
            Self::Job(UnitJob::Restart) => "restarted",
            Self::Job(UnitJob::ReloadOrRestart) => "reloaded",
        })
    }
}

impl super::Change for Change {
    fn event(&self) -> PropertyEvent {
        match self {
            Self::ReadUnitFiles => event("unitFiles"),
            Self::Enable(to) => event_of("enabled", Some((!to).to_string()), Some(to.to_string())),
            Self::Job(UnitJob::Start) => event_of("state", Some("stopped".into()), Some("running".into())),
            Self::Job(UnitJob::Stop) => event_of("state", Some("running".into()), Some("stopped".into())),
            Self::Job(UnitJob::Restart) => event("restart"),
            Self::Job(UnitJob::ReloadOrRestart) => event("reload"),
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
        let mut changes = Vec::new();
        match self.enabled {
            Some(true) if !starts_at_boot(&unit.unit_file_state) => changes.push(Change::Enable(true)),
            Some(false) if can_be_disabled(&unit.unit_file_state) => changes.push(Change::Enable(false)),
            _ => {}
        }
        let running = is_running(&unit.active_state);
        let restart = if self.reload_on_notify { UnitJob::ReloadOrRestart } else { UnitJob::Restart };
        match self.state {
            // One that starts now has read everything new: a notification asks for nothing more.
            Some(ServiceState::Running) if !running => changes.push(Change::Job(UnitJob::Start)),
            Some(ServiceState::Stopped) if !is_stopped(&unit.active_state) => changes.push(Change::Job(UnitJob::Stop)),
            Some(ServiceState::Running) | None if running && observed.notified => changes.push(Change::Job(restart)),
            _ => {}
        }
        let must_be_there = changes.iter().any(|change| *change != Change::Enable(false));
        if must_be_there && unit.load_state == "masked" {
            let refusal = format!("{} is masked; `systemctl unmask` it, or take it out of the catalog", self.unit);
            return Err(ProviderError::Refused(refusal));
        }
        // Systemd may not have seen a unit file that came just now.
        if !changes.is_empty() && (unit.needs_reload || unit.load_state == "not-found") {
            changes.insert(0, Change::ReadUnitFiles);
        }
        Ok(changes)
    }

    fn absorbs_notification(&self, changes: &[Change]) -> bool {
        changes.iter().any(|change| matches!(change, Change::Job(_)))
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
                Change::Enable(enabled) => host.set_unit_enabled(&self.unit, *enabled).await?,
                Change::Job(job) => host.run_unit_job(&self.unit, *job).await?,
            }
        }
        Ok(())
    }
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
        let reloading = ServiceSpec { reload_on_notify: true, ..running };
        check_notified(&reloading, &host("active", "enabled"), "reloaded");
        let as_it_is = spec(None, None);
        check_notified(&as_it_is, &host("active", "enabled"), "restarted");
        check_notified(&as_it_is, &host("inactive", "enabled"), "");
        let stopped = spec(Some(ServiceState::Stopped), None);
        check_notified(&stopped, &host("inactive", "enabled"), "");
        check_notified(&stopped, &host("active", "enabled"), "stopped");
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
}
