//! What a master is told on its command line.

use std::{net::SocketAddr, path::PathBuf};

/// Where a master serves, for whom, and how much at once. As `clap::Args` these are the flags of `drover master`.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The namespace of the fleet: its Hosts and revisions are read, and nothing outside it.
    #[arg(long, env = "DROVER_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,

    /// The address that agents are served on. `[::]:8443` serves IPv6 as well.
    #[arg(long, env = "DROVER_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,

    /// A folder with tls.crt and tls.key, as a mounted Secret of type kubernetes.io/tls has them. They are read again
    /// when they change.
    #[arg(long, env = "DROVER_TLS_DIR", value_name = "FOLDER", default_value = "/etc/drover/tls")]
    pub tls_dir: PathBuf,

    /// The user name of the agents' service account: system:serviceaccount:NAMESPACE:NAME. Tokens of all others are
    /// refused.
    #[arg(long, env = "DROVER_AGENT_SERVICE_ACCOUNT", value_name = "USER", value_parser = service_account)]
    pub agent_service_account: String,

    /// How many requests may be open at once. Each agent keeps one open, so plan for all agents of the fleet: when
    /// another master ends, its agents come here.
    #[arg(long, env = "DROVER_MAX_OPEN_REQUESTS", value_name = "COUNT", default_value_t = 20_000)]
    pub max_open_requests: usize,

    /// How many catalogs are compiled at once; the master's number of processors is a good choice.
    #[arg(long, env = "DROVER_COMPILE_SLOTS", value_name = "COUNT", default_value_t = 4)]
    pub compile_slots: usize,

    /// The address that metrics are served on, without TLS: `/metrics` for Prometheus and `/load` for the operator, which scales
    /// the pool by it. Left out: nowhere.
    #[arg(long, env = "DROVER_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
}

fn service_account(name: &str) -> Result<String, String> {
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) if !namespace.is_empty() && !account.is_empty() && !account.contains(':') => {
            Ok(name.to_owned())
        }
        _ => Err("write the full user name, such as system:serviceaccount:drover-system:drover-agent".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Master {
        #[command(flatten)]
        config: Config,
    }

    #[test]
    fn the_command_line_is_consistent_and_has_defaults() {
        Master::command().debug_assert();
        let account = "system:serviceaccount:drover-system:drover-agent";
        let parsed = Master::try_parse_from(["x", "--namespace", "drover-system", "--agent-service-account", account]);
        let config = parsed.ok().unwrap().config;
        assert_eq!((config.listen.port(), config.agent_service_account.as_str()), (8443, account));
    }

    #[test]
    fn a_bare_account_name_is_refused() {
        for name in [
            "drover-agent",
            "system:serviceaccount:drover-agent",
            "system:serviceaccount::x",
            "system:serviceaccount:a:b:c",
        ] {
            assert!(service_account(name).is_err(), "{name}");
        }
    }
}
