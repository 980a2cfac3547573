//! Checks whether the others know that a member without data was started before (etcd's `isMemberBootstrapped`). If so,
//! it has lost its disk. Under its old ID, it would have forgotten its vote and what it acknowledged.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::MembersClient;
use crate::{
    dial::urls::PeerUrl,
    id::{ClusterId, MemberId},
    node::{
        config::{Config, InitialMember, same_urls},
        error::Error,
        members::MemberRecord,
    },
};

/// How long the others may take to answer, all at once (etcd's `DefaultBootstrapTimeout`). A member that is silent for
/// longer is not waited for, because a new cluster has no others yet.
const PATIENCE: Duration = Duration::from_secs(1);

/// The identity of a member that makes its cluster with the others.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct BootstrapIdentity<'a> {
    pub(in crate::node) member: MemberId,
    pub(in crate::node) cluster: ClusterId,
    pub(in crate::node) urls: &'a [PeerUrl],
}

/// Asks all others of the initial cluster, once, at all their URLs.
///
/// # Errors
/// One of them lists this member with client URLs, which only a started member has.
pub(in crate::node) async fn refuse_bootstrapped(
    config: &Config,
    members: &[InitialMember],
    birth: BootstrapIdentity<'_>,
) -> Result<(), Error> {
    let asker = MembersClient::new(config);
    let urls = members.iter().filter(|member| member.name != config.name).flat_map(|member| &member.urls);
    let asked = urls.map(async |url| (url, timeout(PATIENCE, asker.members(url)).await));
    let told = join_all(asked).await;
    asker.stop().await;
    for (url, answer) in told {
        let Ok(Ok((cluster, listed))) = answer else { continue };
        if let Some(id) = started(birth, cluster, &listed) {
            return Err(Error::bootstrapped(config, id, url));
        }
    }
    Ok(())
}

/// The started member of a list whose identity we would take. In another cluster, only the ID counts, as in etcd,
/// because another cluster may have used our URLs before.
fn started(birth: BootstrapIdentity<'_>, cluster: ClusterId, listed: &[MemberRecord]) -> Option<MemberId> {
    let is_us = |record: &&MemberRecord| {
        record.id == birth.member.0 || cluster == birth.cluster && same_urls(&record.urls(), birth.urls)
    };
    let found = listed.iter().filter(is_us).find(|record| !record.client_urls.is_empty())?;
    Some(MemberId(found.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, place: u64, client_urls: &[&str]) -> MemberRecord {
        MemberRecord {
            id,
            peer_urls: vec![format!("http://n{place}:2380")],
            client_urls: client_urls.iter().map(|url| (*url).to_owned()).collect(),
            ..MemberRecord::default()
        }
    }

    #[test]
    fn who_is_listed_with_client_urls_was_started() {
        let urls = PeerUrl::list("http://n3:2380").expect("a URL");
        let birth = BootstrapIdentity { member: MemberId(3), cluster: ClusterId(9), urls: &urls };
        let started = |cluster, record| started(birth, ClusterId(cluster), &[record]);
        let client = &["http://n3:2379"];
        assert_eq!(started(9, record(3, 3, client)), Some(MemberId(3)));
        assert_eq!(started(9, record(3, 3, &[])), None, "it was not started, or has told nobody");
        assert_eq!(started(9, record(2, 2, client)), None, "another one");
        assert_eq!(started(9, record(33, 3, client)), Some(MemberId(33)), "it was removed and added since");
        assert_eq!(started(8, record(33, 3, client)), None, "another cluster was at our URLs");
        assert_eq!(started(8, record(3, 3, client)), Some(MemberId(3)), "etcd asks for the ID alone");
    }
}
