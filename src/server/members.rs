//! `GET /members`: the members of the cluster, for a member that joins it (etcd's `peerMembersHandler`).

use axum::{
    extract::{Request, State},
    http::{Method, header},
    response::{IntoResponse, Response},
};

use crate::{
    dial::urls::PeerUrl,
    server::{
        Endpoint,
        guard::{self, RequestRefusal, Requester},
    },
    transport::{
        Transport,
        raft::{Member, Members},
    },
    wire::headers::{APPLICATION_JSON, X_RAFTHTTP_MET},
};

/// etcd's `membership.Member` as JSON: the ID is decimal, and empty fields are left out.
#[derive(serde::Serialize)]
struct PeerMemberJson<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [PeerUrl],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

impl<'a> From<&'a Member> for PeerMemberJson<'a> {
    fn from(member: &'a Member) -> Self {
        let Member { id, name, peer_urls, client_urls, is_learner } = member;
        Self { id: id.0, peer_urls, is_learner: *is_learner, name, client_urls }
    }
}

pub(super) async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let transport = &endpoint.transport;
    guard::answer(transport, &Requester::of(&request), list(transport, &request))
}

fn list(transport: &Transport, request: &Request) -> Result<Response, RequestRefusal> {
    guard::check_method(request, &Method::GET)?;
    let members = transport.raft().members().ok_or(RequestRefusal::PageNotFound)?;
    let mut response = ([(header::CONTENT_TYPE, APPLICATION_JSON)], body(&members)).into_response();
    let met = members.0.iter().map(|member| member.id).filter(|id| transport.raft().has_met(*id));
    let met: Vec<String> = met.map(|id| id.to_string()).collect();
    if !met.is_empty() {
        response.headers_mut().insert(X_RAFTHTTP_MET, guard::printed(met.join(",")));
    }
    Ok(response)
}

/// The list, sorted by ID, with the newline that Go's JSON encoder adds.
fn body(members: &Members) -> String {
    let mut list: Vec<PeerMemberJson<'_>> = members.0.iter().map(PeerMemberJson::from).collect();
    list.sort_unstable_by_key(|member| member.id);
    let mut json = serde_json::to_string(&list).expect("numbers and texts alone are always JSON");
    json.push('\n');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MemberId;

    #[test]
    fn members_are_sorted_and_written_as_etcd_writes_them() {
        let url = |text: &str| vec![text.parse().expect("a peer URL")];
        let learner = Member {
            id: MemberId(0x8e9e_05c5_2164_694d),
            name: String::new(),
            peer_urls: url("http://b:2380"),
            client_urls: vec![],
            is_learner: true,
        };
        let voter = Member {
            id: MemberId(10),
            name: "a".to_owned(),
            peer_urls: url("http://a:2380"),
            client_urls: vec!["http://a:2379".to_owned()],
            is_learner: false,
        };
        assert_eq!(
            body(&Members(vec![learner, voter])),
            concat!(
                r#"[{"id":10,"peerURLs":["http://a:2380"],"name":"a","clientURLs":["http://a:2379"]},"#,
                r#"{"id":10276657743932975437,"peerURLs":["http://b:2380"],"isLearner":true}]"#,
                "\n"
            )
        );
    }
}
