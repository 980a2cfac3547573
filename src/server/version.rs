//! `GET /version`: the etcd version that this member claims to be (etcd's `etcdhttp.versionHandler`). The leader asks
//! every 4 s.

use axum::{
    extract::{Request, State},
    http::{Method, header},
    response::{IntoResponse, Response},
};

use crate::{
    server::{
        Endpoint,
        guard::{self, RequestRefusal},
    },
    wire::{headers::APPLICATION_JSON, version::Version},
};

pub(super) async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let version = endpoint.transport.identity().server_version;
    match guard::check_method(&request, &Method::GET) {
        Ok(()) => ([(header::CONTENT_TYPE, APPLICATION_JSON)], body(version)).into_response(),
        Err(refusal) => RequestRefusal::into_response(refusal),
    }
}

/// `version.Versions` as JSON. etcd 3.6 added the version of the data's layout on disk, which only etcd has. etcd
/// itself says `unknown` while it has none.
fn body(server: Version) -> String {
    let Version { major, minor, .. } = server;
    let storage = if (major, minor) >= (3, 6) { r#","storage":"unknown""# } else { "" };
    format!(r#"{{"etcdserver":"{server}","etcdcluster":"{major}.{minor}.0"{storage}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_version_is_the_server_version_without_its_patch() {
        assert_eq!(body(Version::new(3, 5, 35)), r#"{"etcdserver":"3.5.35","etcdcluster":"3.5.0"}"#);
        assert_eq!(
            body(Version::new(3, 6, 16)),
            r#"{"etcdserver":"3.6.16","etcdcluster":"3.6.0","storage":"unknown"}"#
        );
    }
}
