//! The HTTP side: health, metrics, the same documents as `-o json`, and a page that shows them.
//!
//! It changes nothing. On a loopback address it answers whoever is on the controller's host; on any other address
//! only health and metrics, because a browser shows no certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::api::{Api, Reader, no_document};
use crate::errors::Sort;
use crate::metrics::Metrics;
use crate::view::ErrorView;

const PAGE: &str = include_str!("dashboard.html");

/// What OpenMetrics text is sent as.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Shared {
    api: Api,
    metrics: Arc<Metrics>,
}

/// Serves until the listener's task is dropped.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    metrics: Arc<Metrics>,
) -> Result<(), std::io::Error> {
    let local = listener.local_addr().map(|address| address.ip().is_loopback())?;
    axum::serve(listener, router(api, metrics, local)).await
}

fn router(api: Api, metrics: Arc<Metrics>, local: bool) -> Router {
    let open = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(text));
    let (page, list, document) = if local {
        (get(|| async { Html(PAGE) }), get(list), get(read))
    } else {
        (get(elsewhere), get(elsewhere), get(elsewhere))
    };
    let all = open
        .route("/", page)
        .route("/api/v1", list.clone())
        .route("/api/v1/", list)
        .route("/api/v1/{*path}", document);
    all.method_not_allowed_fallback(read_only).fallback(nowhere).with_state(Shared { api, metrics })
}

async fn read_only() -> Response {
    let view = Sort::Usage.error("documents are only read here: use GET", "`rota` changes things");
    (StatusCode::METHOD_NOT_ALLOWED, error(view)).into_response()
}

async fn nowhere(uri: Uri) -> Response {
    error(no_document(uri.path()))
}

async fn elsewhere() -> Response {
    error(Sort::NotPermitted.error(
        "documents are only served on a loopback address",
        "use the `rota` command, or `--http 127.0.0.1:PORT` and an SSH tunnel",
    ))
}

async fn ready(State(shared): State<Shared>) -> Response {
    let state = shared.api.engine.read();
    match (&state.store_down, state.draining) {
        (Some(why), _) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("store: {why}\n")).into_response()
        }
        (None, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
        (None, false) => "ready\n".into_response(),
    }
}

async fn text(State(shared): State<Shared>) -> Response {
    let text = shared.metrics.text(&shared.api.engine.read());
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(cause) => error(Sort::Internal.error(cause.to_string(), "")),
    }
}

async fn list(State(shared): State<Shared>) -> Response {
    document(&shared, "").await
}

async fn read(
    State(shared): State<Shared>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let path = query.map_or(path.clone(), |query| format!("{path}?{query}"));
    document(&shared, &path).await
}

async fn document(shared: &Shared, path: &str) -> Response {
    match shared.api.read(path, Reader::Local).await {
        Ok(page) => ([(header::CONTENT_TYPE, "application/json")], page.json).into_response(),
        Err(refused) => error(refused),
    }
}

fn error(view: ErrorView) -> Response {
    let code = match Sort::of(&view.kind) {
        Sort::Usage | Sort::Manifest => StatusCode::BAD_REQUEST,
        Sort::NotFound => StatusCode::NOT_FOUND,
        Sort::NotPermitted => StatusCode::FORBIDDEN,
        Sort::Refused => StatusCode::CONFLICT,
        Sort::Store | Sort::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
        Sort::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, axum::Json(serde_json::json!({ "error": view }))).into_response()
}

/// Binds the HTTP address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, std::io::Error> {
    TcpListener::bind(address).await
}
