//! `rafthttp member`: who is in a cluster of nodes, and who is to be.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use rafthttp::PeerUrl;

use super::{BadFlag, Failure, Stop, client_tls::ClientTls};
use crate::{
    client::Client,
    config::{self, ListenUrl},
    member::{Membership, shrink},
};

/// List, add, remove and promote the members of a cluster of nodes; the names are etcdctl's.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Client URLs of members; the first that can be reached is asked.
    #[arg(long, global = true, value_name = "URL,…", value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<ListenUrl>,

    #[command(flatten)]
    tls: ClientTls,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Who is in the cluster.
    List {
        /// How the list is written.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Add a member, before it is started with --initial-cluster-state existing.
    Add {
        /// The name it will have.
        name: String,
        /// Its peer URLs.
        #[arg(long, value_name = "URL,…", value_delimiter = ',', required = true)]
        peer_urls: Vec<PeerUrl>,
        /// Without a vote, until it is promoted.
        #[arg(long)]
        learner: bool,
    },
    /// Remove a member, for ever: its ID is never used again.
    Remove {
        /// Its ID or its name.
        member: String,
    },
    /// Give a learner a vote, once it has caught up with the leader.
    Promote {
        /// Its ID or its name.
        member: String,
    },
    /// Remove the members named PREFIX and a number at or above N, the highest first, one at a time, and each only while
    /// a quorum of those that remain is there. What a stateful set needs before it has fewer replicas.
    Shrink {
        /// What their names begin with, up to the number: "db-" for db-0, db-1…
        prefix: String,
        /// The lowest number to go; a stateful set of N replicas keeps 0 to N-1.
        #[arg(long, value_name = "N", value_parser = config::positive)]
        to: u64,
        /// How long to wait for a quorum.
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = config::duration)]
        timeout: Duration,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

impl Flags {
    pub(crate) async fn run(self, stop: &Stop) -> Result<(), Failure> {
        let https = self.endpoints.iter().find(|url| url.is_tls());
        let tls = self.tls.load(https, |url, expected| BadFlag::new("endpoints", url, expected))?;
        let membership = Membership::new(Client::new(tls), self.endpoints.iter().map(ListenUrl::to_string).collect());
        let done = stop.token().run_until_cancelled(self.command.run(&membership)).await;
        done.unwrap_or_else(|| Err(Failure::failed("told to stop before it was done")))
    }
}

impl Command {
    async fn run(self, membership: &Membership) -> Result<(), Failure> {
        match self {
            Self::List { output } => {
                let members = membership.list().await.map_err(Failure::failed)?;
                match output {
                    Output::Table => print!("{}", members.table()),
                    Output::Json => println!("{}", members.json()),
                }
            }
            Self::Add { name, peer_urls, learner } => {
                let member = membership.add(&name, &peer_urls, learner).await.map_err(Failure::failed)?;
                println!("member {} added", member.id);
            }
            Self::Remove { member } => {
                let id = membership.find(&member).await.map_err(Failure::failed)?;
                membership.remove(id).await.map_err(Failure::failed)?;
                println!("member {id} removed");
            }
            Self::Promote { member } => {
                let id = membership.find(&member).await.map_err(Failure::failed)?;
                membership.promote(id).await.map_err(Failure::failed)?;
                println!("member {id} promoted");
            }
            Self::Shrink { prefix, to, timeout } => {
                shrink(membership, &prefix, to, timeout).await.map_err(Failure::failed)?;
            }
        }
        Ok(())
    }
}
