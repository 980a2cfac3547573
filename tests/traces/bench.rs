//! Two transports as two processes: `rafthttp bench`, with what it is told about traces in its environment.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A run of a source and a sink.
pub(crate) struct Bench {
    pub(crate) messages: u64,
    pub(crate) ratio: &'static str,
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// How one side ended, and what it logged.
pub(crate) struct Side {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Bench {
    /// Sends the messages. Says how source and sink ended.
    pub(crate) async fn run(&self) -> [Side; 2] {
        let mut sink =
            self.command(&["bench", "sink", "--listen", "127.0.0.1:0"]).spawn().expect("the binary was built");
        let mut log = BufReader::new(sink.stderr.take().expect("it is piped"));
        let (address, mut said) = listens(&mut log).await;
        let messages = self.messages.to_string();
        let source = ["bench", "source", "--to", &address, "--work", "append", "--size", "16", "--messages", &messages];
        let mut source = self.command(&source).spawn().expect("the binary was built");
        let mut other = BufReader::new(source.stderr.take().expect("it is piped"));
        let (sink, source) = tokio::join!(end(&mut sink, &mut log), end(&mut source, &mut other));
        said.push_str(&sink.log);
        [source, Side { log: said, ..sink }]
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = rafthttp(&self.environment);
        command.args(arguments).args(["--trace-ratio", self.ratio]);
        command
    }
}

/// The binary, with these variables of OpenTelemetry's and no other.
pub(crate) fn rafthttp(environment: &[(&'static str, String)]) -> Command {
    let mut command = Command::from(crate::binary::rafthttp());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command.args(["--log-format", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Waits until it says where it listens.
async fn listens(log: &mut BufReader<ChildStderr>) -> (String, String) {
    let mut said = String::new();
    loop {
        let mut line = String::new();
        let read = timeout(PATIENCE, log.read_line(&mut line)).await.expect("it starts").expect("a line");
        assert!(read > 0, "it ended: {said}");
        said.push_str(&line);
        let line: serde_json::Value = serde_json::from_str(&line).expect("a line of the log is JSON");
        if line["message"] == "bench listens" {
            return (line["address"].as_str().expect("an address").to_owned(), said);
        }
    }
}

/// Waits for a process to end.
pub(crate) async fn end(child: &mut Child, log: &mut BufReader<ChildStderr>) -> Side {
    let mut said = String::new();
    let ended = async {
        log.read_to_string(&mut said).await.expect("its log is text");
        child.wait().await.expect("it is ours")
    };
    let status = timeout(PATIENCE, ended).await.expect("it ends");
    Side { status, log: said }
}
