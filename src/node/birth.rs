//! The identity of a member at its start: from its disk, or made anew.

use std::path::Path;

use prost::Message as _;

use super::{
    config::{Config, DEFAULT_TOKEN, InitialClusterState, InitialMember},
    error::Error,
    join::{self, Found, Joined, Undecided},
    listeners::BoundPort,
    members::{MemberRecord, Membership},
    storage::{Store, StoredIdentity},
};
use crate::{
    id::{ClusterId, MemberId},
    raft_rs,
    wire::raftpb::{ConfChange, ConfChangeType, ConfState, Entry, EntryType},
    world::Files,
};

/// Refuses the data directory of an etcd member, before anything is made in it. A new cluster in it would start empty,
/// although its operator expects etcd's data. The log may be elsewhere (`--wal-dir`), so the database file alone is
/// enough to recognize it. A path to the directory `member` inside it means the same data.
pub(super) fn refuse_etcds(files: &Files, data_dir: &Path) -> Result<(), Error> {
    match ["member/wal", "member/snap/db", "wal", "snap/db"]
        .into_iter()
        .find(|holds| files.exists(&data_dir.join(holds)))
    {
        Some(holds) => Err(Error::Etcd { directory: data_dir.display().to_string(), holds }),
        None => Ok(()),
    }
}

/// The identity of the member that the store belongs to. A member that was never started gets one, and waits for its
/// cluster if it joins one. Until then, it answers at `peers` that it is undecided.
pub(super) async fn identify(config: &Config, store: &mut Store, peers: &[BoundPort]) -> Result<StoredIdentity, Error> {
    match store.identity() {
        Some(identity) => {
            let identity = recognise(config, identity.clone())?;
            let membership = store.membership().map_err(Error::store(&config.data_dir))?;
            if membership.is_removed(MemberId(identity.member)) { Err(Error::Removed) } else { Ok(identity) }
        }
        None if config.force_new_cluster => {
            Err(Error::NothingToForce { directory: config.data_dir.display().to_string() })
        }
        None => make(config, store, peers).await,
    }
}

/// Uses the identity from the disk. The directory must belong to this member.
fn recognise(config: &Config, identity: StoredIdentity) -> Result<StoredIdentity, Error> {
    let directory = || config.data_dir.display().to_string();
    if identity.name != config.name {
        let (found, name) = (identity.name, config.name.clone());
        return Err(Error::AnotherMember { directory: directory(), found, name });
    }
    // The default token may mean that none was given. With a data directory, none is needed.
    let token = &config.initial_cluster_token;
    if *token != identity.token && token != DEFAULT_TOKEN {
        let (found, token) = (identity.token, token.clone());
        return Err(Error::AnotherCluster { directory: directory(), found, token });
    }
    tracing::info!(
        directory = directory(),
        member = %MemberId(identity.member),
        cluster = %ClusterId(identity.cluster),
        "this member was started before: its identity comes from the disk, and the initial flags are ignored"
    );
    Ok(identity)
}

/// Makes the identity of a member that was never started.
async fn make(config: &Config, store: &mut Store, peers: &[BoundPort]) -> Result<StoredIdentity, Error> {
    let members = config.initial_members()?;
    let (name, token) = (config.name.clone(), config.initial_cluster_token.clone());
    let birth = Birth::of(&members, &token);
    let own = members.iter().find(|member| member.name == name).map(|member| member.urls.as_slice());
    let urls = own.unwrap_or_default();
    let member = MemberId::derive(urls, &token, None);
    // Until then, the member answers at once to those who ask it: all members of a new cluster ask each other.
    let undecided = || Undecided::serve(peers, config.tls.as_ref(), birth.cluster);
    let found = match config.initial_cluster_state {
        InitialClusterState::New => {
            let (undecided, born) = (undecided()?, join::BootstrapIdentity { member, cluster: birth.cluster, urls });
            let refused = join::refuse_bootstrapped(config, &members, born).await;
            undecided.stop().await;
            refused.map(|()| Found::New)?
        }
        InitialClusterState::Existing => Found::Existing(join::join(config).await?),
        InitialClusterState::Auto => {
            let undecided = undecided()?;
            let found = join::find_out(config, &members, member, birth.cluster).await;
            undecided.stop().await;
            found?
        }
    };
    let (identity, birth) = match found {
        Found::New => {
            (StoredIdentity { member: member.0, cluster: birth.cluster.0, name, token, joined: Vec::new() }, birth)
        }
        Found::Existing(Joined { member, cluster, members, .. }) => (
            StoredIdentity { member: member.0, cluster: cluster.0, name, token, joined: members },
            Birth::elsewhere(cluster),
        ),
    };
    let entries = birth.entries.into_iter().map(raft_rs::entry_from_raftpb).collect::<Result<Vec<_>, _>>();
    let entries = entries.map_err(|error| Error::Raft(error.to_string()))?;
    let state = raft_rs::conf_state_from_raftpb(birth.conf_state);
    store.bootstrap(&identity, &entries, &state, &birth.membership).map_err(Error::store(&config.data_dir))?;
    Ok(identity)
}

/// The first entries of a cluster: a ConfChange for each member, in the order of their IDs, the same on all members
/// (etcd's `startNode`).
struct Birth {
    cluster: ClusterId,
    entries: Vec<Entry>,
    conf_state: ConfState,
    membership: Membership,
}

impl Birth {
    /// Empty, for a cluster that runs already: all entries come from the leader.
    fn elsewhere(cluster: ClusterId) -> Self {
        let (conf_state, membership) = (ConfState::default(), Membership::default());
        Self { cluster, entries: Vec::new(), conf_state, membership }
    }

    fn of(members: &[InitialMember], token: &str) -> Self {
        let mut records: Vec<MemberRecord> = members
            .iter()
            .map(|InitialMember { name, urls }| MemberRecord {
                id: MemberId::derive(urls, token, None).0,
                peer_urls: urls.iter().map(ToString::to_string).collect(),
                name: name.clone(),
                ..MemberRecord::default()
            })
            .collect();
        records.sort_by_key(|record| record.id);
        let mut birth = Self {
            cluster: ClusterId::derive(&records.iter().map(|record| MemberId(record.id)).collect::<Vec<_>>()),
            entries: Vec::new(),
            conf_state: ConfState { voters: records.iter().map(|record| record.id).collect(), ..ConfState::default() },
            membership: Membership::default(),
        };
        for (index, record) in (1..).zip(&records) {
            let kind = ConfChangeType::ConfChangeAddNode as i32;
            let change = ConfChange { id: 0, r#type: kind, node_id: record.id, context: record.to_json() };
            let data = change.encode_to_vec().into();
            birth.entries.push(Entry { r#type: EntryType::EntryConfChange as i32, term: 1, index, data });
            // This cannot fail: the URLs are all different, and so are the IDs that are derived from them.
            let _ = birth.membership.apply(&change);
        }
        birth
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::urls::PeerUrl;

    fn members() -> Vec<InitialMember> {
        let urls = |port| PeerUrl::list(&format!("http://127.0.0.1:{port}")).expect("a URL");
        let member = |(name, port): (&str, u16)| InitialMember { name: name.to_owned(), urls: urls(port) };
        [("a", 2380), ("b", 2381), ("c", 2382)].map(member).into()
    }

    /// The IDs that etcd derives from these URLs and this token.
    #[test]
    fn every_member_is_born_with_the_same_log_and_knows_all_names() {
        let birth = Birth::of(&members(), "etcd-cluster");
        let mut turned = members();
        turned.reverse();
        assert_eq!(birth.entries, Birth::of(&turned, "etcd-cluster").entries);
        assert!(birth.membership.agrees_with(&birth.conf_state));
        let names: std::collections::BTreeSet<_> = birth.membership.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"].into());
    }

    #[test]
    fn a_directory_is_recognised_by_name_and_token_and_by_nothing_else() {
        let identity =
            StoredIdentity { member: 1, cluster: 2, name: "a".into(), token: "t".into(), joined: Vec::new() };
        let with = |name: &str, token: &str| Config {
            name: name.to_owned(),
            initial_cluster_token: token.to_owned(),
            initial_cluster: Vec::new(),
            ..Config::default()
        };
        assert!(recognise(&with("a", "t"), identity.clone()).is_ok());
        assert!(recognise(&with("a", DEFAULT_TOKEN), identity.clone()).is_ok(), "nobody said anything");
        assert!(matches!(recognise(&with("b", "t"), identity.clone()), Err(Error::AnotherMember { .. })));
        assert!(matches!(recognise(&with("a", "u"), identity), Err(Error::AnotherCluster { .. })));
    }
}
