//! Systemd over D-Bus: its manager's interface, and jobs waited for to their result.
//!
//! The interface is described in org.freedesktop.systemd1(5); only what is used is declared here.

use std::{path::Path, time::Duration};

use futures::StreamExt as _;
use tokio::time::timeout;
use zbus::{Connection, OwnedObjectPath, proxy, proxy::CacheProperties};

use super::{HostError, Unit, UnitJob};

/// How long a job may take. Units have limits of their own, 90 s by default, which end a job much earlier.
const JOB_TIMEOUT: Duration = Duration::from_secs(300);

#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reload_or_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn enable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<(String, String, String)>)>;
    fn disable_unit_files(&self, files: &[&str], runtime: bool) -> zbus::Result<Vec<(String, String, String)>>;
    fn mask_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<Vec<(String, String, String)>>;
    fn unmask_unit_files(&self, files: &[&str], runtime: bool) -> zbus::Result<Vec<(String, String, String)>>;

    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

#[proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait LoadedUnit {
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn unit_file_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn need_daemon_reload(&self) -> zbus::Result<bool>;
}

#[proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
trait Service {
    #[zbus(property)]
    fn result(&self) -> zbus::Result<String>;
}

/// org.freedesktop.login1(5): it holds a shutdown back while somebody has a delay lock, as the kubelet does to end pods.
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Login {
    fn reboot(&self, interactive: bool) -> zbus::Result<()>;
}

/// A connection to a machine's systemd.
pub(super) struct Systemd {
    connection: Connection,
    manager: ManagerProxy<'static>,
}

impl Systemd {
    /// Connects over the machine's system bus.
    pub(super) async fn connect(root: &Path) -> Result<Self, HostError> {
        let socket = root.join("run/dbus/system_bus_socket");
        let failed = bus(format!("reach systemd at {}", socket.display()));
        let address = format!("unix:path={}", socket.display());
        let connection = zbus::connection::Builder::address(address.as_str()).build().await;
        Self::on(connection.map_err(failed)?).await
    }

    async fn on(connection: Connection) -> Result<Self, HostError> {
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(bus("reach systemd".to_owned()))?;
        // Without a subscription, systemd tells nobody that a job has ended.
        manager.subscribe().await.map_err(bus("subscribe to systemd's jobs".to_owned()))?;
        Ok(Self { connection, manager })
    }

    /// See [`Host::unit`](super::Host::unit).
    pub(super) async fn unit(&self, name: &str) -> Result<Unit, HostError> {
        self.look_at(name).await.map_err(bus(format!("look at {name}")))
    }

    async fn look_at(&self, name: &str) -> zbus::Result<Unit> {
        let path = self.manager.load_unit(name).await?;
        let unit =
            LoadedUnitProxy::builder(&self.connection).path(path).cache_properties(CacheProperties::No).build().await?;
        Ok(Unit {
            load_state: unit.load_state().await?,
            active_state: unit.active_state().await?,
            unit_file_state: unit.unit_file_state().await?,
            needs_reload: unit.need_daemon_reload().await?,
        })
    }

    /// See [`Host::reload_unit_files`](super::Host::reload_unit_files).
    pub(super) async fn reload(&self) -> Result<(), HostError> {
        self.manager.reload().await.map_err(bus("have systemd read the unit files again".to_owned()))
    }

    /// See [`Host::set_unit_enabled`](super::Host::set_unit_enabled).
    pub(super) async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), HostError> {
        let changed = if enabled {
            self.manager.enable_unit_files(&[name], false, false).await.map(|_| ())
        } else {
            self.manager.disable_unit_files(&[name], false).await.map(|_| ())
        };
        changed.map_err(bus(format!("{} {name}", if enabled { "enable" } else { "disable" })))?;
        // As systemctl does: the links count from now on.
        self.reload().await
    }

    /// See [`Host::set_unit_masked`](super::Host::set_unit_masked).
    pub(super) async fn set_masked(&self, name: &str, masked: bool) -> Result<(), HostError> {
        let changed = async {
            if masked {
                return self.manager.mask_unit_files(&[name], false, false).await.map(|_| ());
            }
            // A mask may be in /etc, in /run, or in both.
            self.manager.unmask_unit_files(&[name], false).await?;
            self.manager.unmask_unit_files(&[name], true).await.map(|_| ())
        };
        changed.await.map_err(bus(format!("{} {name}", if masked { "mask" } else { "unmask" })))?;
        self.reload().await
    }

    /// See [`Host::reboot`](super::Host::reboot). As `systemctl reboot` does: logind is asked, and where there is none the
    /// target is started. The manager's own `Reboot` would end the machine at once, with no service stopped.
    pub(super) async fn reboot(&self) -> Result<(), HostError> {
        let failed = || bus("reboot".to_owned());
        let login = LoginProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await;
        match login.map_err(failed())?.reboot(false).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "logind does not reboot the machine; its reboot.target is started instead");
                self.manager.start_unit("reboot.target", "replace-irreversibly").await.map(|_| ()).map_err(failed())
            }
        }
    }

    /// See [`Host::run_unit_job`](super::Host::run_unit_job).
    pub(super) async fn run_job(&self, name: &str, job: UnitJob) -> Result<(), HostError> {
        let result = timeout(JOB_TIMEOUT, self.job_result(name, job))
            .await
            .map_err(|_| unfinished(name, job))?
            .map_err(bus(format!("{} {name}", job.verb())))?;
        let running = self.unit(name).await?.active_state;
        // A service of Type=simple has started as soon as its process is there, and may be gone again.
        let stays = job == UnitJob::Stop || running != "failed";
        if result == "done" && stays {
            return Ok(());
        }
        Err(self.failure(name, job, &result).await)
    }

    async fn job_result(&self, name: &str, job: UnitJob) -> zbus::Result<String> {
        // Listening comes first: a quick job ends before its path is known here.
        let mut ended = self.manager.receive_job_removed().await?;
        let manager = &self.manager;
        let path = match job {
            UnitJob::Start => manager.start_unit(name, "replace").await?,
            UnitJob::Stop => manager.stop_unit(name, "replace").await?,
            UnitJob::Restart => manager.restart_unit(name, "replace").await?,
            UnitJob::ReloadOrRestart => manager.reload_or_restart_unit(name, "replace").await?,
        };
        while let Some(signal) = ended.next().await {
            let job = signal.args()?;
            if job.job == path {
                return Ok(job.result);
            }
        }
        Err(zbus::Error::Failure("the connection was closed while a job went on".to_owned()))
    }

    async fn failure(&self, name: &str, job: UnitJob, job_result: &str) -> HostError {
        let verb = job.verb();
        let why = match self.service_result(name).await {
            Ok(result) if result != "success" => format!("its result is {result}"),
            _ => format!("the job's result is {job_result}"),
        };
        HostError::Unit(format!("{name} did not {verb}: {why}; see `journalctl -u {name}` on the machine"))
    }

    /// The `Result` of a service's last run. Other units have none.
    async fn service_result(&self, name: &str) -> zbus::Result<String> {
        let path = self.manager.load_unit(name).await?;
        let service =
            ServiceProxy::builder(&self.connection).path(path).cache_properties(CacheProperties::No).build().await?;
        service.result().await
    }
}

fn bus(action: String) -> impl FnOnce(zbus::Error) -> HostError {
    move |source| HostError::Bus { action, source }
}

fn unfinished(name: &str, job: UnitJob) -> HostError {
    let (verb, seconds) = (job.verb(), JOB_TIMEOUT.as_secs());
    HostError::Unit(format!("{name} did not {verb} within {seconds} s; see `systemctl status {name}` on the machine"))
}

#[cfg(test)]
mod tests;
