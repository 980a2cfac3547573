//! `rafthttp demo`: a whole cluster in one process.

use std::time::Duration;

use clap::Args;

use super::{Failure, Stop};
use crate::{config, demo};

/// Run several members in this process on loopback, write to them, and say at the end where every message went.
///
/// Each member listens on free ports and keeps its data in a temporary directory, removed at the end. The exit status is
/// 0 when writes were committed, every member holds them, and every ledger balances.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// How many members.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    members: u64,

    /// Writes in a second, through the members in turn.
    #[arg(long, value_name = "R", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,

    /// For how long [default: until Ctrl-C]
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    r#for: Option<Duration>,
}

impl Flags {
    pub(crate) async fn run(self, stop: &Stop) -> Result<(), Failure> {
        let demo = demo::Demo { members: self.members, rate: self.rate, time: self.r#for };
        demo.run(stop.token()).await.map_err(Failure::failed)
    }
}
