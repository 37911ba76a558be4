//! The command line. Each flag can also be given by environment, which is how the DaemonSet does it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use drover_apply::run_in_root::{Entrance, Switch};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All is well; of `apply`, nothing changed.
    Ok = 0,
    /// Something went wrong.
    Failed = 1,
    /// `apply` changed something.
    Changed = 2,
    /// The command line makes no sense; the number is that of sysexits.h.
    Usage = 64,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Keeps a machine as its catalog says.
#[derive(Debug, Parser)]
#[command(name = "drover-agent", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) logging: Logging,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch catalogs from the masters and keep the machine so, until SIGTERM
    Run(RunOptions),
    /// Apply NodeConfigs from files once, without a cluster; or a catalog that a master compiled
    #[command(
        after_help = "Example: drover-agent apply --noop -f nodeconfig.yaml -f data/\n\nExit codes: 0 nothing changed, 2 something changed, 1 something failed, 64 wrong usage."
    )]
    Apply(ApplyOptions),
    /// Print what templates may know of a machine, as JSON
    #[command(after_help = "Exit codes: 0 printed, 1 there is no such fact or something failed, 64 wrong usage.")]
    Facts(FactsOptions),
    /// Print which files were replaced and are kept, or what one of them held
    #[command(
        after_help = "Example: drover-agent backups --show 4f1c2a > motd.before\n\nExit codes: 0 printed, 1 there is no such copy or something failed, 64 wrong usage."
    )]
    Backups(BackupsOptions),
    /// Ask the masters for this machine's catalog, as the agent does, and say which one answered and how fast
    #[command(
        after_help = "Example: kubectl -n drover-system exec ds/drover-agent -- /drover-agent ping\n\nExit codes: 0 all were answered, 1 some were not, 64 wrong usage."
    )]
    Ping(PingOptions),
    /// Change root, user and umask, and become a command; the agent calls itself so
    #[command(name = "run-in-root", hide = true)]
    RunInRoot(RunInRootOptions),
}

/// What a process becomes before it is a command.
#[derive(Debug, Args)]
pub(crate) struct RunInRootOptions {
    /// The root; `/` is no change
    #[arg(long)]
    root: PathBuf,
    /// The working directory inside it
    #[arg(long, default_value = "/")]
    cwd: PathBuf,
    /// The user, by number; else the user stays as it is
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// Its group, by number
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// A further group, by number; those of the caller are given up with its user
    #[arg(long = "group", requires = "uid")]
    groups: Vec<u32>,
    /// The umask, as a decimal number; else it stays as it is
    #[arg(long)]
    umask: Option<u32>,
    /// The command
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

impl RunInRootOptions {
    /// What the process becomes, and then the command.
    pub(crate) fn into_entrance(self) -> (Entrance, Vec<String>) {
        let Self { root, cwd, uid, gid, groups, umask, argv } = self;
        let user = uid.zip(gid).map(|(uid, gid)| Switch { uid, gid, groups });
        (Entrance { root, cwd, user, umask }, argv)
    }
}

/// Where things are when the agent runs for good.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Where the machine's `/` is mounted
    #[arg(long, env = "DROVER_ROOT", default_value = "/host")]
    pub(crate) root: PathBuf,
    /// The folder that says where the masters are: `ca.crt` (PEM), `server-name` (the name in their certificate) and
    /// `addresses` (one `IP:PORT`, `[IPv6]:PORT` or `NAME:PORT` a line). Read again for each request
    #[arg(long, env = "DROVER_MASTERS_DIR", default_value = "/etc/drover/masters")]
    pub(crate) masters_dir: PathBuf,
    /// The service account token for audience `drover.dev/master`. Read again for each request
    #[arg(long, env = "DROVER_TOKEN_FILE", default_value = "/var/run/secrets/drover/token")]
    pub(crate) token_file: PathBuf,
    /// The folder, on the machine itself, that outlives the agent
    #[arg(long, env = "DROVER_STATE_DIR", default_value = "/var/lib/drover")]
    pub(crate) state_dir: String,
    /// The name of this machine's Host: a catalog for another is refused. Else the first catalog tells it
    #[arg(long, env = "DROVER_HOST_NAME")]
    pub(crate) host_name: Option<String>,
    #[command(flatten)]
    pub(crate) facts_ttl: FactsTtl,
}

/// How the masters are asked.
#[derive(Debug, Args)]
pub(crate) struct PingOptions {
    /// Where the machine's `/` is mounted
    #[arg(long, env = "DROVER_ROOT", default_value = "/host")]
    pub(crate) root: PathBuf,
    /// The folder that says where the masters are, as `run` has it
    #[arg(long, env = "DROVER_MASTERS_DIR", default_value = "/etc/drover/masters")]
    pub(crate) masters_dir: PathBuf,
    /// The service account token for audience `drover.dev/master`
    #[arg(long, env = "DROVER_TOKEN_FILE", default_value = "/var/run/secrets/drover/token")]
    pub(crate) token_file: PathBuf,
    /// The folder, on the machine itself, that outlives the agent
    #[arg(long, env = "DROVER_STATE_DIR", default_value = "/var/lib/drover")]
    pub(crate) state_dir: String,
    /// How many times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
    /// Milliseconds from one time to the next
    #[arg(long, value_name = "MILLIS", default_value_t = 1000)]
    pub(crate) every: u64,
}

/// How long what a program of `/etc/drover/facts.d` said counts.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct FactsTtl {
    /// Seconds until a program in /etc/drover/facts.d is asked again; one that was changed is asked at once
    #[arg(long = "facts-ttl", value_name = "SECONDS", env = "DROVER_FACTS_TTL", default_value_t = 3600)]
    seconds: u64,
}

impl FactsTtl {
    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Which facts are printed.
#[derive(Debug, Args)]
pub(crate) struct FactsOptions {
    /// One fact, such as `os.release.major`; else all of them
    pub(crate) name: Option<String>,
    /// The root of the machine, or a folder that stands for one
    #[arg(long, env = "DROVER_ROOT", default_value = "/")]
    pub(crate) root: PathBuf,
    /// The folder, on the machine itself, that remembers what programs said
    #[arg(long, env = "DROVER_STATE_DIR", default_value = "/var/lib/drover")]
    pub(crate) state_dir: String,
    /// Print what changes by itself as well (free memory, load, uptime, time), which templates do not know
    #[arg(long)]
    pub(crate) volatile: bool,
    /// Ask each program in /etc/drover/facts.d now, whatever it said before
    #[arg(long)]
    pub(crate) refresh: bool,
    #[command(flatten)]
    pub(crate) facts_ttl: FactsTtl,
}

/// Which copies are printed.
#[derive(Debug, Args)]
pub(crate) struct BackupsOptions {
    /// Only those of this path
    pub(crate) path: Option<String>,
    /// Print the content of the copy whose SHA-256 begins so
    #[arg(long, value_name = "SHA256", conflicts_with = "path")]
    pub(crate) show: Option<String>,
    /// The root of the machine, or a folder that stands for one
    #[arg(long, env = "DROVER_ROOT", default_value = "/")]
    pub(crate) root: PathBuf,
    /// The folder, on the machine itself, that has the copies
    #[arg(long, env = "DROVER_STATE_DIR", default_value = "/var/lib/drover")]
    pub(crate) state_dir: String,
}

/// One run.
#[derive(Debug, Args)]
pub(crate) struct ApplyOptions {
    /// A YAML file with NodeConfigs and the ConfigMaps and Secrets that they read, or a folder of such files; `-` for
    /// standard input. Can be given several times
    #[arg(short = 'f', long = "filename", required_unless_present_any = ["catalog", "explain"], conflicts_with = "catalog")]
    pub(crate) files: Vec<PathBuf>,
    /// A label that this machine shall have for `hostSelector`, beside `kubernetes.io/hostname` and `kubernetes.io/os`
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value, conflicts_with = "catalog")]
    pub(crate) labels: Vec<(String, String)>,
    /// A catalog, as JSON with its digest; `-` for standard input
    #[arg(long)]
    pub(crate) catalog: Option<PathBuf>,
    /// The root of the machine, or a folder that stands for one: an image that is being built, where nothing is started
    #[arg(long, env = "DROVER_ROOT", default_value = "/")]
    pub(crate) root: PathBuf,
    /// The folder, on the machine itself, that remembers what is still owed
    #[arg(long, env = "DROVER_STATE_DIR", default_value = "/var/lib/drover")]
    pub(crate) state_dir: String,
    /// Say what would change, with the differences of files, and change nothing
    #[arg(long)]
    pub(crate) noop: bool,
    /// Change nothing, and say why this resource is on the machine: from which NodeConfig, revision and data. Write
    /// `<NodeConfig>/<resource>`, or the resource alone. Without files or a catalog: of what the machine is kept by
    #[arg(long, value_name = "NAME")]
    pub(crate) explain: Option<String>,
    #[command(flatten)]
    pub(crate) facts_ttl: FactsTtl,
    /// What to print
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What a run prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// What is not unchanged, for people
    Table,
    /// The whole report
    Json,
}

/// What is logged, and how.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// What to log: `info`, or by module, such as `info,drover_apply=debug`
    #[arg(long, env = "DROVER_LOG", default_value = "info", global = true)]
    pub(crate) log: String,
    /// How to log
    #[arg(long, env = "DROVER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub(crate) log_format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// For machines
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
