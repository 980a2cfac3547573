//! Runs a whole cluster in one process, writes to it, and reports at the end where every message went.

use std::{io, time::Duration};

use rafthttp::Tls;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

mod cluster;
mod keys;
mod ledger;
mod load;

use cluster::DemoCluster;
use keys::Keys;
use ledger::Ledger;
use load::WriteLoad;

use crate::{client::MemberClient, serving::ServingError};

/// How long the first write may take: an election comes before it.
const FIRST_WRITE: Duration = Duration::from_secs(20);
/// How long the members may take until they hold everything that was committed.
const CATCH_UP: Duration = Duration::from_secs(20);

/// The settings of a demo.
#[derive(Clone, Debug)]
pub(crate) struct Demo {
    /// How many members.
    pub(crate) members: u64,
    /// Writes per second.
    pub(crate) rate: u64,
    /// How long to write. `None`: until told to stop.
    pub(crate) time: Option<Duration>,
    /// The certificates of the ports that speak TLS.
    pub(crate) certificates: Certificates,
}

/// The certificates of a demo. Each makes one kind of port speak TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct Certificates {
    /// For the ports for peers.
    pub(crate) peer: Option<Tls>,
    /// For the ports for clients and metrics.
    pub(crate) client: Option<Tls>,
    /// For the client that writes.
    pub(crate) writer: Option<Tls>,
    /// The same as flags of curl, with a space before each.
    pub(crate) curl: String,
}

/// Why a demo failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// A directory or a port cannot be used.
    #[error("cannot start the members: {0}")]
    Start(#[from] io::Error),
    /// The admin endpoints cannot be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// A member did not start.
    #[error("member {name} cannot start: {error}")]
    Member {
        /// The member.
        name: String,
        /// The reason.
        error: rafthttp::node::Error,
    },
    /// There is no leader, or the leader takes no writes.
    #[error("no write was accepted within {} s", FIRST_WRITE.as_secs())]
    NoWrites,
    /// No write was committed.
    #[error("nothing was committed")]
    NothingCommitted,
    /// A write is missing.
    #[error("member {member} does not hold all committed writes: {keys} keys differ")]
    Differs {
        /// The member.
        member: String,
        /// How many keys differ.
        keys: usize,
    },
    /// The metrics do not add up.
    #[error("the ledger does not balance: {0}")]
    Unbalanced(String),
}

impl Demo {
    /// Starts the members, writes until `stop` or the end of the time, and prints the result.
    pub(crate) async fn run(self, stop: &CancellationToken) -> Result<(), DemoError> {
        let cluster = DemoCluster::start(self.members, &self.certificates).await?;
        let outcome = self.show(&cluster, stop).await;
        cluster.stop().await;
        outcome
    }

    async fn show(&self, cluster: &DemoCluster, stop: &CancellationToken) -> Result<(), DemoError> {
        cluster.print(&self.certificates.curl);
        let keys = Keys::new(MemberClient::new(self.certificates.writer.clone()));
        let mut load = WriteLoad::new(keys, cluster.client_urls(), self.rate);
        let written = stop.run_until_cancelled(load.first_write(FIRST_WRITE)).await;
        match written {
            Some(true) => {}
            Some(false) => return Err(DemoError::NoWrites),
            None => return Err(DemoError::NothingCommitted),
        }
        println!("\nwriting {} times a second through the members in turn; {}\n", self.rate, self.until());
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.over() => {}
            () = load.run(|progress| println!("{progress}  {}", Ledger::of(cluster).line())) => {}
        }
        self.conclude(cluster, &mut load).await
    }

    /// Waits for the writes under way, checks every member, and prints the result.
    async fn conclude(&self, cluster: &DemoCluster, load: &mut WriteLoad) -> Result<(), DemoError> {
        load.finish().await;
        println!("\n{}", load.summary());
        for (name, url) in cluster.clients() {
            let differing = load.differing(url, CATCH_UP).await;
            if differing > 0 {
                return Err(DemoError::Differs { member: name.to_owned(), keys: differing });
            }
            println!("{name} holds the last committed value of all {} keys", load.keys());
        }
        let ledger = Ledger::of(cluster);
        print!("\n{}", ledger.table());
        match ledger.imbalance() {
            Some(what) => Err(DemoError::Unbalanced(what)),
            None if load.committed() == 0 => Err(DemoError::NothingCommitted),
            None => {
                println!("the ledger balances on every member");
                Ok(())
            }
        }
    }

    fn until(&self) -> String {
        match self.time {
            Some(time) => format!("for {}", humantime::format_duration(time)),
            None => "Ctrl-C stops".to_owned(),
        }
    }

    async fn over(&self) {
        match self.time.and_then(|time| Instant::now().checked_add(time)) {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }
}
