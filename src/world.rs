//! Everything that comes from outside of this process: the time of day, random numbers, the network, files, and
//! threads.
//!
//! A [`World`] is passed to a transport or node when it is built, and from there to all of its parts. No part takes
//! these from anywhere else, so that a simulation can give each member a world of its own that is determined by a seed.
//! The default is the real one.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{net::TcpStream, task::JoinHandle};

mod clock;
mod disk;
mod files;
mod listener;
mod network;
mod ports;
mod random;
mod socket;
mod system_file;
mod threads;

use clock::Clock;
pub use disk::{Disk, DiskFile, Opening};
pub(crate) use files::{File, Files, UNSYNCED_BYTES};
pub use listener::Listener;
pub(crate) use listener::Port;
pub use network::{ByteStream, Listen, Network};
pub(crate) use ports::{TakenSocket, canonical, in_zone, take};
use random::Random;
pub(crate) use socket::Socket;
use threads::Threads;

/// The world of a member. Cheap to clone: all clones are one world.
#[derive(Clone, Debug, Default)]
pub struct World(Arc<WorldParts>);

/// Each part is the real one unless it was replaced.
#[derive(Clone, Debug, Default)]
struct WorldParts {
    clock: Clock,
    random: Random,
    /// `None`: the system's.
    network: Option<Arc<dyn Network>>,
    files: Files,
    threads: Threads,
}

/// The longest wait, whatever the settings say. A clock can be advanced by this much, and by a multiple of it, without
/// overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl World {
    /// The same world with another clock for the time of day. The time may jump, as real clocks do. Durations are
    /// measured by tokio's clock, which a paused runtime moves. `now` is called for every frame, under locks, and must
    /// not block.
    #[must_use]
    pub fn with_clock(self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.changed(|parts| parts.clock = Clock::Told(Arc::new(now)))
    }

    /// The same world with random numbers from this seed. The same calls in the same order give the same numbers.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        self.changed(|parts| parts.random = Random::seeded(seed))
    }

    /// The same world with another network: for connections, for listening, and for names.
    #[must_use]
    pub fn with_network(self, network: Arc<dyn Network>) -> Self {
        self.changed(|parts| parts.network = Some(network))
    }

    /// The same world with another disk, for all files of the member.
    #[must_use]
    pub fn with_disk(self, disk: Arc<dyn Disk>) -> Self {
        self.changed(|parts| parts.files = Files::on(disk))
    }

    /// The same world without extra threads: work that waits for the disk runs in place, so that everything happens in
    /// one order, on one thread.
    #[must_use]
    pub fn with_one_thread(self) -> Self {
        self.changed(|parts| parts.threads = Threads::One)
    }

    fn changed(self, change: impl FnOnce(&mut WorldParts)) -> Self {
        let mut parts = Arc::unwrap_or_clone(self.0);
        change(&mut parts);
        Self(Arc::new(parts))
    }

    /// The time of day.
    pub(crate) fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    /// A uniformly random number.
    pub(crate) fn number(&self) -> u64 {
        self.0.random.number()
    }

    /// A uniformly random number from 0 (included) to 1 (excluded).
    pub(crate) fn fraction(&self) -> f64 {
        self.0.random.fraction()
    }

    /// The network, if it is not the system's.
    pub(crate) fn network(&self) -> Option<&Arc<dyn Network>> {
        self.0.network.as_ref()
    }

    /// Connects to an address.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<Socket> {
        match self.network() {
            None => TcpStream::connect(to).await.map(Socket::Tcp),
            Some(network) => network.connect(to).await.map(Socket::Other),
        }
    }

    /// Listens for each host and port. Hosts and ports that mean the same socket share one. An error comes with the
    /// index of its host.
    pub(crate) async fn take_ports(
        &self,
        wanted: &[(&str, u16)],
    ) -> Result<Vec<(Port, Vec<usize>)>, (usize, io::Error)> {
        let Some(network) = self.network() else {
            let taken = ports::take(wanted)?;
            return Ok(taken.into_iter().map(|taken| (Port::Tcp(taken.listener), taken.of)).collect());
        };
        let mut taken = Vec::new();
        for (asked, (host, port)) in wanted.iter().enumerate() {
            let port = network.listen(host, *port).await.map_err(|error| (asked, error))?;
            taken.push((Port::Other(port), vec![asked]));
        }
        Ok(taken)
    }

    /// The files of the member.
    pub(crate) fn files(&self) -> &Files {
        &self.0.files
    }

    /// Runs work that waits for the disk, and returns its result. It is an error if the work panicked, or if the
    /// runtime ends.
    pub(crate) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.0.threads.run(work).await
    }

    /// Runs a future that waits for the disk whenever it is polled. The future goes on when the handle is dropped.
    pub(crate) fn spawn_blocking<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.threads.spawn(work)
    }

    /// Runs such a future, if it is long-lived, on a thread of its own.
    pub(crate) fn dedicate(&self, name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        self.0.threads.dedicate(name, work)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn drawn(world: &World) -> Vec<(u64, u64)> {
        (0..100).map(|_| (world.number(), world.fraction().to_bits())).collect()
    }

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let seeded = |seed| World::default().with_seed(seed);
        assert_eq!(drawn(&seeded(7)), drawn(&seeded(7)));
        assert_ne!(drawn(&seeded(7)), drawn(&seeded(8)));
        assert_ne!(drawn(&World::default()), drawn(&World::default()));
    }

    #[test]
    fn clones_draw_from_one_sequence() {
        let (world, whole) = (World::default().with_seed(7), World::default().with_seed(7));
        let together: Vec<_> = [world.clone(), world.clone(), world].iter().map(World::number).collect();
        assert_eq!(together, [whole.number(), whole.number(), whole.number()]);
    }

    #[test]
    fn a_fraction_is_from_0_to_1() {
        for world in [World::default(), World::default().with_seed(1)] {
            assert!((0..1000).map(|_| world.fraction()).all(|fraction| (0.0..1.0).contains(&fraction)));
        }
    }

    #[test]
    fn the_time_of_day_is_what_the_clock_says_and_the_real_one_goes_on() {
        let noon = UNIX_EPOCH + Duration::from_secs(12 * 3600);
        let world = World::default().with_clock(move || noon).with_seed(1);
        assert_eq!(world.now(), noon);
        assert!(World::default().now() > UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    }
}
