//! A joining member learns its identity from the members of the cluster (etcd's `GetClusterFromRemotePeers`).

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode, response};
use http_body_util::{BodyExt, Limited};
use tokio::time::{sleep, timeout};

mod auto;
mod bootstrapped;
mod undecided;

pub(super) use auto::{Found, find_out};
pub(super) use bootstrapped::{Birth, refuse_bootstrapped};
pub(super) use undecided::Undecided;

use super::{
    config::{Config, same_urls},
    error::Error,
    members::MemberRecord,
};
use crate::{
    dial::{
        client::Client,
        connection::{Connection, drive, drive_to_head, empty, full},
        urls::PeerUrl,
    },
    id::{ClusterId, MemberId},
    telemetry::Repeats,
    tls::Tls,
    wire::headers::{MEMBERS, X_ETCD_CLUSTER_ID},
};

/// How long one of them may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer, in bytes.
const ANSWER_BYTES: usize = 1 << 20;
/// How long to wait before all are asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// A running cluster, as one of its members described it.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) member: MemberId,
    pub(super) cluster: ClusterId,
    /// All members, including this one.
    pub(super) members: Vec<MemberRecord>,
    /// Whether this member was started before, which means that its client URLs are known.
    started: bool,
}

/// Asks members without naming a sender.
pub(super) struct Asker {
    client: Client,
}

impl Asker {
    /// Asks at peer URLs.
    pub(super) fn new(config: &Config) -> Self {
        Self::with(config.tls.as_ref(), config)
    }

    /// Asks at client URLs.
    fn as_client(config: &Config) -> Self {
        Self::with(config.tls_as_client.as_ref(), config)
    }

    fn with(tls: Option<&Tls>, config: &Config) -> Self {
        Self { client: Client::anonymous(tls.cloned(), Duration::from_secs(1), &config.world) }
    }

    /// Sends one request over a connection of its own, and returns the head and body of the answer.
    async fn exchange(
        &self,
        method: Method,
        url: &PeerUrl,
        path: &str,
        body: Option<String>,
    ) -> Result<(response::Parts, Bytes), String> {
        let exchange = async {
            let mut connection = self.client.dial(url).await.map_err(|error| error.to_string())?;
            let body = body.map_or_else(empty, |body| full(body.into()));
            let request = self.client.request(method, url, path).body(body).map_err(|error| error.to_string())?;
            let Connection { sender, driver, io, .. } = &mut connection;
            let answer = drive_to_head(driver, io, sender.send_request(request)).await;
            let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
            let body = drive(driver, Limited::new(body, ANSWER_BYTES).collect()).await;
            Ok((head, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// The membership, as the member at `url` has it.
    pub(super) async fn members(&self, url: &PeerUrl) -> Result<(ClusterId, Vec<MemberRecord>), String> {
        let (head, body) = self.exchange(Method::GET, url, MEMBERS, None).await?;
        read_members(&head, &body)
    }

    pub(super) async fn stop(&self) {
        self.client.stop().await;
    }
}

/// Asks the others while this member has no identity yet.
struct Seeker<'a> {
    own: &'a [PeerUrl],
    asker: Asker,
    /// Asks for changes of the membership, which members take at their client URLs.
    client: Asker,
    said: Option<String>,
    changes: Repeats,
}

impl<'a> Seeker<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            own: &config.initial_advertise_peer_urls,
            asker: Asker::new(config),
            client: Asker::as_client(config),
            said: None,
            changes: Repeats::default(),
        }
    }

    async fn stop(&self) {
        self.asker.stop().await;
        self.client.stop().await;
    }

    /// Waits a little before the others are asked again. Logs the reason when it changes.
    async fn pause(&mut self, why: String) {
        // Two reasons may alternate each second. A withheld one is logged later if it still holds.
        if self.said.as_ref() != Some(&why) && self.changes.note().is_some() {
            tracing::warn!(why, "waiting for the cluster; the others are asked again each second");
            self.said = Some(why);
        }
        sleep(PAUSE).await;
    }
}

fn read_members(head: &response::Parts, body: &[u8]) -> Result<(ClusterId, Vec<MemberRecord>), String> {
    if head.status != StatusCode::OK {
        return Err(format!("answered {}", head.status));
    }
    let cluster = cluster_of(head).ok_or("the answer has no cluster ID")?;
    let members =
        serde_json::from_slice(body).map_err(|error| format!("the answer is not a list of members: {error}"))?;
    Ok((cluster, members))
}

/// The cluster of the answering member, if it names one.
fn cluster_of(head: &response::Parts) -> Option<ClusterId> {
    head.headers.get(X_ETCD_CLUSTER_ID)?.to_str().ok()?.parse().ok()
}

/// Asks the members at the others' URLs again and again, until one answers with a membership that contains this member.
///
/// # Errors
/// A member says that this one was started before. One such answer is enough, because a member that is behind may not
/// know.
pub(super) async fn join(config: &Config) -> Result<Joined, Error> {
    let mut seeker = Seeker::new(config);
    let others: BTreeSet<&PeerUrl> =
        config.initial_cluster.iter().map(|(_, url)| url).filter(|url| !seeker.own.contains(url)).collect();
    loop {
        let told = join_all(others.iter().map(async |url| (*url, seeker.asker.members(url).await))).await;
        let (mut found, mut why) = (None, "initial-cluster names nobody else".to_owned());
        for (url, answer) in told {
            match answer.and_then(|(cluster, members)| find(seeker.own, cluster, members)) {
                Ok(Joined { member, started: true, .. }) => {
                    seeker.stop().await;
                    return Err(Error::bootstrapped(config, member, url));
                }
                Ok(joined) => found = found.or(Some(joined)),
                Err(error) => why = format!("{url}: {error}"),
            }
        }
        if let Some(joined) = found {
            seeker.stop().await;
            return Ok(joined);
        }
        seeker.pause(why).await;
    }
}

/// Finds our ID: that of the member with our URLs.
fn find(own: &[PeerUrl], cluster: ClusterId, members: Vec<MemberRecord>) -> Result<Joined, String> {
    let ours = ours(own, &members).ok_or("no member has our peer URLs")?;
    if ours.id == 0 || cluster.0 == 0 {
        return Err("told an ID of 0".to_owned());
    }
    Ok(Joined { member: MemberId(ours.id), cluster, started: !ours.client_urls.is_empty(), members })
}

/// The member with our URLs.
fn ours<'a>(own: &[PeerUrl], members: &'a [MemberRecord]) -> Option<&'a MemberRecord> {
    members.iter().find(|record| same_urls(&record.urls(), own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, urls: &[&str]) -> MemberRecord {
        MemberRecord { id, peer_urls: urls.iter().map(|url| (*url).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn we_are_who_has_our_urls_in_whatever_order() {
        let own = PeerUrl::list("http://h:1,http://h:2").expect("URLs");
        let members = vec![record(7, &["http://h:1"]), record(8, &["http://h:2", "http://h:1"])];
        let joined = find(&own, ClusterId(5), members.clone()).expect("it is there");
        assert_eq!((joined.member, joined.cluster, joined.members), (MemberId(8), ClusterId(5), members));
    }

    #[test]
    fn a_list_without_us_or_with_nobodys_id_is_not_believed() {
        let own = PeerUrl::list("http://h:1").expect("URLs");
        assert!(find(&own, ClusterId(5), vec![record(7, &["http://h:2"])]).is_err());
        assert!(find(&own, ClusterId(5), vec![record(0, &["http://h:1"])]).is_err());
        assert!(find(&own, ClusterId(0), vec![record(7, &["http://h:1"])]).is_err());
    }
}
