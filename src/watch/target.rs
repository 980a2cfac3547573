//! One member that is watched: what is known of it.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use tokio::task::AbortHandle;

use super::members::Listed;
use crate::{
    id::{ClusterId, MemberId},
    metrics::Link,
    transport::{
        status::{PeerStatus, Watched},
        urls::UrlPicker,
    },
    wire::version::Version,
};

/// A member that is watched. Its watcher writes, whoever asks reads.
pub(super) struct Target {
    pub(super) id: MemberId,
    pub(super) urls: UrlPicker,
    watcher: OnceLock<AbortHandle>,
    known: Mutex<Known>,
}

/// What is known of a member.
#[derive(Default)]
pub(super) struct Known {
    name: String,
    pub(super) link: Link,
    pub(super) told: Watched,
}

impl Target {
    pub(super) fn new(listed: &Listed) -> Self {
        let target = Self {
            id: listed.id,
            urls: UrlPicker::new(listed.urls.clone()),
            watcher: OnceLock::new(),
            known: Mutex::default(),
        };
        target.describe(listed);
        target
    }

    /// This task watches it.
    pub(super) fn runs(&self, watcher: AbortHandle) {
        let _ = self.watcher.set(watcher);
    }

    /// Ends its watcher. It has nothing to bring to an end, and is dropped where it waits: a token would be looked at
    /// twice for every probe.
    pub(super) fn stop(&self) {
        if let Some(watcher) = self.watcher.get() {
            watcher.abort();
        }
    }

    /// Takes over what the members say of it; whether its URLs are others than before.
    pub(super) fn update(&self, listed: &Listed) -> bool {
        self.describe(listed);
        let moved = self.urls.all() != listed.urls;
        if moved {
            self.urls.update(listed.urls.clone());
        }
        moved
    }

    fn describe(&self, listed: &Listed) {
        self.known(|known| {
            known.name.clone_from(&listed.name);
            known.told.is_learner = listed.is_learner;
            known.told.is_started = !listed.name.is_empty();
        });
    }

    /// Reads or changes what is known.
    pub(super) fn known<T>(&self, with: impl FnOnce(&mut Known) -> T) -> T {
        with(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn status(&self) -> PeerStatus {
        let (name, link, watched) = self.known(|known| (known.name.clone(), known.link.clone(), known.told.clone()));
        PeerStatus {
            id: self.id,
            remote: false,
            name,
            urls: self.urls.all(),
            paused: false,
            outgoing: Default::default(),
            incoming: Default::default(),
            link,
            watched: Some(watched),
        }
    }
}

impl Known {
    /// The member says which cluster it is in; whether that is news, and bad ones.
    pub(super) fn answers_for(&mut self, cluster: ClusterId, watched: ClusterId) -> bool {
        let is_foreign = cluster != watched;
        let news = is_foreign && self.told.cluster != Some(cluster);
        (self.told.cluster, self.told.is_foreign) = (Some(cluster), Some(is_foreign));
        news
    }

    pub(super) fn runs(&mut self, (server, cluster): (Version, Option<Version>)) {
        (self.told.version, self.told.cluster_version) = (Some(server), cluster);
    }

    /// What the member said of its cluster holds no longer.
    pub(super) fn says_no_cluster(&mut self) {
        (self.told.cluster, self.told.is_foreign) = (None, None);
    }

    /// There is nothing to ask: Unix sockets, or none at all.
    pub(super) fn has_no_url(&mut self) {
        self.is_silent();
        let why = "no URL of it can be dialled".to_owned();
        (self.link.reachable, self.link.last_error) = (Some(false), Some((SystemTime::now(), why)));
    }

    /// The member does not answer: nothing that it said holds any longer.
    pub(super) fn is_silent(&mut self) {
        self.says_no_cluster();
        (self.told.version, self.told.cluster_version) = (None, None);
    }
}
