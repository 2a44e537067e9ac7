//! `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, http::header, routing::get};
use tokio::net::TcpListener;

use crate::progress::Progress;

/// Serves the progress for as long as the process lives. A download is not given up because nobody
/// can watch it, so failures are only logged.
pub async fn serve(address: SocketAddr, progress: Arc<Progress>) {
    let page = move || async move {
        let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (kind, progress.text())
    };
    let router = Router::new().route("/metrics", get(page));
    let served = async {
        let listener = TcpListener::bind(address).await?;
        axum::serve(listener, router).await
    };
    if let Err(error) = served.await {
        tracing::warn!("no metrics on {address}: {error}");
    }
}
