//! The task that asks the seeds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    fault::WatchFault,
    hub::{Hub, SEED},
    question::{ToldMembers, ask_seed},
    watcher::Watcher,
};
use crate::{dial::urls::PeerUrl, telemetry::Repeats};

/// Asks the seeds who the members are until one answers, and again when no known member answers any more. Stops the
/// watchers when it is stopped.
pub(super) async fn follow(hub: Weak<Hub>, stop: CancellationToken) {
    let mut said = BTreeMap::new();
    let ask = async {
        while let Some(hub) = hub.upgrade() {
            hub.expire_votes();
            if hub.needs_seeds() {
                ask_seeds(&hub, &mut said).await;
            }
            let interval = hub.interval;
            drop(hub);
            sleep(interval).await;
        }
    };
    stop.run_until_cancelled(ask).await;
    if let Some(hub) = hub.upgrade() {
        hub.stop_watchers();
    }
}

/// What was logged about a seed.
#[derive(Default)]
struct SeedFault {
    fault: Option<WatchFault>,
    /// Limits the lines when two faults alternate. A withheld fault is logged later if it still holds.
    changes: Repeats,
}

/// Asks all seeds at once. The first one, in the given order, that answers for the cluster is believed. A fault of a
/// seed is logged when it changes.
async fn ask_seeds(hub: &Arc<Hub>, said: &mut BTreeMap<PeerUrl, SeedFault>) {
    let answers = join_all(hub.seeds.iter().map(|seed| ask_seed(&hub.client, seed, hub.timeout))).await;
    let mut found = false;
    for (seed, answer) in hub.seeds.iter().zip(answers) {
        let checked = answer.and_then(|ToldMembers { cluster, body }| {
            hub.wanted().check(cluster)?;
            if std::mem::replace(&mut found, true) { Ok(Vec::new()) } else { hub.told(SEED, cluster, &body) }
        });
        match checked {
            Ok(new) => {
                if let Some(said) = said.get_mut(seed) {
                    said.fault = None;
                }
                Watcher::start_all(hub, new);
            }
            Err(fault) => {
                let said = said.entry(seed.clone()).or_default();
                if said.fault.as_ref() != Some(&fault) && said.changes.note().is_some() {
                    said.fault = Some(fault.clone());
                    let why = fault.of_a_seed();
                    tracing::warn!(%seed, why, "the seed returns no list of members");
                }
            }
        }
    }
}
