//! `/livez`, `/readyz` and `/health`, as in etcd and Kubernetes.

use axum::{
    Json, Router,
    extract::{Path, RawQuery},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use url::form_urlencoded;

use super::HealthSource;

/// The state of every check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether the process works. These checks are never about peers, because a restart would not help there.
    pub live: Vec<Check>,
    /// Whether the process can serve.
    pub ready: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name: small letters and underscores.
    pub name: &'static str,
    /// Why it fails. `None` if it passes.
    pub failure: Option<String>,
    /// A remark for operators about a passing check, in one line.
    pub remark: Option<String>,
}

impl Check {
    /// A passing check.
    pub fn ok(name: &'static str) -> Self {
        Self { name, failure: None, remark: None }
    }

    /// A failing check, and why it fails, in one line.
    pub fn failed(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, failure: Some(why.into()), remark: None }
    }

    /// Adds a remark, in one line, to a check that passes or fails.
    #[must_use]
    pub fn remark(self, what: Option<String>) -> Self {
        Self { remark: what, ..self }
    }
}

/// The check that every set has. It passes whenever the process can answer.
const PING: &str = "ping";

/// etcd's answer on `/health`.
#[derive(serde::Serialize)]
struct EtcdHealth {
    health: &'static str,
    reason: String,
}

pub(super) fn router(source: HealthSource) -> Router {
    let (live, ready, health) = (source.clone(), source.clone(), source);
    Router::new()
        .merge(checks("/livez", move || live().live))
        .merge(checks("/readyz", move || ready().ready))
        .route("/health", get(move || std::future::ready(etcd_answer(health().ready))))
}

/// The endpoint of a set of checks, and below it the endpoints of its single checks.
fn checks(path: &'static str, source: impl Fn() -> Vec<Check> + Clone + Send + Sync + 'static) -> Router {
    let single = source.clone();
    let all = move |RawQuery(query): RawQuery| {
        let query = query.unwrap_or_default();
        let excluded = |check: &Check| {
            form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "exclude" && value == check.name)
        };
        let verbose = form_urlencoded::parse(query.as_bytes()).any(|(key, _)| key == "verbose");
        let checks: Vec<Check> = with_ping(source()).filter(|check| !excluded(check)).collect();
        std::future::ready(answer(&checks, verbose))
    };
    let one = move |Path(name): Path<String>| {
        let check = with_ping(single()).find(|check| check.name == name);
        std::future::ready(match check {
            Some(check) => answer(&[check], false),
            None => (StatusCode::NOT_FOUND, "404 page not found\n").into_response(),
        })
    };
    Router::new().route(path, get(all)).route(&format!("{path}/{{name}}"), get(one))
}

fn with_ping(checks: Vec<Check>) -> impl Iterator<Item = Check> {
    std::iter::once(Check::ok(PING)).chain(checks)
}

/// As etcd's `newHealthHandler`: the details are shown if a check fails, and otherwise on request.
fn answer(checks: &[Check], verbose: bool) -> Response {
    let lines: String = checks
        .iter()
        .map(|Check { name, failure, remark }| match (failure, remark) {
            (None, None) => format!("[+]{name} ok\n"),
            (None, Some(what)) => format!("[+]{name} ok: {what}\n"),
            (Some(why), _) => format!("[-]{name} failed: {why}\n"),
        })
        .collect();
    if checks.iter().any(|check| check.failure.is_some()) {
        (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
    } else {
        let lines = if verbose { lines } else { String::new() };
        (StatusCode::OK, lines + "ok\n").into_response()
    }
}

/// The reason is the first check that fails.
fn etcd_answer(checks: Vec<Check>) -> Response {
    match checks.into_iter().find_map(|check| check.failure) {
        None => Json(EtcdHealth { health: "true", reason: String::new() }).into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, Json(EtcdHealth { health: "false", reason })).into_response(),
    }
}
