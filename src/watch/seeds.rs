//! The task that asks the seeds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    fault::Fault,
    hub::{Hub, SEED},
    question::{Told, ask_seed},
    watcher::Watcher,
};
use crate::{dial::urls::PeerUrl, telemetry::Repeats};

/// Asks the seeds who the members are, until one tells; and again when no member that is known does any more. Ends the
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

/// What was said of a seed.
#[derive(Default)]
struct Said {
    fault: Option<Fault>,
    /// Faults may take turns; what is withheld is told when it still holds later.
    changes: Repeats,
}

/// All at once; the first of them, as they were given, that answers for the cluster is believed. What is wrong with one
/// is logged when it changes.
async fn ask_seeds(hub: &Arc<Hub>, said: &mut BTreeMap<PeerUrl, Said>) {
    let answers = join_all(hub.seeds.iter().map(|seed| ask_seed(&hub.client, seed, hub.timeout))).await;
    let mut found = false;
    for (seed, answer) in hub.seeds.iter().zip(answers) {
        let checked = answer.and_then(|Told { cluster, body }| {
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
                    tracing::warn!(%seed, why, "the seed does not tell who the members are");
                }
            }
        }
    }
}
