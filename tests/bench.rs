//! `rafthttp bench` with several sinks: one process that poses as several members.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

#[path = "support/binary.rs"]
mod binary;
#[path = "support/ports.rs"]
mod ports;

use ports::free_port;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is ended with the test.
struct Side {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Side {
    fn start(arguments: &[&str]) -> Self {
        let mut command = binary::rafthttp();
        command.arg("bench").args(arguments).args(["--log", "error"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary was built");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, out }
    }

    /// The next line that it prints.
    fn report(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        serde_json::from_str(&line).expect("a line of JSON")
    }

    /// Ends it as a person would.
    fn stop(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it runs");
    }

    fn ended_well(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn counts(report: &Value) -> [Option<u64>; 3] {
    ["peers", "messages", "lost"].map(|name| report[name].as_u64())
}

#[test]
fn each_of_several_sinks_gets_the_whole_load() {
    for (work, size, messages) in [("append", "128", "500"), ("ping", "0", "20"), ("snapshot", "64KiB", "16")] {
        let addresses = [(); 3].map(|()| format!("127.0.0.1:{}", free_port())).join(",");
        let mut sink = Side::start(&["sink", "--listen", &addresses]);
        let load = ["--work", work, "--size", size, "--messages", messages];
        let mut source = Side::start(&[["source", "--to", &addresses].as_slice(), &load].concat());
        let all = 3 * messages.parse::<u64>().expect("a number");
        for side in [&mut source, &mut sink] {
            assert_eq!(counts(&side.report()), [Some(3), Some(all), Some(0)], "{work}");
            assert!(side.ended_well(), "{work}");
        }
    }
}

#[test]
fn sinks_in_another_order_than_their_addresses_are_named() {
    let [one, other] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let _sink = Side::start(&["sink", "--listen", &format!("{one},{other}")]);
    let mut source = binary::rafthttp();
    source.args(["bench", "source", "--to", &format!("{other},{one}"), "--work", "append", "--messages", "1"]);
    let output = source.args(["--log", "error"]).output().expect("the binary was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no streams to") && said.contains(&other), "{said}");
}

/// The metrics of a member at this address. `None` if nobody listens.
fn metrics(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("it is written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is read");
    Some(answer)
}

#[test]
fn a_source_that_holds_serves_its_metrics_until_it_is_stopped() {
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port())).join(",");
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut sink = Side::start(&["sink", "--listen", &addresses]);
    let hold = at.to_string();
    let load = ["source", "--to", &addresses, "--work", "append", "--messages", "100", "--hold", &hold];
    let mut source = Side::start(&load);
    assert_eq!(counts(&source.report()), [Some(2), Some(200), Some(0)]);
    let end = Instant::now() + PATIENCE;
    let shown = loop {
        match metrics(at) {
            Some(shown) => break shown,
            None => assert!(Instant::now() < end, "nobody listens at {at}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    for peer in ["0000000000000002", "0000000000000003"] {
        let open = shown.lines().filter(|line| line.starts_with("rafthttp_stream_up{") && line.ends_with(" 1"));
        let of_peer = open.filter(|line| line.contains(peer.trim_start_matches('0'))).count();
        assert_eq!(of_peer, 4, "two streams in each direction: {shown}");
    }
    source.stop();
    assert!(source.ended_well());
    assert_eq!(counts(&sink.report()), [Some(2), Some(200), Some(0)]);
    assert!(sink.ended_well());
}
