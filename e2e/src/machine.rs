//! A look into one machine, past Kubernetes and past Drover: commands run as root in its namespaces.

use std::process::{Output, Stdio};

use tokio::{io::AsyncWriteExt as _, process::Command};

/// The folder on each machine that stories write to. It is there, and empty, when a story begins.
pub const FOLDER: &str = "/srv/e2e";

/// A machine of the testbed.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The name of the machine, and of its Node and its Host.
    pub node: String,
    pub(crate) testbed: String,
}

impl Machine {
    /// What a shell script prints, trimmed; it must succeed.
    pub async fn run(&self, script: &str) -> String {
        self.try_run(script).await.unwrap_or_else(|error| panic!("{}: {script}: {error}", self.node))
    }

    /// What a shell script prints, trimmed; or, where it failed, what it printed as its errors.
    pub async fn try_run(&self, script: &str) -> Result<String, String> {
        let Output { status, stdout, stderr } = self.shell(script).await;
        if status.success() { Ok(text(&stdout).trim().to_owned()) } else { Err(text(&stderr).trim().to_owned()) }
    }

    /// The content of a file; `None` where there is none.
    pub async fn read(&self, path: &str) -> Option<String> {
        let Output { status, stdout, stderr } =
            self.shell(&format!("[ -e '{path}' ] || exit 4; exec cat '{path}'")).await;
        match status.code() {
            Some(0) => Some(text(&stdout)),
            Some(4) => None,
            _ => panic!("{}: {path}: {}", self.node, text(&stderr)),
        }
    }

    async fn shell(&self, script: &str) -> Output {
        let mut shell = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/testbed"))
            .args(["exec", "--name", &self.testbed, &self.node, "--", "sh", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the testbed can be run");
        let mut input = shell.stdin.take().expect("it is piped");
        input.write_all(script.as_bytes()).await.expect("the shell reads its script");
        drop(input);
        shell.wait_with_output().await.expect("the shell ends")
    }

    /// Mode, owner and group of a file, as in `644 root root`.
    pub async fn access(&self, path: &str) -> String {
        self.run(&format!("stat -c '%a %U %G' '{path}'")).await
    }

    /// Whether a unit is active: `active`, `inactive`, `failed`.
    pub async fn unit_state(&self, unit: &str) -> String {
        self.run(&format!("systemctl is-active '{unit}' || true")).await
    }

    /// Ends the main process of a container at once, as the kernel does when memory is short. `container` is its id as
    /// a pod's status has it.
    pub async fn kill_container(&self, container: &str) {
        let id = container.strip_prefix("containerd://").expect("machines run containerd");
        // By the process id that containerd tells, and only while it is still that container's.
        let script = format!(
            "set -e; pid=$(ctr -n k8s.io task ls | awk '$1 == \"{id}\" {{ print $2 }}'); \
             grep -q '{id}' /proc/$pid/cgroup; kill -KILL $pid"
        );
        self.run(&script).await;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
