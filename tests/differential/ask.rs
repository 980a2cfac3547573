//! Raw requests, and what is read of their answers.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Longer than either side may wait before it answers or gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than an open stream is silent: a link heartbeat comes every 5/3 s.
const FIRST_FRAME: Duration = Duration::from_secs(5);

/// How the bytes of a request are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    AtOnce,
    /// A byte at a time, with a pause after each of the last few.
    Dripping,
    /// All but the last bytes, then nothing; the connection stays.
    Stalling(usize),
    /// All but the last bytes, then the end.
    Ending(usize),
}

/// What was answered.
#[derive(Debug, Default)]
pub struct Answer {
    /// `None`: the connection was closed without an answer.
    pub status: Option<u16>,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// Whether the connection took another request afterwards.
    pub kept: bool,
}

/// Asks on a connection of its own.
pub async fn ask(address: SocketAddr, request: &[u8], pace: Pace) -> Answer {
    let mut connection = TcpStream::connect(address).await.expect("somebody listens");
    connection.set_nodelay(true).expect("it is open");
    let head_only = request.starts_with(b"HEAD ");
    let asking = async {
        // One that is closed while we write may have answered before.
        let _ = write(&mut connection, request, pace).await;
        read(&mut connection, head_only).await
    };
    let mut answer = timeout(PATIENCE, asking).await.expect("an answer, or an end").unwrap_or_default();
    if answer.status.is_some() && !answer.is_endless() && !matches!(pace, Pace::Ending(_)) {
        answer.kept = is_kept(&mut connection).await;
    }
    answer
}

async fn write(connection: &mut TcpStream, request: &[u8], pace: Pace) -> io::Result<()> {
    match pace {
        Pace::AtOnce => connection.write_all(request).await,
        Pace::Dripping => {
            let (start, end) = request.split_at(request.len().saturating_sub(8));
            connection.write_all(start).await?;
            for byte in end {
                sleep(Duration::from_millis(100)).await;
                connection.write_all(&[*byte]).await?;
            }
            Ok(())
        }
        Pace::Stalling(held_back) => connection.write_all(&request[..request.len() - held_back]).await,
        Pace::Ending(held_back) => {
            connection.write_all(&request[..request.len() - held_back]).await?;
            connection.shutdown().await
        }
    }
}

/// The first final answer. An error: there was none.
async fn read(connection: &mut TcpStream, head_only: bool) -> io::Result<Answer> {
    let mut answer = loop {
        let answer = read_head(connection).await?;
        if answer.status != Some(100) {
            break answer;
        }
    };
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    let body = match length {
        _ if head_only || answer.status == Some(204) => Vec::new(),
        Some(length) => up_to(connection, length).await,
        None if answer.is_endless() => first_bytes(connection).await,
        None if answer.header("transfer-encoding").is_some() => chunks(connection).await,
        None => up_to(connection, usize::MAX).await,
    };
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

async fn read_head(connection: &mut TcpStream) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Ok(Answer { status, headers, ..Answer::default() })
}

async fn up_to(connection: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < length {
        match connection.read_u8().await {
            Ok(byte) => body.push(byte),
            Err(_) => break,
        }
    }
    body
}

/// A chunked body; one that is cut off is as long as it came.
async fn chunks(connection: &mut TcpStream) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            match connection.read_u8().await {
                Ok(byte) => size.push(byte),
                Err(_) => return body,
            }
        }
        let size = usize::from_str_radix(String::from_utf8_lossy(&size).trim(), 16).unwrap_or(0);
        let mut chunk = up_to(connection, size + 2).await;
        if size == 0 || chunk.len() < size + 2 {
            return body;
        }
        chunk.truncate(size);
        body.extend(chunk);
    }
}

/// Whether frames come on a stream; which, depends on the moment.
async fn first_bytes(connection: &mut TcpStream) -> Vec<u8> {
    match timeout(FIRST_FRAME, connection.read_u8()).await {
        Ok(Ok(_)) => b"frames".to_vec(),
        Ok(Err(_)) => b"the end".to_vec(),
        Err(_) => b"nothing".to_vec(),
    }
}

async fn is_kept(connection: &mut TcpStream) -> bool {
    let again = async {
        connection.write_all(b"GET /raft/probing HTTP/1.1\r\nHost: member\r\n\r\n").await?;
        read(connection, false).await
    };
    matches!(timeout(PATIENCE, again).await, Ok(Ok(Answer { status: Some(200), .. })))
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Whether this is an open stream.
    fn is_endless(&self) -> bool {
        self.status == Some(200)
            && self.header("transfer-encoding").is_some()
            && self.header("x-server-version").is_some()
    }

    /// What has to be the same, by name.
    pub fn parts(&self) -> BTreeMap<&'static str, String> {
        let status = self.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        let mut parts = BTreeMap::from([("status", status), ("body", steady(&self.body))]);
        if self.status.is_some() && !self.is_endless() {
            parts.insert("connection", if self.kept { "kept" } else { "closed" }.to_owned());
        }
        for name in COMPARED {
            if let Some(value) = self.header(name) {
                parts.insert(name, value.to_owned());
            }
        }
        parts
    }
}

/// The headers that matter. `Connection` is told by what becomes of it, `Content-Length` by the body.
const COMPARED: [&str; 6] =
    ["content-type", "x-etcd-cluster-id", "x-server-version", "allow", "location", "x-content-type-options"];

/// A body without what is another each time: the time of a probe, and the words in which a library says why.
fn steady(body: &str) -> String {
    let between = |start: &str, end: &str| {
        let from = body.find(start)? + start.len();
        let to = from + body[from..].rfind(end)?;
        Some(format!("{}…{}", &body[..from], &body[to..]))
    };
    between("\"Now\":\"", "\"}")
        .or_else(|| between(" raft message (", ")"))
        .or_else(|| between("KV snapshot (", ")"))
        .unwrap_or_else(|| body.to_owned())
}
