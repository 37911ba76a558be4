//! The gate on an HTTP answer.

use drover_crds::{HttpGate, HttpScheme, with_host};
use kube::ResourceExt as _;

use super::{Asker, TIMEOUT, Target, Told, internal_address};
use crate::objects;

impl Asker {
    pub(super) async fn http(&self, gate: &HttpGate, target: &Target) -> Told {
        let (client, url) = match (&gate.url, &target.node) {
            (Some(url), _) => match self.verifying() {
                Ok(client) => (client, with_host(url, target.host.as_deref())),
                // Nothing has to be verified.
                Err(_) if url.starts_with("http:") => (&self.machines, with_host(url, target.host.as_deref())),
                Err(told) => return told,
            },
            (None, None) => return Told::inconclusive("there is no Node to ask"),
            (None, Some(node)) => {
                let Some(address) = internal_address(node) else {
                    return Told::failed(format!("node {} has no InternalIP", node.name_any()));
                };
                let scheme = match gate.resolved_scheme() {
                    HttpScheme::Http => "http",
                    HttpScheme::Https => "https",
                };
                let host = if address.contains(':') { format!("[{address}]") } else { address };
                let port = gate.port.unwrap_or_default();
                (&self.machines, format!("{scheme}://{host}:{port}{}", gate.resolved_path()))
            }
        };
        match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => Told::passed(),
            Ok(answer) => Told::failed(format!("{url} answered {}", answer.status())),
            Err(error) if error.is_timeout() => {
                Told::failed(format!("{url} did not answer within {} s", TIMEOUT.as_secs()))
            }
            Err(error) => Told::failed(objects::chain(&error.without_url())),
        }
    }
}
