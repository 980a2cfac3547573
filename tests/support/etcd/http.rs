//! One request on a connection of its own.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// `GET` of a plain URL: status and body. HTTP/1.0, so that the body ends with the connection.
pub async fn get(url: &str, path: &str) -> io::Result<(u16, String)> {
    let address = url.strip_prefix("http://").ok_or_else(|| io::Error::other("not http"))?;
    let asking = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no end of the head"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| io::Error::other("no status"))?, body.to_owned()))
    };
    timeout(Duration::from_secs(5), asking).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
