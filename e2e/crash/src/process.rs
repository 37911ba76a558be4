//! One operator process: the real binary, with a kubeconfig that leads to the proxy.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// Which process it is, for signals. It is set once the process was started.
#[derive(Debug, Default)]
pub(crate) struct Target(OnceLock<Pid>);

impl Target {
    /// Sends a signal. A process that is gone already needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0.get() {
            let _ = kill_process(*pid, signal);
        }
    }
}

/// How operators are started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The binary.
    pub(crate) operator: PathBuf,
    /// Where kubeconfigs and logs go.
    pub(crate) folder: PathBuf,
}

impl Program {
    /// Starts an operator for a namespace, that reaches the API server at this port of loopback.
    pub(crate) fn start(&self, namespace: &str, name: &str, port: u16, target: &Target) -> anyhow::Result<Child> {
        let kubeconfig = self.folder.join(format!("{namespace}-{name}.kubeconfig"));
        std::fs::write(&kubeconfig, kubeconfig_for(port))?;
        let log = OpenOptions::new().create(true).append(true).open(self.log(namespace))?;
        let child = Command::new(&self.operator)
            .arg("run")
            .env_clear()
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAMESPACE", namespace)
            .env("POD_NAME", name)
            .env("DROVER_LOG", "debug")
            .env("DROVER_MASTER_IMAGE", "localhost/drover:none")
            .env("DROVER_HEALTH_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.operator.display()))?;
        let pid =
            child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the operator has no process id")?;
        let _ = target.0.set(pid);
        Ok(child)
    }

    /// The log of all operators of a namespace.
    pub(crate) fn log(&self, namespace: &str) -> PathBuf {
        self.folder.join(format!("{namespace}.log"))
    }
}

/// Asks an operator to end, and waits until it finished what it was at.
pub(crate) async fn end(child: &mut Child, target: &Target) -> anyhow::Result<()> {
    if child.try_wait()?.is_none() {
        target.signal(Signal::TERM);
        timeout(Duration::from_secs(30), child.wait())
            .await
            .context("the operator did not end within 30 s of SIGTERM")??;
    }
    Ok(())
}

/// Credentials are the proxy's.
fn kubeconfig_for(port: u16) -> String {
    format!(
        "{{apiVersion: v1, kind: Config, current-context: proxy, clusters: [{{name: proxy, cluster: {{server: 'http://127.0.0.1:{port}'}}}}], \
         contexts: [{{name: proxy, context: {{cluster: proxy, user: nobody}}}}], users: [{{name: nobody, user: {{}}}}]}}"
    )
}

/// Keeps a log under another name, so that the next run does not write over it.
pub(crate) fn keep(log: &Path, name: &str) -> PathBuf {
    let kept = log.with_file_name(name);
    let _ = std::fs::copy(log, &kept);
    kept
}
