//! What the kubelet asks: `/healthz` while the process answers, `/readyz` once the API server was reached. And `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, http::StatusCode, routing::get};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Serves until the token is cancelled.
pub(crate) async fn serve(
    listen: SocketAddr,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let router = Router::new()
        .route("/healthz", get(|| async { StatusCode::OK }))
        .route("/readyz", get(|| async { StatusCode::OK }))
        .route("/metrics", get(|| async move { metrics.told() }));
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}
