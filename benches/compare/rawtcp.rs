//! What a row is measured against: the same bytes over one bare TCP connection on loopback, read and written by threads
//! that block. It shows what the kernel leaves to win.
//!
//! ```text
//! rawtcp copy DIRECTORY BYTES     bytes into a file, synced, and a byte back: a snapshot
//! rawtcp serve                    prints its port, and answers one of these:
//! rawtcp ping PORT SIZE COUNT     so many bytes there, as many back
//! rawtcp stream PORT SIZE COUNT   so many pieces there, and a byte back at the end
//! ```
//!
//! Each prints one JSON line. The standard library alone: `rustc -O rawtcp.rs`.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Read at a time, and written at a time of a snapshot.
const PIECE: usize = 256 << 10;
const PING: u8 = b'p';
const STREAM: u8 = b's';

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => serve(),
        ["copy", directory, bytes] => copy(Path::new(directory), number(bytes)?),
        ["ping", port, size, count] => ping(connect(port, PING, size)?, number(size)? as usize, number(count)?),
        ["stream", port, size, count] => stream(connect(port, STREAM, size)?, number(size)? as usize, number(count)?),
        _ => Err(invalid("usage: rawtcp copy DIRECTORY BYTES | serve | ping PORT SIZE COUNT | stream PORT SIZE COUNT")),
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| invalid(text))
}

/// Connects, and says what follows.
fn connect(port: &str, what: u8, size: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", number(port)? as u16))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[what])?;
    stream.write_all(&number(size)?.to_be_bytes())?;
    Ok(stream)
}

fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let (mut what, mut size) = ([0], [0; 8]);
    stream.read_exact(&mut what)?;
    stream.read_exact(&mut size)?;
    if what == [PING] {
        let mut bytes = vec![0; u64::from_be_bytes(size) as usize];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        return Ok(());
    }
    let mut piece = vec![0; PIECE];
    while stream.read(&mut piece)? > 0 {}
    stream.write_all(&[1])
}

fn ping(mut stream: TcpStream, size: usize, count: u64) -> io::Result<()> {
    let (mut bytes, mut times) = (vec![0; size], Vec::with_capacity(count as usize));
    let begin = Instant::now();
    for _ in 0..count {
        let sent = Instant::now();
        stream.write_all(&bytes)?;
        stream.read_exact(&mut bytes)?;
        times.push(sent.elapsed());
    }
    let seconds = begin.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0.0, Duration::as_secs_f64) * 1e6;
    println!("{{\"seconds\":{seconds},\"p50_us\":{},\"p99_us\":{}}}", at(50), at(99));
    Ok(())
}

fn stream(mut stream: TcpStream, size: usize, count: u64) -> io::Result<()> {
    let piece = vec![0; size];
    let begin = Instant::now();
    for _ in 0..count {
        stream.write_all(&piece)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    println!("{{\"seconds\":{}}}", begin.elapsed().as_secs_f64());
    Ok(())
}

fn copy(directory: &Path, bytes: u64) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let path = directory.join(format!("rawtcp-{}", std::process::id()));
    let file = path.clone();
    let receiver = thread::spawn(move || receive(&listener, &file));
    let begin = Instant::now();
    let sent = send(TcpStream::connect(address)?, bytes);
    let seconds = begin.elapsed().as_secs_f64();
    let received = receiver.join().expect("the receiver does not panic");
    std::fs::remove_file(&path)?;
    sent?;
    if received? != bytes {
        return Err(io::Error::other("not all bytes arrived"));
    }
    println!("{{\"seconds\":{seconds}}}");
    Ok(())
}

fn send(mut stream: TcpStream, bytes: u64) -> io::Result<()> {
    let piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(PIECE as u64) as usize;
        stream.write_all(&piece[..count])?;
        left -= count as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])
}

fn receive(listener: &TcpListener, path: &Path) -> io::Result<u64> {
    let (mut stream, _) = listener.accept()?;
    let mut file = File::create(path)?;
    let mut piece = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            break;
        }
        file.write_all(&piece[..count])?;
        bytes += count as u64;
    }
    file.sync_all()?;
    stream.write_all(&[1])?;
    Ok(bytes)
}
