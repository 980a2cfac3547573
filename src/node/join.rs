//! A joining member learns its identity from the members of the cluster (etcd's `GetClusterFromRemotePeers`).

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, StatusCode, response};
use http_body_util::{BodyExt, Limited};
use tokio::time::{sleep, timeout};

mod auto;
mod bootstrapped;
mod quorum;
mod undecided;

pub(super) use auto::{Found, find_out};
pub(super) use bootstrapped::{BootstrapIdentity, refuse_bootstrapped};
pub(super) use undecided::Undecided;

use quorum::{MemberStatus, client_urls, listed_as};

use super::{
    config::{Config, same_urls},
    error::Error,
    members::MemberRecord,
};
use crate::{
    dial::{
        client::Client,
        connection::{DialledConnection, drive, drive_to_head, empty, full},
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
pub(super) struct MembersClient {
    client: Client,
}

impl MembersClient {
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
            let DialledConnection { sender, driver, io, .. } = &mut connection;
            let answer = drive_to_head(driver, io, sender.send_request(request)).await;
            let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
            let body = drive(driver, Limited::new(body, ANSWER_BYTES).collect()).await;
            Ok((head, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// The membership, as the member at `url` has it.
    pub(super) async fn members(&self, url: &PeerUrl) -> MembersResult {
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
    asker: MembersClient,
    /// Asks for changes of the membership, which members take at their client URLs.
    client: MembersClient,
    said: Option<String>,
    changes: Repeats,
}

impl<'a> Seeker<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            own: &config.initial_advertise_peer_urls,
            asker: MembersClient::new(config),
            client: MembersClient::as_client(config),
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

fn read_members(head: &response::Parts, body: &[u8]) -> MembersResult {
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

/// The members that one of the others lists, or why it lists none.
type MembersResult = Result<(ClusterId, Vec<MemberRecord>), String>;

/// What the others say of us.
#[derive(Debug)]
enum JoinVerdict<'a> {
    Join(Joined),
    /// We were started as this member, as the member at this URL says. All others answer, and none contradicts it.
    Started(MemberId, &'a PeerUrl),
    /// The lists of this cluster with us do not name one member, or not all know that it was started: some are old. Or a
    /// silent member may know that the started one was removed. A quorum decides.
    AskQuorum {
        cluster: ClusterId,
        /// What the lists name.
        found: Vec<Joined>,
        /// The client URLs at which it can be asked.
        through: Vec<PeerUrl>,
        /// What is said if none answers.
        why: String,
    },
    Wait(String),
}

/// Asks the members at the others' URLs again and again, until one answers with a membership that contains this member.
/// Whoever is behind may still list the member that was removed before this one was added. So a quorum decides if the
/// answers name different members with our URLs, or if one says that we were started and somebody is silent.
///
/// # Errors
/// A quorum says that this member was started before, or one member does, all others answer, and none contradicts it: a
/// member that is behind may not know.
pub(super) async fn join(config: &Config) -> Result<Joined, Error> {
    let mut seeker = Seeker::new(config);
    let others: BTreeSet<&PeerUrl> =
        config.initial_cluster.iter().map(|(_, url)| url).filter(|url| !seeker.own.contains(url)).collect();
    let joined = loop {
        let told = join_all(others.iter().map(async |url| (*url, seeker.asker.members(url).await))).await;
        let why = match judge(seeker.own, told) {
            JoinVerdict::Join(joined) => break Ok(joined),
            JoinVerdict::Started(member, url) => break Err(Error::bootstrapped(config, member, url)),
            JoinVerdict::AskQuorum { cluster, found, through, why } => match seeker.status(cluster, &through).await {
                Ok((MemberStatus::Started(member), url)) => break Err(Error::bootstrapped(config, member, url)),
                Ok((MemberStatus::Added(member), _)) => match listed_as(member, found) {
                    Ok(joined) => break Ok(joined),
                    Err(why) => why,
                },
                Ok((MemberStatus::Unknown, _)) => "no member has our peer URLs".to_owned(),
                Err(error) => format!("{why}, and no quorum says who we are: {error}"),
            },
            JoinVerdict::Wait(why) => why,
        };
        seeker.pause(why).await;
    };
    seeker.stop().await;
    joined
}

/// What follows from the answers of the others.
fn judge<'a>(own: &[PeerUrl], told: Vec<(&'a PeerUrl, MembersResult)>) -> JoinVerdict<'a> {
    let (mut found, mut why, mut silent) = (Vec::new(), None, None);
    let through = client_urls(own, told.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(|(_, list)| list));
    let mut is_missing = false;
    for (url, answer) in told {
        match &answer {
            Ok((_, members)) => is_missing |= ours(own, members).is_none(),
            Err(_) => silent = Some(url),
        }
        match answer.and_then(|(cluster, members)| find(own, cluster, members)) {
            Ok(joined) => found.push((url, joined)),
            Err(error) => why = Some(format!("{url}: {error}")),
        }
    }
    let Some((_, first)) = found.first() else {
        return JoinVerdict::Wait(why.unwrap_or_else(|| "initial-cluster names nobody else".to_owned()));
    };
    if let Some((url, other)) = found.iter().find(|(_, joined)| joined.cluster != first.cluster) {
        return JoinVerdict::Wait(format!(
            "we are in cluster {}, and, as {url} says, in {}",
            first.cluster, other.cluster
        ));
    }
    let (cluster, is_one) = (first.cluster, found.iter().all(|(_, joined)| joined.member == first.member));
    let why = match (found.iter().find(|(_, joined)| joined.started), silent) {
        (Some((url, joined)), None) if is_one && !is_missing => return JoinVerdict::Started(joined.member, url),
        (Some((url, joined)), Some(silent)) if is_one && !is_missing => format!(
            "{url} says that this was started as member {}, {silent} may know that it was removed since and does not \
             answer",
            joined.member
        ),
        (None, _) if is_one => return JoinVerdict::Join(found.swap_remove(0).1),
        _ => "the others do not agree which member has our peer URLs".to_owned(),
    };
    let found = found.into_iter().map(|(_, joined)| joined).collect();
    JoinVerdict::AskQuorum { cluster, found, through, why }
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

    /// What members at these ports answer: our ID, and whether we were started.
    fn judged(told: &[Option<(u64, bool)>]) -> String {
        let urls = PeerUrl::list("http://a:1,http://b:1,http://c:1").expect("URLs");
        let list = |(id, started): (u64, bool)| {
            let client_urls = if started { vec!["http://h:2".to_owned()] } else { Vec::new() };
            let other = MemberRecord { client_urls: vec!["http://a:2".to_owned()], ..record(1, &["http://a:1"]) };
            vec![other, MemberRecord { client_urls, ..record(id, &["http://h:1"]) }]
        };
        let answer = |told: &Option<(u64, bool)>| Ok((ClusterId(5), told.map_or_else(Vec::new, list)));
        let told = urls.iter().zip(told).map(|(url, told)| (url, answer(told))).collect();
        match judge(&PeerUrl::list("http://h:1").expect("a URL"), told) {
            JoinVerdict::Join(joined) => format!("join as {}", joined.member.0),
            JoinVerdict::Started(member, url) => format!("started as {}, says {url}", member.0),
            JoinVerdict::AskQuorum { found, through, .. } => format!("{} disagree, ask {through:?}", found.len()),
            JoinVerdict::Wait(why) => why,
        }
    }

    #[test]
    fn who_is_behind_is_not_believed_where_others_know_more() {
        let (old, new) = (Some((7, true)), Some((8, false)));
        let asked = |found: usize| format!("{found} disagree, ask {:?}", PeerUrl::list("http://a:2").expect("a URL"));
        assert_eq!(judged(&[new, old]), asked(2), "it was removed and added since");
        assert_eq!(judged(&[old, new, new]), asked(3));
        assert_eq!(judged(&[old, None]), asked(1), "it was removed since");
        assert_eq!(judged(&[Some((7, false)), new]), asked(2), "it was removed and added, and never started");
        assert_eq!(judged(&[new, None]), "join as 8", "it was added since");
        assert_eq!(judged(&[Some((7, false)), old]), "started as 7, says http://b:1", "it was started since");
        assert_eq!(judged(&[old]), "started as 7, says http://a:1", "nobody else answers");
        assert_eq!(judged(&[None, None]), "http://b:1: no member has our peer URLs");
    }

    /// The silent one may have added us anew since, and who answers may be cut off with us.
    #[test]
    fn who_alone_answers_that_we_were_started_is_not_believed_while_another_is_silent() {
        let own = PeerUrl::list("http://h:1").expect("a URL");
        let urls = PeerUrl::list("http://a:1,http://b:1").expect("URLs");
        let us = MemberRecord { client_urls: vec!["http://h:2".to_owned()], ..record(7, &["http://h:1"]) };
        let other = MemberRecord { client_urls: vec!["http://b:2".to_owned()], ..record(1, &["http://b:1"]) };
        let told =
            vec![(&urls[0], Ok((ClusterId(5), vec![us, other]))), (&urls[1], Err("no answer in time".to_owned()))];
        match judge(&own, told) {
            JoinVerdict::AskQuorum { through, why, .. } => {
                assert_eq!(through, PeerUrl::list("http://b:2").expect("a URL"));
                assert!(why.contains("http://b:1 may know") && why.contains("does not answer"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_is_listed_in_two_clusters_joins_neither() {
        let own = PeerUrl::list("http://h:1").expect("a URL");
        let urls = PeerUrl::list("http://a:1,http://b:1").expect("URLs");
        let answer = |cluster| Ok((ClusterId(cluster), vec![record(7, &["http://h:1"])]));
        let told = urls.iter().zip([5, 6]).map(|(url, cluster)| (url, answer(cluster))).collect();
        match judge(&own, told) {
            JoinVerdict::Wait(why) => assert_eq!(why, "we are in cluster 5, and, as http://b:1 says, in 6"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_list_without_us_or_with_nobodys_id_is_not_believed() {
        let own = PeerUrl::list("http://h:1").expect("URLs");
        assert!(find(&own, ClusterId(5), vec![record(7, &["http://h:2"])]).is_err());
        assert!(find(&own, ClusterId(5), vec![record(0, &["http://h:1"])]).is_err());
        assert!(find(&own, ClusterId(0), vec![record(7, &["http://h:1"])]).is_err());
    }
}
