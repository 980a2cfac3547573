//! `/kv/{key}`.

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::{ClientHandler, ClientRefusal, checked_key};
use crate::node::{
    proposals::{ProposalOutcome, ProposeError},
    request::Command,
};

/// `?consistency=`.
#[derive(Deserialize)]
pub(super) struct Consistency {
    consistency: Option<String>,
}

impl Consistency {
    /// Whether the state of this member is good enough.
    pub(super) fn is_local(&self) -> Result<bool, ClientRefusal> {
        match self.consistency.as_deref() {
            None | Some("linearizable") => Ok(false),
            Some("local") => Ok(true),
            Some(other) => Err(ClientRefusal::Bad(format!("consistency {other:?}: expected linearizable or local"))),
        }
    }
}

pub(super) async fn read(
    State(client): State<ClientHandler>,
    Path(key): Path<String>,
    Query(consistency): Query<Consistency>,
) -> Result<Response, ClientRefusal> {
    let key = checked_key(key)?;
    let _permit = client.admit()?;
    if !consistency.is_local()? {
        client.catch_up().await?;
    }
    let reader = client.reader.clone();
    let value = client.world.blocking(move || reader.value(&key)).await;
    match value {
        Ok(Ok(Some(value))) => Ok(([(header::CONTENT_TYPE, "application/octet-stream")], value).into_response()),
        Ok(Ok(None)) => Err(ClientRefusal::NotFound("no such key")),
        Ok(Err(_)) if client.shared.status().suspended.is_some() => Err(ProposeError::Suspended.into()),
        Ok(Err(error)) => {
            if let Some(times) = client.unreadable.note() {
                tracing::error!(%error, times, "a value cannot be read");
            }
            Err(ClientRefusal::Store)
        }
        Err(_) => Err(ClientRefusal::Store),
    }
}

pub(super) async fn write(
    State(client): State<ClientHandler>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ClientRefusal> {
    let key = checked_key(key)?;
    let _permit = client.admit()?;
    let (value, _room) = client.body(&headers, body, client.max_value_bytes).await?;
    client.has_space()?;
    client.command(Command::Put { key, value }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn delete(
    State(client): State<ClientHandler>,
    Path(key): Path<String>,
) -> Result<StatusCode, ClientRefusal> {
    let key = checked_key(key)?;
    let _permit = client.admit()?;
    match client.command(Command::Delete { key }).await? {
        ProposalOutcome::Written { found: false } => Err(ClientRefusal::NotFound("no such key")),
        ProposalOutcome::Written { found: true } | ProposalOutcome::Membership | ProposalOutcome::Refused(_) => {
            Ok(StatusCode::NO_CONTENT)
        }
    }
}
