//! The flags.

use std::{str::FromStr, time::Duration};

use crate::protocol::Protocol;

/// What `--help` prints.
pub const HELP: &str = "\
Writers in a closed loop against a cluster: each has one put in flight. Prints one line of JSON.

  writes --protocol http --to 127.0.0.1:2379                    one writer, 5 s, `rafthttp node`
  writes --protocol grpc --to 127.0.0.1:2379 --writers 64       etcd
  writes … --connections 4                                      the writers share them (grpc only)

  --protocol http|grpc   HTTP/1.1 PUT /kv/{key}, or gRPC etcdserverpb.KV/Put
  --to HOST:PORT         a member's client address; repeated: connections are spread over them
  --writers N            1
  --connections N        one for each writer; HTTP/1.1 carries one request at a time, so http allows no fewer
  --value-bytes N        128
  --keys N               10000; every writer puts random keys among as many
  --warm-up SECONDS      1; before the measured time
  --seconds SECONDS      5; the measured time
  --process PID          a member whose CPU time is counted meanwhile, repeated
";

/// What is measured.
#[derive(Debug)]
pub struct Flags {
    /// How the members are spoken to.
    pub protocol: Protocol,
    /// Client addresses, each `host:port`.
    pub to: Vec<String>,
    /// Puts in flight.
    pub writers: usize,
    /// Connections, at most one for each writer.
    pub connections: usize,
    /// The size of each value, in bytes.
    pub value_bytes: usize,
    /// How many different keys there are.
    pub keys: u64,
    /// The time before the measured time.
    pub warm_up: Duration,
    /// The measured time.
    pub duration: Duration,
    /// The members' process IDs.
    pub processes: Vec<u32>,
}

/// `None` if help is asked for.
pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Flags>, String> {
    let (mut protocol, mut connections) = (None, None);
    let mut flags = Flags {
        protocol: Protocol::Http,
        to: Vec::new(),
        writers: 1,
        connections: 0,
        value_bytes: 128,
        keys: 10_000,
        warm_up: Duration::from_secs(1),
        duration: Duration::from_secs(5),
        processes: Vec::new(),
    };
    while let Some(name) = arguments.next() {
        if name == "--help" {
            return Ok(None);
        }
        let mut value = || arguments.next().ok_or(format!("{name}: expected a value"));
        match name.as_str() {
            "--protocol" => protocol = Some(value()?.parse().map_err(|why| format!("{name}: {why}"))?),
            "--to" => flags.to.push(value()?),
            "--writers" => flags.writers = positive(&name, &value()?)?,
            "--connections" => connections = Some(positive(&name, &value()?)?),
            "--value-bytes" => flags.value_bytes = positive(&name, &value()?)?,
            "--keys" => flags.keys = positive(&name, &value()?)?,
            "--warm-up" => flags.warm_up = duration(&name, &value()?)?,
            "--seconds" => flags.duration = duration(&name, &value()?)?,
            "--process" => flags.processes.push(positive(&name, &value()?)?),
            _ => return Err(format!("{name}: no such flag; see --help")),
        }
    }
    flags.protocol = protocol.ok_or("--protocol: expected http or grpc")?;
    flags.connections = connections.unwrap_or(flags.writers);
    if flags.to.is_empty() {
        return Err("--to: expected a member's client address, host:port".to_owned());
    }
    if flags.connections > flags.writers {
        return Err(format!(
            "--connections {}: expected at most one for each of {} writers",
            flags.connections, flags.writers
        ));
    }
    if flags.protocol == Protocol::Http && flags.connections < flags.writers {
        return Err(format!(
            "--connections {}: HTTP/1.1 carries one request at a time: expected {}, one for each writer",
            flags.connections, flags.writers
        ));
    }
    Ok(Some(flags))
}

fn positive<T: FromStr + PartialOrd + From<u8>>(name: &str, text: &str) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| *number >= T::from(1));
    number.ok_or(format!("{name} {text}: expected a number, 1 or more"))
}

fn duration(name: &str, text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or(format!("{name} {text}: expected seconds, more than 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &str) -> Result<Option<Flags>, String> {
        parse(arguments.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn each_writer_has_a_connection_unless_it_is_told_otherwise() {
        let flags = of("--protocol grpc --to a:1 --to b:1 --writers 64").expect("valid").expect("no help");
        assert_eq!((flags.writers, flags.connections, flags.to.len()), (64, 64, 2));
        let flags = of("--protocol grpc --to a:1 --writers 64 --connections 4").expect("valid").expect("no help");
        assert_eq!((flags.writers, flags.connections), (64, 4));
    }

    #[test]
    fn a_fault_names_the_flag_and_what_was_expected() {
        let fault = |arguments| of(arguments).expect_err("a fault");
        assert_eq!(fault("--to a:1"), "--protocol: expected http or grpc");
        assert_eq!(fault("--protocol udp"), "--protocol: \"udp\": expected http or grpc");
        assert_eq!(fault("--protocol http"), "--to: expected a member's client address, host:port");
        assert_eq!(fault("--protocol http --to"), "--to: expected a value");
        assert_eq!(fault("--writers 0"), "--writers 0: expected a number, 1 or more");
        assert_eq!(fault("--seconds -1"), "--seconds -1: expected seconds, more than 0");
        assert_eq!(fault("--speed 1"), "--speed: no such flag; see --help");
        assert!(fault("--protocol http --to a:1 --writers 2 --connections 1").contains("one for each writer"));
        assert!(fault("--protocol grpc --to a:1 --connections 2").contains("at most one for each of 1 writers"));
    }
}
