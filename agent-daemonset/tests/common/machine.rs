//! A machine with the real tools of this one: an overlay of its root, in a mount namespace of its own for each
//! command. What is written stays in the overlay and goes with it.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use drover_catalog::Catalog;

pub(crate) struct Machine {
    folder: tempfile::TempDir,
}

/// `$1`: the folder. `/proc` and `/dev` are those of a machine; a file system in memory holds what is written, since an
/// overlay cannot lie on an overlay.
const ENTER: &str = r#"
set -e
cd "$1"
mount -t overlay overlay -o lowerdir=/,upperdir=$1/disk/upper,workdir=$1/disk/work root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount -t tmpfs tmpfs root/run
"#;

impl Machine {
    /// `None`, and a line that says why, where this machine cannot hold another one or has not these programs. With
    /// `DROVER_TEST_ALL` in the environment that is a failure.
    #[allow(clippy::print_stderr, reason = "who looks at the tests must see what was left out")]
    pub(crate) fn new(programs: &[&str]) -> Option<Self> {
        let has = |program: &&&str| ["/usr/bin", "/usr/sbin"].iter().any(|at| PathBuf::from(at).join(program).exists());
        let missing = programs.iter().chain(&["unshare", "mount"]).find(|program| !has(program));
        let why = match missing {
            Some(program) => format!("there is no {program}"),
            None if !rustix::process::geteuid().is_root() => "this needs root".to_owned(),
            None => {
                let machine = Self::make();
                let output = machine.try_run("true");
                if output.status.success() {
                    return Some(machine);
                }
                String::from_utf8_lossy(&output.stderr).trim().to_owned()
            }
        };
        assert!(std::env::var_os("DROVER_TEST_ALL").is_none(), "DROVER_TEST_ALL is set, and {why}");
        eprintln!("skipped: {why}");
        None
    }

    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["root", "disk/upper", "disk/work"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn enter(&self, last: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg(format!("{ENTER}{last}")).arg("sh").arg(self.folder.path());
        command
    }

    fn try_run(&self, script: &str) -> Output {
        self.enter("exec env --ignore-environment PATH=\"$PATH\" LC_ALL=C chroot root sh -euc \"$2\"")
            .arg(script)
            .output()
            .unwrap()
    }

    /// What a shell script prints on the machine; it must succeed.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What the agent prints that applies a catalog to the machine.
    #[track_caller]
    pub(crate) fn apply(&self, catalog: &Catalog, flags: &[&str]) -> String {
        let mut child = self
            .enter("agent=$2; shift 2; exec env --ignore-environment PATH=\"$PATH\" \"$agent\" apply --root root --catalog - \"$@\"")
            .arg(env!("CARGO_BIN_EXE_drover-agent"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&serde_json::to_vec(catalog).unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        let table = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(!table.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        table
    }
}
