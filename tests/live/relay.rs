//! A link that can be cut: it passes bytes on, TLS or not, until it is told not to.

use std::{
    fmt, fs,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// How often the system is asked for a connection: its list is no snapshot, and passes over some while others change.
const LOOKS: usize = 5;

/// Which connections stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    None,
    /// Those that this process opened.
    From(u32),
    All,
}

impl Cut {
    /// Whether it concerns the connection from this port.
    async fn concerns(self, port: u16) -> bool {
        match self {
            Self::None => false,
            Self::From(pid) => {
                let looked = tokio::task::spawn_blocking(move || (0..LOOKS).any(|_| opened(pid, port)));
                looked.await.expect("it does not panic")
            }
            Self::All => true,
        }
    }
}

/// Listens on a port of its own and passes on what comes.
pub struct Relay {
    pub address: SocketAddr,
    cut: watch::Sender<Cut>,
    /// How many connections stand still.
    standing: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cut, standing) = (*self.cut.borrow(), self.standing.load(Ordering::Relaxed));
        write!(f, "relay {}: cut {cut:?}, {standing} connections stand still", self.address)
    }
}

impl Relay {
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let cut = watch::Sender::new(Cut::None);
        let standing = Arc::new(AtomicUsize::new(0));
        let (connections, count) = (cut.clone(), standing.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((near, from)) = listener.accept().await {
                let (cut, count) = (connections.subscribe(), count.clone());
                tokio::spawn(pass(near, to, from.port(), cut, count));
            }
        });
        Self { address, cut, standing, accepting }
    }

    pub fn set(&self, cut: Cut) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Passes a connection's bytes on. One that was cut stands still, as in a network that loses everything, and is closed
/// when the cut is mended: its bytes cannot be had again.
async fn pass(near: TcpStream, to: SocketAddr, port: u16, mut cut: watch::Receiver<Cut>, standing: Arc<AtomicUsize>) {
    let mut ends = vec![near];
    let now = *cut.borrow_and_update();
    if !now.concerns(port).await {
        let Ok(far) = TcpStream::connect(to).await else { return };
        ends.push(far);
        if !copy_until_cut(&mut ends, port, &mut cut).await {
            return;
        }
    }
    // Both ends are held, so that neither hears of it.
    standing.fetch_add(1, Ordering::Relaxed);
    let _ = cut.wait_for(|cut| *cut == Cut::None).await;
    standing.fetch_sub(1, Ordering::Relaxed);
}

/// Copies in both directions. True: it was cut; false: an end was closed.
async fn copy_until_cut(ends: &mut [TcpStream], port: u16, cut: &mut watch::Receiver<Cut>) -> bool {
    let [near, far] = ends else { return false };
    for end in [&*near, &*far] {
        // It is gone already if this fails.
        let _ = end.set_nodelay(true);
    }
    let mut copying = pin!(copy_bidirectional(near, far));
    loop {
        tokio::select! {
            _ = &mut copying => return false,
            changed = cut.changed() => if changed.is_err() { return false },
        }
        let now = *cut.borrow_and_update();
        if now.concerns(port).await {
            return true;
        }
    }
}

/// Whether this process has a connection from this port, as the system tells it.
fn opened(pid: u32, port: u16) -> bool {
    let connections = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let from = format!(":{port:04X} ");
    let lines = connections.lines().filter(|line| line.contains(&from));
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Its own end, not the other's; then the socket's number.
    let own = fields.filter(|fields| fields.len() > 9 && fields[1].ends_with(from.trim_end()));
    let sockets: Vec<String> = own.map(|fields| format!("socket:[{}]", fields[9])).collect();
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.into_iter().any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
}
