//! Asks the known members about a leader that this member does not know.
//!
//! A member that was away while others were replaced hears from a leader that its own log does not name yet, and only
//! by requests, in which anyone may claim to be anyone. So it asks the members of its configuration for their
//! membership, over connections that it dials itself. A sender that one of them names becomes a peer, at the URLs that
//! the answer names. It is then dialled, and what it says on its streams is believed. etcd believes the requests.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{sync::mpsc, time::sleep};

use super::{config::Config, hearsay::Hearsay, join::MembersClient, members::MemberRecord, status::NodeState};
use crate::{
    dial::urls::PeerUrl,
    id::{ClusterId, MemberId},
    transport::Transport,
};

/// The pause between two rounds of questions, whoever caused them.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a round in which nobody answered counts.
const ALONE_FOR: Duration = Duration::from_secs(10);

/// Takes the senders that are not believed.
#[derive(Clone, Debug)]
pub(super) struct Doubted(mpsc::Sender<MemberId>);

impl Doubted {
    /// Has the members asked about a sender soon. If another sender is being asked about, this one has to come again.
    pub(super) fn ask_about(&self, id: MemberId) {
        let _ = self.0.try_send(id);
    }
}

/// Asks about the senders that are not believed.
pub(super) struct Vouching {
    doubted: mpsc::Receiver<MemberId>,
    cluster: ClusterId,
    shared: Arc<NodeState>,
    asker: MembersClient,
    hearsay: Hearsay,
}

impl Vouching {
    pub(super) fn new(
        config: &Config,
        cluster: ClusterId,
        shared: Arc<NodeState>,
        hearsay: &Hearsay,
    ) -> (Doubted, Self) {
        let (sender, doubted) = mpsc::channel(1);
        (
            Doubted(sender),
            Self { doubted, cluster, shared, asker: MembersClient::new(config), hearsay: hearsay.clone() },
        )
    }

    /// Asks whenever a sender is doubted, at most once a second, for ever.
    pub(super) async fn run(mut self, own: MemberId, transport: Transport) {
        loop {
            let patience = if self.shared.nobody_vouches() { ALONE_FOR } else { Duration::MAX };
            let Ok(doubted) = tokio::time::timeout(patience, self.doubted.recv()).await else {
                self.shared.set_nobody_vouches(false);
                continue;
            };
            let Some(id) = doubted else { return self.asker.stop().await };
            if id != own {
                self.ask_about(id, own, &transport).await;
                sleep(PAUSE).await;
            }
        }
    }

    async fn ask_about(&self, id: MemberId, own: MemberId, transport: &Transport) {
        let membership = self.shared.membership.load_full();
        let others = membership.iter().filter(|member| member.id != own);
        let answers = join_all(others.map(async |member| (member.id, self.ask(&member.peer_urls).await))).await;
        self.shared.set_nobody_vouches(answers.iter().all(|(_, answer)| answer.is_none()));
        if membership.get(id).is_some() || membership.is_removed(id) {
            return;
        }
        let named = answers.iter().find_map(|(by, members)| {
            let record = members.as_ref()?.iter().find(|record| record.id == id.0)?;
            Some((by, record.urls()))
        });
        let Some((by, urls)) = named else { return };
        match transport.add_peer(id, urls) {
            Ok(()) => {
                self.hearsay.add(id);
                tracing::info!(peer = %id, %by, "another member confirms a leader that this member did not know");
            }
            Err(error) => {
                tracing::warn!(peer = %id, %by, %error, "a member that another member names cannot be a peer");
            }
        }
    }

    /// The membership, as the member at one of these URLs has it, if it belongs to this cluster.
    async fn ask(&self, urls: &[PeerUrl]) -> Option<Vec<MemberRecord>> {
        for url in urls {
            match self.asker.members(url).await {
                Ok((cluster, members)) if cluster == self.cluster => return Some(members),
                Ok((cluster, _)) => tracing::debug!(%url, %cluster, "a member's URL answers for another cluster"),
                Err(why) => tracing::debug!(%url, why, "a member does not tell who the members are"),
            }
        }
        None
    }
}
