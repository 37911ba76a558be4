//! A look into one machine, past Kubernetes and past Drover: commands run as root in its namespaces.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

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

    /// Does something to a container: ends it at once, as the kernel does when memory is short, or takes it away for a while
    /// and gives it back. `container` is its id as a pod's status has it.
    pub async fn harm_container(&self, container: &str, harm: Harm) {
        let id = container.strip_prefix("containerd://").expect("machines run containerd");
        // What is taken away is given back also when the script is ended.
        let harm = match harm {
            Harm::Kill => "kill -KILL $pid".to_owned(),
            Harm::Stop(time) => {
                format!("trap 'kill -CONT $pid' EXIT; kill -STOP $pid; sleep {}", time.as_secs_f32())
            }
            Harm::Cut(time) => format!(
                "tables() {{ nsenter --target $pid --net iptables --wait \"$@\"; }}; \
                 trap 'tables -D INPUT -j DROP; tables -D OUTPUT -j DROP' EXIT; \
                 tables -I INPUT -j DROP; tables -I OUTPUT -j DROP; sleep {}",
                time.as_secs_f32()
            ),
        };
        // By the process id that containerd tells, and only while it is still that container's.
        let script = format!(
            "set -e; pid=$(ctr -n k8s.io task ls | awk '$1 == \"{id}\" {{ print $2 }}'); \
             grep -q '{id}' /proc/$pid/cgroup; {harm}"
        );
        self.run(&script).await;
    }
}

/// What may befall a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Its main process gets SIGKILL.
    Kill,
    /// Its main process is stopped for so long.
    Stop(Duration),
    /// All that its pod sends, and all that is sent to it, is lost for so long, without a word.
    Cut(Duration),
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
