//! Threads for work that waits for the disk.

use std::io;

use tokio::{runtime::Handle, task::JoinHandle};

/// Where blocking work runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Threads {
    /// On threads of its own, beside those that serve connections.
    #[default]
    Real,
    /// In place: there is one thread, and everything else waits.
    One,
}

impl Threads {
    /// Runs blocking work, and returns its result.
    pub(super) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        match self {
            Self::Real => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
            Self::One => Ok(work()),
        }
    }

    /// Runs a future that blocks whenever it is polled.
    pub(super) fn spawn<F>(self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match self {
            Self::Real => {
                let runtime = Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(work))
            }
            Self::One => tokio::spawn(work),
        }
    }

    /// Runs a long-lived future that blocks whenever it is polled, on a thread of this name.
    pub(super) fn dedicate(self, name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        match self {
            Self::Real => {
                let runtime = Handle::current();
                let thread = std::thread::Builder::new().name(name.to_owned());
                thread.spawn(move || runtime.block_on(work)).map(drop)
            }
            Self::One => {
                tokio::spawn(work);
                Ok(())
            }
        }
    }
}
