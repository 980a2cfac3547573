//! What a snapshot is measured against: bytes over one TCP connection on loopback into a file, synced, and a byte back.
//!
//! `rawcopy DIRECTORY BYTES` prints one JSON line. The standard library alone: `rustc -O rawcopy.rs`.

use std::{
    env,
    fs::File,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

/// Read and written at a time, as the source's pieces of a snapshot.
const PIECE: usize = 256 << 10;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: rawcopy DIRECTORY BYTES");
    let directory = arguments.next().map(PathBuf::from).ok_or_else(usage)?;
    let bytes: u64 = arguments.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;

    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let path = directory.join(format!("rawcopy-{}", std::process::id()));
    let file = path.clone();
    let receiver = thread::spawn(move || receive(&listener, &file));
    let start = Instant::now();
    let sent = send(TcpStream::connect(address)?, bytes);
    let seconds = start.elapsed().as_secs_f64();
    let received = receiver.join().expect("the receiver does not panic");
    std::fs::remove_file(&path)?;
    sent?;
    if received? != bytes {
        return Err(io::Error::other("not all bytes arrived"));
    }
    println!("{{\"bytes\":{bytes},\"seconds\":{seconds},\"bytes_per_second\":{}}}", bytes as f64 / seconds);
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
