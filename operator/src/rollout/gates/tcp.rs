//! The gate on a port of a machine.

use drover_crds::TcpGate;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use tokio::{net::TcpStream, time::timeout};

use super::{TIMEOUT, Told, internal_address};

pub(super) async fn connect(node: &Node, gate: &TcpGate) -> Told {
    let Some(address) = internal_address(node) else {
        return Told::failed(format!("node {} has no InternalIP", node.name_any()));
    };
    let port = u16::try_from(gate.port).unwrap_or_default();
    match timeout(TIMEOUT, TcpStream::connect((address.as_str(), port))).await {
        Ok(Ok(_)) => Told::passed(),
        Ok(Err(error)) => Told::failed(format!("port {port} of {address}: {error}")),
        Err(_) => Told::failed(format!("port {port} of {address} did not answer within {} s", TIMEOUT.as_secs())),
    }
}
