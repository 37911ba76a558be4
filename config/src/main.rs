//! `drover-config` writes the generated files of the repository; with `--check` it only compares them.

use clap::Parser;

/// Writes the definitions of Drover's kinds to config/crd and helm/drover/crds, and docs/resources.md from the same types.
#[derive(Parser)]
#[command(name = "drover-config", version)]
struct Options {
    /// Write nothing; fail when a file is out of date.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let root = drover_config::repository();
    if Options::parse().check { drover_config::check(&root) } else { drover_config::write(&root) }
}
