//! Against a systemd that answers over a real D-Bus connection, from a script.

#![expect(
    clippy::unused_self,
    clippy::needless_pass_by_value,
    clippy::used_underscore_binding,
    reason = "the interface macro wants methods on self, and owned arguments"
)]

use std::{
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use zbus::{connection::Builder, interface, object_server::SignalEmitter};

use super::*;

const NGINX: &str = "/org/freedesktop/systemd1/unit/nginx_2eservice";

/// What the scripted systemd holds of its one unit, and what was asked of it.
#[derive(Default)]
struct Script {
    active_state: String,
    result: String,
    job_result: String,
    /// No signal tells the end of the job.
    hangs_up: bool,
    /// Logind refuses to reboot.
    without_login: bool,
    calls: Vec<String>,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Script>>);

impl Shared {
    fn called(&self, call: String) {
        self.0.lock().unwrap().calls.push(call);
    }

    fn get(&self, what: impl FnOnce(&Script) -> &String) -> String {
        what(&self.0.lock().unwrap()).clone()
    }
}

fn path(path: &str) -> OwnedObjectPath {
    path.try_into().unwrap()
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Shared {
    fn subscribe(&self) {}

    fn reload(&self) {
        self.called("reload".into());
    }

    fn load_unit(&self, _name: &str) -> OwnedObjectPath {
        path(NGINX)
    }

    async fn start_unit(
        &self,
        name: String,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> OwnedObjectPath {
        self.called(format!("start {name} {mode}"));
        if self.0.lock().unwrap().hangs_up {
            connection.clone().close().await.unwrap();
            return path("/job/7");
        }
        let result = self.get(|script| &script.job_result);
        // Another job ends first, and ours before its path is known to the caller.
        Self::job_removed(&emitter, 6, path("/job/6"), "other.service", "failed").await.unwrap();
        Self::job_removed(&emitter, 7, path("/job/7"), &name, &result).await.unwrap();
        path("/job/7")
    }

    async fn reload_or_restart_unit(
        &self,
        name: String,
        mode: &str,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> OwnedObjectPath {
        self.called(format!("reload {name} {mode}"));
        let result = self.get(|script| &script.job_result);
        Self::job_removed(&emitter, 7, path("/job/7"), &name, &result).await.unwrap();
        path("/job/7")
    }

    fn mask_unit_files(&self, files: Vec<String>, runtime: bool, force: bool) -> Vec<(String, String, String)> {
        self.called(format!("mask {files:?} {runtime} {force}"));
        vec![]
    }

    fn unmask_unit_files(&self, files: Vec<String>, runtime: bool) -> Vec<(String, String, String)> {
        self.called(format!("unmask {files:?} {runtime}"));
        vec![]
    }

    fn enable_unit_files(
        &self,
        files: Vec<String>,
        runtime: bool,
        force: bool,
    ) -> (bool, Vec<(String, String, String)>) {
        self.called(format!("enable {files:?} {runtime} {force}"));
        (true, vec![])
    }

    fn disable_unit_files(&self, files: Vec<String>, runtime: bool) -> Vec<(String, String, String)> {
        self.called(format!("disable {files:?} {runtime}"));
        vec![]
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

struct UnitObject(Shared);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitObject {
    #[zbus(property)]
    fn load_state(&self) -> String {
        "loaded".into()
    }

    #[zbus(property)]
    fn active_state(&self) -> String {
        self.0.get(|script| &script.active_state)
    }

    #[zbus(property)]
    fn unit_file_state(&self) -> String {
        "disabled".into()
    }

    #[zbus(property)]
    fn need_daemon_reload(&self) -> bool {
        true
    }
}

struct ServiceObject(Shared);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl ServiceObject {
    #[zbus(property)]
    fn result(&self) -> String {
        self.0.get(|script| &script.result)
    }
}

struct Login(Shared);

#[interface(name = "org.freedesktop.login1.Manager")]
impl Login {
    fn reboot(&self, interactive: bool) -> zbus::fdo::Result<()> {
        if self.0.0.lock().unwrap().without_login {
            return Err(zbus::fdo::Error::ServiceUnknown("no logind".into()));
        }
        self.0.called(format!("logind reboot {interactive}"));
        Ok(())
    }
}

/// A systemd by this script, with the connection that it answers on.
async fn systemd(script: Script) -> (Systemd, Shared, Connection) {
    let shared = Shared(Arc::new(Mutex::new(script)));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = Builder::unix_stream(theirs)
        .server(zbus::Guid::generate())
        .p2p()
        .serve_at("/org/freedesktop/systemd1", shared.clone())
        .serve_at("/org/freedesktop/login1", Login(shared.clone()))
        .serve_at(NGINX, UnitObject(shared.clone()))
        .serve_at(NGINX, ServiceObject(shared.clone()))
        .build();
    let (server, client) = tokio::join!(server, Builder::unix_stream(ours).p2p().build());
    (Systemd::on(client.unwrap()).await.unwrap(), shared, server.unwrap())
}

fn script(active_state: &str, result: &str, job_result: &str) -> Script {
    Script {
        active_state: active_state.into(),
        result: result.into(),
        job_result: job_result.into(),
        ..Script::default()
    }
}

#[tokio::test]
async fn reads_a_unit_and_enables_it() {
    let (systemd, shared, _server) = systemd(script("active", "success", "done")).await;
    let unit = systemd.unit("nginx.service").await.unwrap();
    let expected = Unit {
        load_state: "loaded".into(),
        active_state: "active".into(),
        unit_file_state: "disabled".into(),
        needs_reload: true,
    };
    assert_eq!(unit, expected);
    systemd.set_enabled("nginx.service", true).await.unwrap();
    systemd.set_enabled("nginx.service", false).await.unwrap();
    let expected = ["enable [\"nginx.service\"] false false", "reload", "disable [\"nginx.service\"] false", "reload"];
    assert_eq!(shared.0.lock().unwrap().calls, expected);
}

#[tokio::test]
async fn a_job_is_waited_for_to_its_own_result() {
    let (systemd, shared, _server) = systemd(script("active", "success", "done")).await;
    systemd.run_job("nginx.service", UnitJob::Start).await.unwrap();
    assert_eq!(shared.0.lock().unwrap().calls, ["start nginx.service replace"]);
}

#[tokio::test]
async fn a_failed_start_says_why_and_where_to_look() {
    let see = "see `journalctl -u nginx.service` on the machine";
    for (script, why) in [
        (script("failed", "exit-code", "failed"), "its result is exit-code"),
        (script("inactive", "success", "dependency"), "the job's result is dependency"),
        // It had started, and was gone a moment later.
        (script("failed", "core-dump", "done"), "its result is core-dump"),
    ] {
        let (systemd, _shared, _server) = systemd(script).await;
        let error = systemd.run_job("nginx.service", UnitJob::Start).await.unwrap_err();
        assert_eq!(error.to_string(), format!("nginx.service did not start: {why}; {see}"));
    }
}

#[tokio::test]
async fn a_bus_that_goes_away_is_an_error_and_not_a_wait() {
    let (systemd, _shared, _server) = systemd(Script { hangs_up: true, ..script("active", "success", "done") }).await;
    let error = systemd.run_job("nginx.service", UnitJob::Start).await.unwrap_err();
    assert!(error.to_string().starts_with("could not start nginx.service over D-Bus"), "{error}");
}

#[tokio::test]
async fn a_mask_is_taken_away_wherever_it_is() {
    let (systemd, shared, _server) = systemd(script("active", "success", "done")).await;
    systemd.set_masked("nginx.service", true).await.unwrap();
    systemd.set_masked("nginx.service", false).await.unwrap();
    let mask = "mask [\"nginx.service\"] false false";
    let unmask = ["unmask [\"nginx.service\"] false", "unmask [\"nginx.service\"] true"];
    assert_eq!(shared.0.lock().unwrap().calls, [mask, "reload", unmask[0], unmask[1], "reload"]);
}

#[tokio::test]
async fn a_failed_reload_is_an_error() {
    let (systemd, shared, _server) = systemd(script("active", "success", "failed")).await;
    let error = systemd.run_job("nginx.service", UnitJob::ReloadOrRestart).await.unwrap_err();
    let see = "see `journalctl -u nginx.service` on the machine";
    assert_eq!(error.to_string(), format!("nginx.service did not reload: the job's result is failed; {see}"));
    assert_eq!(shared.0.lock().unwrap().calls, ["reload nginx.service replace"]);
}

#[tokio::test]
async fn a_reboot_is_an_orderly_one_with_logind_and_without() {
    for (without_login, call) in [(false, "logind reboot false"), (true, "start reboot.target replace-irreversibly")] {
        let script = Script { without_login, ..script("active", "success", "done") };
        let (systemd, shared, _server) = systemd(script).await;
        systemd.reboot().await.unwrap();
        assert_eq!(shared.0.lock().unwrap().calls, [call]);
    }
}
