//! Whether the cluster is to be made, or runs already: `--initial-cluster-state auto`.
//!
//! A member without data asks all others of its initial cluster, until what they say leaves one thing to do:
//!
//! | what is heard | what is done |
//! |---|---|
//! | nobody has a cluster, and everybody was heard | the cluster is made |
//! | the cluster that the initial cluster makes has been made, and we have never been in it | so do we |
//! | a cluster in which we are, and have never been started, and everybody was heard | we join it |
//! | the same, and somebody was not heard | we ask for the members as a quorum has them, and join, or are removed, as it says |
//! | a cluster in which we are not | we are added as a learner, and join |
//! | a cluster in which we were started or met, from another disk | that member is removed, and we are added as a learner |
//!
//! Nobody makes a cluster while one of the others is silent, since it may have one. Who lost its disk never comes back
//! under its old ID: it would have forgotten its vote, and what it acknowledged. A member was started when it has told its
//! client URLs, which who joins so does before it asks for a vote. It was met when another one knows its incarnation: no
//! start from an empty directory is heard under its ID any more. Who is silent may be the one that heard them; and who
//! waited for all could not take the place of a member that is gone.
//!
//! Before it takes an ID, or removes it, it asks at its own peer URLs. Where another process answers there as that
//! member, the member has not lost its disk: this start ends.

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde::Deserialize;

use super::{Joined, Seeker, cluster_of, find, ours, read_members, undecided};
use crate::{
    dial::urls::PeerUrl,
    id::{ClusterId, MemberId},
    node::{
        config::{Config, InitialMember},
        error::Error,
        members::MemberRecord,
    },
    wire::headers::{MEMBERS, met},
};

/// What there is to do for a member without data.
#[derive(Debug)]
pub(in crate::node) enum Found {
    /// To make the cluster, as all members of the initial cluster do.
    New,
    /// To join the one that there is.
    Existing(Joined),
}

/// Who we are in the cluster that the initial cluster makes.
#[derive(Clone, Copy, Debug)]
struct Birth {
    member: MemberId,
    cluster: ClusterId,
}

/// What one of the others said.
#[derive(Clone, Debug)]
enum Heard {
    /// The cluster that it is in, and of which members it knows a start.
    Cluster(ClusterId, Vec<MemberRecord>, Vec<MemberId>),
    /// It does not know yet either, and would make this one.
    Undecided(ClusterId),
    /// Nothing that helps.
    Nothing(String),
}

#[derive(Debug)]
enum Verdict {
    Done(Found),
    /// We are to be added, by one of these client URLs.
    Add(Vec<PeerUrl>),
    /// What we were before is to be removed, by one of these client URLs.
    Remove(MemberId, Vec<PeerUrl>),
    /// We are to join, if a quorum says by one of these client URLs that we were never started: somebody is silent.
    Confirm(Joined, Vec<PeerUrl>, String),
    Wait(String),
}

impl Verdict {
    /// The listed ID that is to be taken, or to be removed.
    fn claims(&self, birth: Birth) -> Option<MemberId> {
        match self {
            Self::Done(Found::New) => Some(birth.member),
            Self::Done(Found::Existing(joined)) | Self::Confirm(joined, ..) => Some(joined.member),
            Self::Remove(id, _) => Some(*id),
            Self::Add(_) | Self::Wait(_) => None,
        }
    }
}

/// Asks the others, again and again, until one thing is left to do. `members` are those of the initial cluster, `member`
/// and `cluster` who we are if it is made.
///
/// # Errors
/// When the member that this one would be, or would remove, runs at our own peer URLs.
pub(in crate::node) async fn find_out(
    config: &Config,
    members: &[InitialMember],
    member: MemberId,
    cluster: ClusterId,
) -> Result<Found, Error> {
    let birth = Birth { member, cluster };
    let mut seeker = Seeker::new(config);
    let others = || members.iter().filter(|member| member.name != config.name);
    loop {
        let heard =
            join_all(others().map(async |member| (member.name.as_str(), seeker.listen(&member.urls).await))).await;
        let verdict = judge(seeker.own, birth, &heard);
        if let Some(id) = verdict.claims(birth)
            && let Some(url) = seeker.finds_running(id, cluster_heard(&heard).unwrap_or(cluster)).await
        {
            seeker.stop().await;
            return Err(Error::runs(config, id, url));
        }
        let done = match verdict {
            Verdict::Done(found) => Ok(Some(found)),
            Verdict::Add(through) => seeker.add(&config.name, &through).await.map(|()| None),
            Verdict::Remove(id, through) => seeker.remove(id, &through).await.map(|()| None),
            Verdict::Confirm(joined, through, silent) => match seeker.was_started(joined.member, &through).await {
                Ok(true) => seeker.remove(joined.member, &through).await.map(|()| None),
                Ok(false) => Ok(Some(Found::Existing(joined))),
                Err(why) => Err(format!("{silent}; and no quorum says whether this member was started: {why}")),
            },
            Verdict::Wait(why) => Err(why),
        };
        match done {
            Ok(Some(found)) => {
                seeker.stop().await;
                return Ok(found);
            }
            Ok(None) => {}
            Err(why) => seeker.pause(why).await,
        }
    }
}

/// A member, as members tell it to clients.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: MemberId,
    #[serde(rename = "clientURLs")]
    client_urls: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    members: Vec<Listed>,
}

impl Seeker<'_> {
    /// What a member says, by the first of its URLs that helps.
    async fn listen(&self, urls: &[PeerUrl]) -> Heard {
        let mut why = String::new();
        for url in urls {
            match self.asker.exchange(Method::GET, url, MEMBERS, None).await {
                Ok((head, _)) if let Some(cluster) = undecided::read(&head) => return Heard::Undecided(cluster),
                Ok((head, body)) => match read_members(&head, &body) {
                    Ok((cluster, members)) => return Heard::Cluster(cluster, members, met(&head.headers).collect()),
                    Err(error) => why = format!("{url}: {error}"),
                },
                Err(error) => why = format!("{url}: {error}"),
            }
        }
        Heard::Nothing(why)
    }

    /// The URL of ours at which this member of this cluster answers. We do not: who is undecided tells no cluster ID. Who
    /// has just joined tells no list yet; and a list without the member is that of an earlier one, which was removed.
    async fn finds_running(&self, id: MemberId, cluster: ClusterId) -> Option<&PeerUrl> {
        let ask = async |url| (url, self.asker.exchange(Method::GET, url, MEMBERS, None).await);
        let answers = join_all(self.own.iter().map(ask)).await;
        answers.into_iter().find_map(|(url, answer)| {
            let (head, body) = answer.ok()?;
            let is_it = cluster_of(&head) == Some(cluster)
                && read_members(&head, &body).map_or(true, |(_, members)| members.iter().any(|told| told.id == id.0));
            is_it.then_some(url)
        })
    }

    async fn add(&self, name: &str, through: &[PeerUrl]) -> Result<(), String> {
        let body = serde_json::json!({ "name": name, "peerURLs": self.own, "isLearner": true });
        self.change(Method::POST, MEMBERS, Some(&body.to_string()), through).await?;
        tracing::info!("added to the cluster as a learner");
        Ok(())
    }

    async fn remove(&self, id: MemberId, through: &[PeerUrl]) -> Result<(), String> {
        tracing::warn!(member = %id, "the cluster knows this member, but its disk is empty: it is removed, to be added anew");
        self.change(Method::DELETE, &format!("/members/{id}"), None, through).await
    }

    /// Whether the member has told its client URLs, as a quorum knows: what a client reads of the members is linearizable.
    async fn was_started(&self, id: MemberId, through: &[PeerUrl]) -> Result<bool, String> {
        let body = self.request(Method::GET, MEMBERS, None, through).await?;
        let list: List =
            serde_json::from_slice(&body).map_err(|error| format!("the answer is not a list of members: {error}"))?;
        let us = list.members.into_iter().find(|listed| listed.id == id);
        us.map(|us| !us.client_urls.is_empty()).ok_or_else(|| format!("member {id} is no member any more"))
    }

    async fn change(&self, method: Method, path: &str, body: Option<&str>, through: &[PeerUrl]) -> Result<(), String> {
        self.request(method, path, body, through).await.map(drop)
    }

    /// Asks members at their client URLs, one after the other, until one has done it; its answer.
    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&str>,
        through: &[PeerUrl],
    ) -> Result<Bytes, String> {
        let mut why = "no member tells a client URL".to_owned();
        for url in through {
            match self.client.exchange(method.clone(), url, path, body.map(str::to_owned)).await {
                Ok((head, body)) if head.status.is_success() => return Ok(body),
                Ok((head, body)) => {
                    why = format!("{url}: {method} {path}: {}: {}", head.status, String::from_utf8_lossy(&body).trim());
                }
                Err(error) => why = format!("{url}: {error}"),
            }
        }
        Err(why)
    }
}

/// The cluster of the first that is in one.
fn cluster_heard(heard: &[(&str, Heard)]) -> Option<ClusterId> {
    heard.iter().find_map(|(_, heard)| match heard {
        Heard::Cluster(cluster, ..) => Some(*cluster),
        Heard::Undecided(_) | Heard::Nothing(_) => None,
    })
}

/// What is left to do, as the table above has it.
fn judge(own: &[PeerUrl], birth: Birth, heard: &[(&str, Heard)]) -> Verdict {
    let clusters = || {
        heard.iter().filter_map(|(name, heard)| match heard {
            Heard::Cluster(cluster, members, _) => Some((*name, *cluster, members)),
            Heard::Undecided(_) | Heard::Nothing(_) => None,
        })
    };
    let silent = heard.iter().find_map(|(name, heard)| match heard {
        Heard::Nothing(why) => Some(format!("{name} may have a cluster, and is not heard: {why}")),
        Heard::Cluster(..) | Heard::Undecided(_) => None,
    });
    let stranger = heard.iter().find_map(|(name, heard)| match heard {
        Heard::Undecided(cluster) if *cluster != birth.cluster => {
            Some(format!("{name} has another initial cluster, or another token"))
        }
        _ => None,
    });
    let Some((first, cluster, members)) = clusters().next() else {
        return match silent.or(stranger) {
            Some(why) => Verdict::Wait(why),
            None => Verdict::Done(Found::New),
        };
    };
    if let Some((name, other, _)) = clusters().find(|(_, other, _)| *other != cluster) {
        return Verdict::Wait(format!("{first} is in cluster {cluster}, {name} in {other}"));
    }
    let records = || clusters().filter_map(|(_, _, members)| ours(own, members));
    let is_met = |id| heard.iter().any(|(_, heard)| matches!(heard, Heard::Cluster(_, _, met) if met.contains(&id)));
    if let Some(before) = records().find(|record| !record.client_urls.is_empty() || is_met(MemberId(record.id))) {
        return Verdict::Remove(MemberId(before.id), client_urls(own, members));
    }
    match records().next() {
        None => Verdict::Add(client_urls(own, members)),
        Some(record) if (MemberId(record.id), cluster) == (birth.member, birth.cluster) => match silent {
            // Who is silent may know that we have been started.
            Some(why) => Verdict::Wait(why),
            None => Verdict::Done(Found::New),
        },
        Some(_) => {
            let mut lists = clusters().map(|(_, cluster, members)| find(own, cluster, members.clone()));
            match (lists.find_map(Result::ok), silent) {
                (Some(joined), Some(why)) => Verdict::Confirm(joined, client_urls(own, members), why),
                (Some(joined), None) => Verdict::Done(Found::Existing(joined)),
                (None, _) => Verdict::Wait(format!("{first} tells an ID of 0")),
            }
        }
    }
}

/// Where the members that have been started take changes.
fn client_urls(own: &[PeerUrl], members: &[MemberRecord]) -> Vec<PeerUrl> {
    let us = ours(own, members).map(|record| record.id);
    let others = members.iter().filter(|record| Some(record.id) != us);
    others.flat_map(|record| &record.client_urls).filter_map(|url| url.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIRTH: Birth = Birth { member: MemberId(3), cluster: ClusterId(9) };

    fn own() -> Vec<PeerUrl> {
        PeerUrl::list("http://n3:2380").expect("a URL")
    }

    /// A member `nID`, which has been started or not.
    fn record(id: u64, place: u64, started: bool) -> MemberRecord {
        MemberRecord {
            id,
            peer_urls: vec![format!("http://n{place}:2380")],
            client_urls: if started { vec![format!("http://n{place}:2379")] } else { Vec::new() },
            ..MemberRecord::default()
        }
    }

    fn cluster(id: u64, members: &[MemberRecord]) -> Heard {
        Heard::Cluster(ClusterId(id), members.to_vec(), Vec::new())
    }

    /// The same, from who knows a start of a member.
    fn knows(id: u64, members: &[MemberRecord], met: u64) -> Heard {
        Heard::Cluster(ClusterId(id), members.to_vec(), vec![MemberId(met)])
    }

    fn verdict(heard: &[Heard]) -> Verdict {
        let named: Vec<(&str, Heard)> = ["n1", "n2"].into_iter().zip(heard.iter().cloned()).collect();
        judge(&own(), BIRTH, &named)
    }

    fn silent() -> Heard {
        Heard::Nothing("connection refused".to_owned())
    }

    #[test]
    fn a_cluster_is_made_when_everybody_was_heard_and_nobody_has_one() {
        let undecided = Heard::Undecided(BIRTH.cluster);
        assert!(matches!(verdict(&[undecided.clone(), undecided.clone()]), Verdict::Done(Found::New)));
        assert!(matches!(verdict(&[]), Verdict::Done(Found::New)), "a member alone");
        assert!(matches!(verdict(&[undecided.clone(), silent()]), Verdict::Wait(_)), "it may have one");
        let elsewhere = Heard::Undecided(ClusterId(8));
        assert!(matches!(verdict(&[undecided, elsewhere]), Verdict::Wait(_)), "it would make another one");
    }

    #[test]
    fn who_is_late_for_the_birth_of_its_cluster_is_born_with_it() {
        let made = cluster(9, &[record(1, 1, true), record(2, 2, false), record(3, 3, false)]);
        let found = verdict(&[made.clone(), Heard::Undecided(BIRTH.cluster)]);
        assert!(matches!(found, Verdict::Done(Found::New)), "{found:?}");
        assert!(matches!(verdict(&[made, silent()]), Verdict::Wait(_)), "the other one may know that we were there");
    }

    #[test]
    fn who_is_not_in_the_cluster_is_added_by_who_is_started() {
        let running = cluster(7, &[record(1, 1, true), record(2, 2, false)]);
        match verdict(&[running, silent()]) {
            Verdict::Add(through) => assert_eq!(through, PeerUrl::list("http://n1:2379").expect("a URL")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_was_added_joins_though_another_one_has_not_heard_of_it() {
        let before = cluster(7, &[record(1, 1, true), record(2, 2, true)]);
        let after = cluster(7, &[record(1, 1, true), record(2, 2, true), record(33, 3, false)]);
        match verdict(&[before, after]) {
            Verdict::Done(Found::Existing(joined)) => assert_eq!(joined.member, MemberId(33)),
            other => panic!("{other:?}"),
        }
    }

    /// The same word of the same member is not enough while another one may know better.
    #[test]
    fn who_was_added_asks_a_quorum_while_somebody_is_silent() {
        let running = cluster(7, &[record(1, 1, true), record(2, 2, true), record(33, 3, false)]);
        match verdict(&[running, silent()]) {
            Verdict::Confirm(joined, through, _) => {
                assert_eq!((joined.member, through.len()), (MemberId(33), 2));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_lost_its_disk_is_removed_before_it_comes_back_even_if_one_only_knows_that_it_was_started() {
        let behind = cluster(9, &[record(1, 1, true), record(2, 2, true), record(3, 3, false)]);
        let knows = cluster(9, &[record(1, 1, true), record(2, 2, true), record(3, 3, true)]);
        for heard in [[behind, knows.clone()], [knows, silent()]] {
            match verdict(&heard) {
                Verdict::Remove(id, through) => {
                    assert_eq!((id, through.len()), (MemberId(3), 2), "{heard:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn who_was_met_and_has_told_nothing_is_removed_before_it_comes_back() {
        let born = [record(1, 1, true), record(2, 2, true), record(3, 3, false)];
        let added = [record(1, 1, true), record(2, 2, true), record(33, 3, false)];
        for (members, cluster_id, id) in [(born, 9, 3), (added, 7, 33)] {
            let stranger = cluster(cluster_id, &members);
            for other in [stranger.clone(), silent()] {
                match verdict(&[knows(cluster_id, &members, id), other]) {
                    Verdict::Remove(removed, through) => assert_eq!((removed.0, through.len()), (id, 2)),
                    other => panic!("{other:?}"),
                }
            }
            let found = verdict(&[knows(cluster_id, &members, 2), stranger]);
            assert!(matches!(found, Verdict::Done(_)), "another one was met: {found:?}");
        }
    }

    #[test]
    fn two_clusters_are_nobodys_to_choose_from() {
        let (one, two) = (cluster(7, &[record(1, 1, true)]), cluster(8, &[record(2, 2, true)]));
        assert!(matches!(verdict(&[one, two]), Verdict::Wait(_)));
    }
}
