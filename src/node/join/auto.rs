//! `--initial-cluster-state auto`: finds out whether the cluster has to be made, or runs already.
//!
//! A member without data asks all others of its initial cluster, until their answers leave only one thing to do:
//!
//! | what the others answer | what is done |
//! |---|---|
//! | nobody has a cluster, and everybody answered | the cluster is made |
//! | the cluster of the initial cluster has been made, and we have never been in it | we make it, too |
//! | a cluster has us as a member that was never started, and everybody answered | we join it |
//! | the same, but somebody is silent | we ask for the members as a quorum has them, and join or are removed accordingly |
//! | a cluster does not have us | we are added as a learner, and join |
//! | a cluster has us as a member that was started or met, from another disk | it is removed, and we are added as a learner |
//! | the others do not agree which member has our URLs | some are behind: what a quorum knows is done |
//!
//! Nobody makes a cluster while one of the others is silent, because the silent one may have a cluster. A member that
//! lost its disk never comes back under its old ID, because it has forgotten its vote and what it acknowledged. A
//! member counts as started once it has told the cluster its client URLs; a joining member does so before it asks for a
//! vote. A member counts as met if another one knows its incarnation: no start from an empty directory is heard under
//! its ID any more. A silent member may be the only one that knows this. But a member that waited for all others could
//! not take the place of one that is gone.
//!
//! Before it takes an ID or removes it, it asks at its own peer URLs. If another process answers there as that member,
//! the member has not lost its disk, and this start ends.

use futures_util::future::join_all;
use http::Method;

use super::{
    Joined, Seeker, cluster_of, find, ours,
    quorum::{MemberStatus, client_urls, listed_as},
    read_members, undecided,
};
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

/// What a member without data has to do.
#[derive(Debug)]
pub(in crate::node) enum Found {
    /// Make the cluster, as all members of the initial cluster do.
    New,
    /// Join the existing cluster.
    Existing(Joined),
}

/// Our identity in the cluster that the initial cluster makes.
#[derive(Clone, Copy, Debug)]
struct InitialIdentity {
    member: MemberId,
    cluster: ClusterId,
}

/// The answer of one of the others.
#[derive(Clone, Debug)]
enum Heard {
    /// Its cluster, the members, and the members that it knows a start of.
    Cluster(ClusterId, Vec<MemberRecord>, Vec<MemberId>),
    /// It does not know yet either, and would make this cluster.
    Undecided(ClusterId),
    /// No useful answer, for this reason.
    Nothing(String),
}

#[derive(Debug)]
enum AutoVerdict {
    Done(Found),
    /// We have to be added, at one of these client URLs.
    Add(Vec<PeerUrl>),
    /// Our old self has to be removed, at one of these client URLs.
    Remove(MemberId, Vec<PeerUrl>),
    /// Only a quorum, at one of these client URLs, can say which member has our peer URLs, and whether it was started. The
    /// reason is what is said if none does.
    Disagree(Vec<PeerUrl>, String),
    Wait(String),
}

impl AutoVerdict {
    /// The listed ID that we would take or remove.
    fn claims(&self, birth: InitialIdentity) -> Option<MemberId> {
        match self {
            Self::Done(Found::New) => Some(birth.member),
            Self::Done(Found::Existing(joined)) => Some(joined.member),
            Self::Remove(id, _) => Some(*id),
            Self::Add(_) | Self::Disagree(..) | Self::Wait(_) => None,
        }
    }
}

/// Asks the others again and again, until only one thing is left to do. `members` are those of the initial cluster.
/// `member` and `cluster` are our identity if the cluster is made.
///
/// # Errors
/// The member that this one would take the place of, or would remove, runs at our own peer URLs.
pub(in crate::node) async fn find_out(
    config: &Config,
    members: &[InitialMember],
    member: MemberId,
    cluster: ClusterId,
) -> Result<Found, Error> {
    let birth = InitialIdentity { member, cluster };
    let mut seeker = Seeker::new(config);
    let others = || members.iter().filter(|member| member.name != config.name);
    loop {
        let heard =
            join_all(others().map(async |member| (member.name.as_str(), seeker.listen(&member.urls).await))).await;
        let running = cluster_heard(&heard).unwrap_or(cluster);
        let verdict = match judge(seeker.own, birth, &heard) {
            AutoVerdict::Disagree(through, why) => seeker.decide(running, &heard, &through, &why).await,
            verdict => verdict,
        };
        if let Some(id) = verdict.claims(birth)
            && let Some(url) = seeker.finds_running(id, running).await
        {
            seeker.stop().await;
            return Err(Error::runs(config, id, url));
        }
        let done = match verdict {
            AutoVerdict::Done(found) => Ok(Some(found)),
            AutoVerdict::Add(through) => seeker.add(&config.name, running, &through).await.map(|()| None),
            AutoVerdict::Remove(id, through) => seeker.remove(id, running, &through).await.map(|()| None),
            // Whatever there is to decide has been decided.
            AutoVerdict::Disagree(_, why) | AutoVerdict::Wait(why) => Err(why),
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

impl Seeker<'_> {
    /// The answer of a member, from the first of its URLs that gives a useful one.
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

    /// The URL of ours at which this member of this cluster answers, if any. Our own process does not count: an
    /// undecided member sends no cluster ID. A member that has just joined has no list yet. A list without the member
    /// is an earlier member's, which was removed.
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

    /// What is left to do, as a quorum of the cluster knows it. A change is asked of the member that has said so.
    async fn decide(&self, cluster: ClusterId, heard: &[(&str, Heard)], through: &[PeerUrl], why: &str) -> AutoVerdict {
        match self.status(cluster, through).await {
            Ok((MemberStatus::Unknown, url)) => AutoVerdict::Add(vec![url.clone()]),
            Ok((MemberStatus::Started(id), url)) => AutoVerdict::Remove(id, vec![url.clone()]),
            Ok((MemberStatus::Added(id), url)) if is_met(heard, id) => AutoVerdict::Remove(id, vec![url.clone()]),
            Ok((MemberStatus::Added(id), _)) => {
                let lists =
                    clusters(heard).filter_map(|(_, cluster, members)| find(self.own, cluster, members.clone()).ok());
                match listed_as(id, lists) {
                    Ok(joined) => AutoVerdict::Done(Found::Existing(joined)),
                    Err(why) => AutoVerdict::Wait(why),
                }
            }
            Err(error) => AutoVerdict::Wait(format!("{why}: {error}")),
        }
    }

    async fn add(&self, name: &str, cluster: ClusterId, through: &[PeerUrl]) -> Result<(), String> {
        let body = serde_json::json!({ "name": name, "peerURLs": self.own, "isLearner": true });
        self.change(Method::POST, MEMBERS, Some(&body.to_string()), cluster, through).await?;
        tracing::info!("added to the cluster as a learner");
        Ok(())
    }

    async fn remove(&self, id: MemberId, cluster: ClusterId, through: &[PeerUrl]) -> Result<(), String> {
        tracing::warn!(member = %id, "the cluster knows this member, but its disk is empty: it is removed, to be added anew");
        self.change(Method::DELETE, &format!("/members/{id}"), None, cluster, through).await
    }
}

/// The cluster of the first member that is in one.
fn cluster_heard(heard: &[(&str, Heard)]) -> Option<ClusterId> {
    heard.iter().find_map(|(_, heard)| match heard {
        Heard::Cluster(cluster, ..) => Some(*cluster),
        Heard::Undecided(_) | Heard::Nothing(_) => None,
    })
}

/// The lists of those that are in a cluster.
fn clusters<'a>(heard: &'a [(&'a str, Heard)]) -> impl Iterator<Item = (&'a str, ClusterId, &'a Vec<MemberRecord>)> {
    heard.iter().filter_map(|(name, heard)| match heard {
        Heard::Cluster(cluster, members, _) => Some((*name, *cluster, members)),
        Heard::Undecided(_) | Heard::Nothing(_) => None,
    })
}

/// Whether one of the others knows a start of a member.
fn is_met(heard: &[(&str, Heard)], id: MemberId) -> bool {
    heard.iter().any(|(_, heard)| matches!(heard, Heard::Cluster(_, _, met) if met.contains(&id)))
}

/// What is left to do, according to the table above.
fn judge(own: &[PeerUrl], birth: InitialIdentity, heard: &[(&str, Heard)]) -> AutoVerdict {
    let silent = heard.iter().find_map(|(name, heard)| match heard {
        Heard::Nothing(why) => Some(format!("{name} may have a cluster, but does not answer: {why}")),
        Heard::Cluster(..) | Heard::Undecided(_) => None,
    });
    let stranger = heard.iter().find_map(|(name, heard)| match heard {
        Heard::Undecided(cluster) if *cluster != birth.cluster => {
            Some(format!("{name} has another initial cluster, or another token"))
        }
        _ => None,
    });
    let Some((first, cluster, members)) = clusters(heard).next() else {
        return match silent.or(stranger) {
            Some(why) => AutoVerdict::Wait(why),
            None => AutoVerdict::Done(Found::New),
        };
    };
    if let Some((name, other, _)) = clusters(heard).find(|(_, other, _)| *other != cluster) {
        return AutoVerdict::Wait(format!("{first} is in cluster {cluster}, {name} in {other}"));
    }
    let listed = || clusters(heard).map(|(_, _, members)| ours(own, members));
    let records = || listed().flatten();
    let through = || client_urls(own, clusters(heard).map(|(_, _, members)| members));
    let before = records().find(|record| !record.client_urls.is_empty() || is_met(heard, MemberId(record.id)));
    // A member that does not list the started one may know that it was removed. So may a member that lists another one.
    let one = before.or_else(|| records().next());
    let contradicts = |other: Option<&MemberRecord>| {
        other.map_or(before.is_some(), |other| one.is_some_and(|one| one.id != other.id))
    };
    if listed().any(contradicts) {
        let why = "the others do not agree which member has our peer URLs, and no quorum says";
        return AutoVerdict::Disagree(through(), why.to_owned());
    }
    if let Some(before) = before {
        return AutoVerdict::Remove(MemberId(before.id), client_urls(own, [members]));
    }
    match records().next() {
        None => AutoVerdict::Add(client_urls(own, [members])),
        Some(record) if (MemberId(record.id), cluster) == (birth.member, birth.cluster) => match silent {
            // A silent member may know that we were started.
            Some(why) => AutoVerdict::Wait(why),
            None => AutoVerdict::Done(Found::New),
        },
        Some(_) => {
            let mut lists = clusters(heard).map(|(_, cluster, members)| find(own, cluster, members.clone()));
            match (lists.find_map(Result::ok), silent) {
                (Some(_), Some(silent)) => {
                    let why = format!("{silent}; no quorum says whether this member was started");
                    AutoVerdict::Disagree(client_urls(own, [members]), why)
                }
                (Some(joined), None) => AutoVerdict::Done(Found::Existing(joined)),
                (None, _) => AutoVerdict::Wait(format!("{first} tells an ID of 0")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIRTH: InitialIdentity = InitialIdentity { member: MemberId(3), cluster: ClusterId(9) };

    fn own() -> Vec<PeerUrl> {
        PeerUrl::list("http://n3:2380").expect("a URL")
    }

    /// A member `nID`, started or not.
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

    /// The same, from a member that knows a start of `met`.
    fn knows(id: u64, members: &[MemberRecord], met: u64) -> Heard {
        Heard::Cluster(ClusterId(id), members.to_vec(), vec![MemberId(met)])
    }

    fn verdict(heard: &[Heard]) -> AutoVerdict {
        let named: Vec<(&str, Heard)> = ["n1", "n2"].into_iter().zip(heard.iter().cloned()).collect();
        judge(&own(), BIRTH, &named)
    }

    fn silent() -> Heard {
        Heard::Nothing("connection refused".to_owned())
    }

    #[test]
    fn a_cluster_is_made_when_everybody_was_heard_and_nobody_has_one() {
        let undecided = Heard::Undecided(BIRTH.cluster);
        assert!(matches!(verdict(&[undecided.clone(), undecided.clone()]), AutoVerdict::Done(Found::New)));
        assert!(matches!(verdict(&[]), AutoVerdict::Done(Found::New)), "a member alone");
        assert!(matches!(verdict(&[undecided.clone(), silent()]), AutoVerdict::Wait(_)), "it may have one");
        let elsewhere = Heard::Undecided(ClusterId(8));
        assert!(matches!(verdict(&[undecided, elsewhere]), AutoVerdict::Wait(_)), "it would make another one");
    }

    #[test]
    fn who_is_late_for_the_birth_of_its_cluster_is_born_with_it() {
        let made = cluster(9, &[record(1, 1, true), record(2, 2, false), record(3, 3, false)]);
        let found = verdict(&[made.clone(), Heard::Undecided(BIRTH.cluster)]);
        assert!(matches!(found, AutoVerdict::Done(Found::New)), "{found:?}");
        assert!(
            matches!(verdict(&[made, silent()]), AutoVerdict::Wait(_)),
            "the other one may know that we were there"
        );
    }

    #[test]
    fn who_is_not_in_the_cluster_is_added_by_who_is_started() {
        let running = cluster(7, &[record(1, 1, true), record(2, 2, false)]);
        match verdict(&[running, silent()]) {
            AutoVerdict::Add(through) => assert_eq!(through, PeerUrl::list("http://n1:2379").expect("a URL")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_was_added_joins_though_another_one_has_not_heard_of_it() {
        let before = cluster(7, &[record(1, 1, true), record(2, 2, true)]);
        let after = cluster(7, &[record(1, 1, true), record(2, 2, true), record(33, 3, false)]);
        match verdict(&[before, after]) {
            AutoVerdict::Done(Found::Existing(joined)) => assert_eq!(joined.member, MemberId(33)),
            other => panic!("{other:?}"),
        }
    }

    /// The answer of one member is not enough while another one may know better.
    #[test]
    fn who_was_added_asks_a_quorum_while_somebody_is_silent() {
        let running = cluster(7, &[record(1, 1, true), record(2, 2, true), record(33, 3, false)]);
        match verdict(&[running, silent()]) {
            AutoVerdict::Disagree(through, why) => {
                assert_eq!(through.len(), 2);
                assert!(why.contains("whether this member was started"), "{why}");
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
                AutoVerdict::Remove(id, through) => {
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
                    AutoVerdict::Remove(removed, through) => assert_eq!((removed.0, through.len()), (id, 2)),
                    other => panic!("{other:?}"),
                }
            }
            let found = verdict(&[knows(cluster_id, &members, 2), stranger]);
            assert!(matches!(found, AutoVerdict::Done(_)), "another one was met: {found:?}");
        }
    }

    /// One of the two answers is old, and it cannot be said which. So no ID may be taken by their word alone.
    #[test]
    fn a_quorum_is_asked_where_the_others_list_different_members_with_our_urls() {
        let others = [record(1, 1, true), record(2, 2, true)];
        let with = |id, started| cluster(7, &[&others[..], &[record(id, 3, started)]].concat());
        for heard in [
            [with(33, true), with(34, false)],
            [with(33, false), with(34, false)],
            [cluster(7, &others), with(33, true)],
        ] {
            match verdict(&heard) {
                AutoVerdict::Disagree(through, _) => assert_eq!(through.len(), 2, "{heard:?}"),
                other => panic!("{heard:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn two_clusters_are_nobodys_to_choose_from() {
        let (one, two) = (cluster(7, &[record(1, 1, true)]), cluster(8, &[record(2, 2, true)]));
        assert!(matches!(verdict(&[one, two]), AutoVerdict::Wait(_)));
    }
}
