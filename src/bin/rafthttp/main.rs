//! The command `rafthttp`: `rafthttp --help` says what it does.

use std::process::ExitCode;

mod bad_flag;
mod bench;
mod cli;
mod client;
mod config;
mod demo;
mod member;
mod probe;
mod serving;

use cli::{Flags, Stop};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let Flags { log, grace, command } = Flags::of_this_process();
    let runtime = command.runtime();
    let stop = Stop::new(grace);
    let outcome = runtime.block_on(async {
        let telemetry = log.start()?;
        stop.on_signal();
        let outcome = command.run(&stop, &telemetry).await;
        telemetry.shutdown(stop.time_left()).await;
        outcome
    });
    runtime.shutdown_timeout(stop.time_left());
    cli::exit_code(outcome, log.is_json())
}
