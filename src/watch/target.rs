//! One watched member: what is known about it.

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use tokio::task::AbortHandle;

use super::{members::ListedMember, question::Versions};
use crate::{
    dial::urls::UrlPicker,
    id::{ClusterId, MemberId},
    ledger::{Link, Live},
    transport::status::{PeerRole, PeerStatus, Watched},
};

/// A watched member. Its watcher writes the state, and anyone may read it.
pub(super) struct Target {
    pub(super) id: MemberId,
    pub(super) urls: UrlPicker,
    watching: Mutex<Watching>,
    known: Mutex<TargetState>,
}

/// Whether a task watches it.
#[derive(Default)]
enum Watching {
    #[default]
    NotYet,
    By(AbortHandle),
    /// Stopped for good.
    Over,
}

/// What is known about a member.
#[derive(Default)]
pub(super) struct TargetState {
    name: String,
    pub(super) link: Live<Link>,
    pub(super) told: Watched,
}

impl Target {
    pub(super) fn new(listed: &ListedMember) -> Self {
        let target = Self {
            id: listed.id,
            urls: UrlPicker::new(listed.urls.clone()),
            watching: Mutex::default(),
            known: Mutex::default(),
        };
        target.describe(listed);
        target
    }

    /// Sets the task that watches the member. If the target was already stopped, the task is aborted.
    pub(super) fn watched_by(&self, watcher: AbortHandle) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        match *watching {
            Watching::Over => watcher.abort(),
            _ => *watching = Watching::By(watcher),
        }
    }

    /// Stops the watcher. It is aborted where it waits, because it has nothing to finish; a cancellation token would be
    /// polled twice for every probe.
    pub(super) fn stop(&self) {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Watching::By(watcher) = std::mem::replace(&mut *watching, Watching::Over) {
            watcher.abort();
        }
    }

    /// Takes over the member's entry in the list. Returns whether its URLs changed.
    pub(super) fn update(&self, listed: &ListedMember) -> bool {
        self.describe(listed);
        let moved = self.urls.all() != listed.urls;
        if moved {
            self.urls.update(listed.urls.clone());
        }
        moved
    }

    fn describe(&self, listed: &ListedMember) {
        self.known(|known| {
            known.name.clone_from(&listed.name);
            known.told.is_learner = listed.is_learner;
            known.told.is_started = !listed.name.is_empty();
        });
    }

    /// Reads or changes what is known.
    pub(super) fn known<T>(&self, with: impl FnOnce(&mut TargetState) -> T) -> T {
        with(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn status(&self) -> PeerStatus {
        let (name, link, watched) =
            self.known(|known| (known.name.clone(), known.link.read().clone(), known.told.clone()));
        PeerStatus {
            id: self.id,
            role: PeerRole::Watched(watched),
            name,
            urls: self.urls.all(),
            paused: false,
            outgoing: Default::default(),
            incoming: Default::default(),
            link,
            incarnation: Default::default(),
        }
    }
}

impl TargetState {
    /// The member answered for this cluster. `is_foreign` says whether it is another than the watched one.
    pub(super) fn note_cluster(&mut self, cluster: ClusterId, is_foreign: bool) {
        (self.told.cluster, self.told.is_foreign) = (Some(cluster), Some(is_foreign));
    }

    /// The member runs these versions: the server's, and the cluster's.
    pub(super) fn note_versions(&mut self, Versions { server, cluster }: Versions) {
        (self.told.version, self.told.cluster_version) = (Some(server), cluster);
    }

    /// Forgets the cluster that the member answered for.
    pub(super) fn forget_cluster(&mut self) {
        (self.told.cluster, self.told.is_foreign) = (None, None);
    }

    /// The member has no URL that can be dialled: only Unix sockets, or none.
    pub(super) fn note_no_url(&mut self, now: SystemTime) {
        self.note_silence();
        self.link.unreachable("none of its URLs can be dialled".to_owned(), now);
    }

    /// The member does not answer, so nothing that it said holds any longer.
    pub(super) fn note_silence(&mut self) {
        self.forget_cluster();
        (self.told.version, self.told.cluster_version) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_that_begins_after_the_end_is_ended() {
        let listed = ListedMember { id: MemberId(1), name: String::new(), is_learner: false, urls: Vec::new() };
        for stopped_first in [true, false] {
            let (target, task) = (Target::new(&listed), tokio::spawn(std::future::pending::<()>()));
            if stopped_first {
                target.stop();
            }
            target.watched_by(task.abort_handle());
            target.stop();
            let ended = tokio::time::timeout(std::time::Duration::from_secs(10), task).await;
            assert!(ended.expect("it is ended").expect_err("not by itself").is_cancelled());
        }
    }
}
