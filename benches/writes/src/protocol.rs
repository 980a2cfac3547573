//! A put, in either protocol, on one connection.

use std::{str::FromStr, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    client::conn::{http1, http2},
    header::{CONTENT_TYPE, HOST, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::Mutex};

/// How members are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, `PUT /kv/{key}`.
    Http,
    /// gRPC, `etcdserverpb.KV/Put`.
    Grpc,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "http" => Ok(Self::Http),
            "grpc" => Ok(Self::Grpc),
            other => Err(format!("{other:?}: expected http or grpc")),
        }
    }
}

/// A connection to a member. Its clones share it.
#[derive(Clone)]
pub enum Connection {
    /// One writer's: the lock is never waited for.
    Http { address: Arc<str>, sender: Arc<Mutex<http1::SendRequest<Full<Bytes>>>> },
    /// Any number of writers'.
    Grpc { uri: hyper::Uri, sender: http2::SendRequest<Full<Bytes>> },
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(protocol: Protocol, address: &str) -> Result<Self, String> {
        let socket = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let io = TokioIo::new(socket);
        match protocol {
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
                // If it fails, the next put says so.
                tokio::spawn(connection);
                Ok(Self::Http { address: address.into(), sender: Arc::new(Mutex::new(sender)) })
            }
            Protocol::Grpc => {
                let handshake = http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = handshake.map_err(|error| error.to_string())?;
                tokio::spawn(connection);
                let uri = format!("http://{address}/etcdserverpb.KV/Put")
                    .parse()
                    .map_err(|_| "expected host:port".to_owned())?;
                Ok(Self::Grpc { uri, sender })
            }
        }
    }

    /// Writes a value, and waits until it is acknowledged.
    pub async fn put(&self, key: &str, value: &Bytes) -> Result<(), String> {
        match self {
            Self::Http { address, sender } => {
                let request =
                    Request::put(format!("/kv/{key}")).header(HOST, &**address).body(Full::new(value.clone()));
                let mut sender = sender.lock().await;
                sender.ready().await.map_err(|error| error.to_string())?;
                let answered = sender.send_request(request.map_err(|error| error.to_string())?).await;
                let answer = answered.map_err(|error| error.to_string())?;
                let status = answer.status();
                let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
                match status {
                    StatusCode::NO_CONTENT => Ok(()),
                    _ => Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim_end())),
                }
            }
            Self::Grpc { uri, sender } => {
                let request =
                    Request::post(uri.clone()).header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
                let request = request.body(Full::new(framed(key, value))).map_err(|error| error.to_string())?;
                let mut sender = sender.clone();
                sender.ready().await.map_err(|error| error.to_string())?;
                let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
                // A call that fails at once has its status in the head.
                let early = answer.headers().get("grpc-status").cloned();
                let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
                let status = early.or_else(|| body.trailers()?.get("grpc-status").cloned());
                match status {
                    Some(status) if status == "0" && body.to_bytes().len() > GRPC_HEADER_BYTES => Ok(()),
                    Some(status) => Err(format!("grpc-status {}", String::from_utf8_lossy(status.as_bytes()))),
                    None => Err("an answer without grpc-status".to_owned()),
                }
            }
        }
    }
}

/// A flag for compression, and the length of the message.
const GRPC_HEADER_BYTES: usize = 5;

/// etcd's `PutRequest` with its key (field 1) and value (field 2), as gRPC frames it.
fn framed(key: &str, value: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(key.len() + value.len() + 16);
    for (tag, bytes) in [(0x0a, key.as_bytes()), (0x12, value)] {
        message.put_u8(tag);
        put_varint(&mut message, bytes.len());
        message.put_slice(bytes);
    }
    let mut frame = BytesMut::with_capacity(GRPC_HEADER_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a value of less than 4 GiB"));
    frame.put_slice(&message);
    frame.freeze()
}

fn put_varint(into: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        into.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_grpc_and_protobuf_have_it() {
        assert_eq!(&framed("k", b"vw")[..], b"\0\0\0\0\x07\x0a\x01k\x12\x02vw");
        let long = framed("k", &[b'v'; 300]);
        assert_eq!(&long[..11], b"\0\0\0\x01\x32\x0a\x01k\x12\xac\x02");
        assert_eq!(long.len(), 5 + 3 + 3 + 300);
    }
}
