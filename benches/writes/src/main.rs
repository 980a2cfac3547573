//! Writers in a closed loop: each has one put in flight, and sends the next when the last is acknowledged. One program for
//! both sides, with one HTTP library: `http` is HTTP/1.1 and `PUT /kv/{key}`, as `rafthttp node` takes it; `grpc` is HTTP/2
//! and `etcdserverpb.KV/Put`, as etcd's own client sends it. Both send the same keys and values in the same order.
//!
//! It prints one line of JSON. Latencies are exact: every put of the measured time is kept, and none is grouped.

mod flags;
mod processor;
mod protocol;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use flags::Flags;
use protocol::Connection;

/// How long a put may take. A write that takes longer ends the run, because its outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let flags = match flags::parse(std::env::args().skip(1)) {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            print!("{}", flags::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    // One thread: the members need the cores, and a put costs it some microseconds. Its share of a core is printed, so
    // that one can see that it was not the limit.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run(flags))) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and returns the line to print.
async fn run(flags: Flags) -> Result<String, String> {
    let flags = Arc::new(flags);
    let mut connections = Vec::with_capacity(flags.connections);
    for number in 0..flags.connections {
        // Consecutive connections go to different members.
        let address = &flags.to[number % flags.to.len()];
        connections.push(Connection::open(flags.protocol, address).await.map_err(|why| format!("{address}: {why}"))?);
    }
    let begin = Instant::now() + flags.warm_up;
    let window = Window { begin, end: begin + flags.duration };
    let writers: Vec<_> = (0..flags.writers)
        .map(|number| {
            let connection = connections[number % flags.connections].clone();
            tokio::spawn(write(number, connection, flags.clone(), window))
        })
        .collect();
    tokio::time::sleep_until(window.begin.into()).await;
    let before = processor::seconds(&flags.processes)?;
    tokio::time::sleep_until(window.end.into()).await;
    let after = processor::seconds(&flags.processes)?;
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.append(&mut writer.await.map_err(|error| format!("a writer ended: {error}"))??);
    }
    if latencies.is_empty() {
        return Err(format!("no put was acknowledged within {} s", flags.duration.as_secs_f64()));
    }
    latencies.sort_unstable();
    Ok(line(&flags, &latencies, after.0 - before.0, after.1 - before.1))
}

/// The measured time. Puts that are acknowledged before or after it do not count.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

/// One writer. Returns the latency of each put that was acknowledged in the window.
async fn write(
    number: usize,
    connection: Connection,
    flags: Arc<Flags>,
    window: Window,
) -> Result<Vec<Duration>, String> {
    let value = Bytes::from(vec![b'v'; flags.value_bytes]);
    let mut keys = Keys { state: number as u64 + 1, count: flags.keys };
    let mut latencies = Vec::new();
    loop {
        let key = keys.next();
        let asked = Instant::now();
        if asked >= window.end {
            return Ok(latencies);
        }
        match tokio::time::timeout(PATIENCE, connection.put(&key, &value)).await {
            Ok(answered) => answered.map_err(|why| format!("a put of {key} failed: {why}"))?,
            Err(_) => return Err(format!("a put of {key} had no answer within {} s", PATIENCE.as_secs())),
        }
        let now = Instant::now();
        if now >= window.begin && now < window.end {
            latencies.push(now - asked);
        }
    }
}

/// Random keys of one writer: the same in every run.
struct Keys {
    state: u64,
    count: u64,
}

impl Keys {
    /// The next key, by SplitMix64.
    fn next(&mut self) -> String {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        format!("key-{:012}", (mixed ^ (mixed >> 31)) % self.count)
    }
}

fn line(flags: &Flags, latencies: &[Duration], own_cpu: f64, members_cpu: f64) -> String {
    let at = |share: f64| {
        let rank = ((latencies.len() as f64 * share).ceil() as usize).clamp(1, latencies.len());
        latencies[rank - 1].as_secs_f64() * 1e6
    };
    let seconds = flags.duration.as_secs_f64();
    format!(
        "{{\"writers\": {}, \"connections\": {}, \"writes\": {}, \"seconds\": {seconds}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \
         \"p999_us\": {:.1}, \"max_us\": {:.1}, \"load_cpu_seconds\": {own_cpu:.2}, \"members_cpu_seconds\": {members_cpu:.2}}}",
        flags.writers,
        flags.connections,
        latencies.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_writer_are_the_same_in_every_run_and_within_their_count() {
        let keys = |writer| {
            (0..1000)
                .map({
                    let mut keys = Keys { state: writer, count: 50 };
                    move |_| keys.next()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(1), keys(1));
        assert_ne!(keys(1), keys(2));
        assert!(keys(1).iter().all(|key| key.len() == 16 && key.as_str() < "key-000000000050"));
    }

    #[test]
    fn percentiles_are_exact() {
        let latencies: Vec<_> = (1..=1000).map(Duration::from_micros).collect();
        let flags =
            flags::parse(["--protocol", "http", "--to", "h:1", "--seconds", "1"].map(str::to_owned).into_iter());
        let line = line(&flags.expect("valid").expect("no help"), &latencies, 0.5, 1.5);
        assert!(
            line.contains("\"p50_us\": 500.0, \"p99_us\": 990.0, \"p999_us\": 999.0, \"max_us\": 1000.0"),
            "{line}"
        );
    }
}
