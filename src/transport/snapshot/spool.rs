//! What was received of snapshots that are not whole yet, or that raft is yet to be asked about: bounded in number, in age,
//! and by what the file system has.
//!
//! Two files each lie beside what is in its place: `part-{sender}-{name}.data`, and a [`record`](super::record) of how far
//! that is synced. What has no record that can be read is removed when the store is opened.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{
    part::{Claim, Claimed, DATA, Kept, PREFIX, Part, RECORD, State, remove},
    receiver::SnapshotError,
    record::{HEAD_BYTES, Head, MARK_BYTES, MAX_BYTES},
};
use crate::{
    id::MemberId,
    wire::resumption::{Named, Rest},
    world::{Files, World},
};

/// The parts of one store.
pub(crate) struct Spool {
    world: World,
    directory: PathBuf,
    parts: Mutex<Vec<Arc<Part>>>,
}

/// What becomes of who brings the rest of a snapshot.
pub(crate) enum Begun {
    /// He may write it.
    Writing {
        /// By this.
        claim: Claim,
        /// How many bytes of another snapshot of his were dropped for it.
        instead_of: Option<u64>,
    },
    /// It is whole: how it ends is told here.
    Whole(watch::Receiver<State>),
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("directory", &self.directory).field("parts", &self.parts().len()).finish()
    }
}

impl Spool {
    /// What an earlier process left in a directory, of which `place` tells where what is whole has its place.
    pub(super) fn open(world: &World, directory: &Path, place: impl Fn(u64) -> PathBuf) -> io::Result<Self> {
        let files = world.files();
        let mut parts = Vec::new();
        let names = files.names(directory)?.into_iter().filter_map(|name| name.into_string().ok());
        let names: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
        for stem in names.iter().filter_map(|name| name.strip_suffix(RECORD)) {
            let part = found(files, directory, stem, &place)?;
            parts.extend(part);
        }
        for name in names {
            let path = directory.join(name);
            let is_kept = parts.iter().any(|part| path == part.data(directory) || path == part.record(directory));
            if !is_kept {
                remove(files, &path)?;
            }
        }
        Ok(Self { world: world.clone(), directory: directory.to_owned(), parts: Mutex::new(parts) })
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Arc<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, sender: MemberId, of: &Named) -> Option<Arc<Part>> {
        let parts = self.parts();
        parts.iter().find(|part| part.head.sender == sender && part.head.of == *of).cloned()
    }

    /// How many bytes are there of what a sender names so. What an older connection still brings is written first.
    pub(crate) async fn has(&self, sender: MemberId, of: &Named) -> Result<u64, SnapshotError> {
        let Some(part) = self.find(sender, of) else { return Ok(0) };
        Ok(match part.claim().await? {
            Claimed::Claim(claim) => claim.offset(),
            Claimed::Whole(_) => of.length,
            Claimed::Gone => 0,
        })
    }

    /// Lets a sender write the rest of a snapshot, of which what comes before is there. What is there of another of his
    /// gives way, and where `most` are there, the oldest that nobody writes.
    pub(crate) async fn begin(
        &self,
        sender: MemberId,
        rest: Rest,
        index: u64,
        most: usize,
    ) -> Result<Begun, SnapshotError> {
        if let Some(part) = self.find(sender, &rest.of) {
            if part.head.index != index {
                let why = format!("it stood for index {}, and now for {index}", part.head.index);
                return Err(SnapshotError::Save(why));
            }
            match part.claim().await? {
                Claimed::Claim(claim) if claim.offset() == rest.offset => {
                    return Ok(Begun::Writing { claim, instead_of: None });
                }
                Claimed::Claim(claim) => return Err(SnapshotError::OtherOffset(claim.offset())),
                Claimed::Whole(state) if rest.offset == rest.of.length => return Ok(Begun::Whole(state)),
                Claimed::Whole(_) => return Err(SnapshotError::OtherOffset(rest.of.length)),
                Claimed::Gone => {}
            }
        }
        if rest.offset > 0 {
            return Err(SnapshotError::OtherOffset(0));
        }
        let (claim, dropped) = self.admit(Head { sender, of: rest.of, index }, most)?;
        let arriving = |old: &&Claim| old.part.head.sender == sender && old.part.state() == State::Arriving;
        let instead_of = dropped.iter().filter(arriving).map(Claim::offset).max().filter(|bytes| *bytes > 0);
        self.drop_files(dropped).await;
        Ok(Begun::Writing { claim, instead_of })
    }

    /// Takes one more in, and out what gives way to it.
    fn admit(&self, head: Head, most: usize) -> Result<(Claim, Vec<Claim>), SnapshotError> {
        let part = Part::new(head, Kept::nothing(self.world.now()));
        let claim = part.claim_idle().ok_or(SnapshotError::Busy)?;
        let mut parts = self.parts();
        let is_same = |other: &Head| (other.sender, other.of.name) == (head.sender, head.of.name);
        let (mut dropped, mut idle) = (Vec::new(), Vec::new());
        for old in parts.iter().filter(|old| old.state() != State::Gone) {
            match old.claim_idle() {
                Some(old) if old.part.head.sender == head.sender => dropped.push(old),
                Some(old) => idle.push(old),
                None if is_same(&old.head) => return Err(SnapshotError::Busy),
                None => {}
            }
        }
        let is_in = |claims: &[Claim], part: &Arc<Part>| claims.iter().any(|claim| Arc::ptr_eq(&claim.part, part));
        parts.retain(|part| part.state() != State::Gone && !is_in(&dropped, part));
        // The oldest last. What raft has answered for is only remembered for who did not hear it.
        idle.sort_by_key(|old| (old.part.state() == State::Arriving, old.kept.touched));
        idle.reverse();
        while parts.len() >= most {
            let Some(oldest) = idle.pop() else {
                return Err(SnapshotError::Save("too many snapshots at a time".to_owned()));
            };
            parts.retain(|part| !Arc::ptr_eq(part, &oldest.part));
            dropped.push(oldest);
        }
        parts.push(part);
        Ok((claim, dropped))
    }

    /// Forgets what is there of a snapshot, where nobody writes it.
    pub(crate) async fn forget(&self, sender: MemberId, of: &Named) {
        let claim = self.find(sender, of).and_then(|part| part.claim_idle());
        self.drop_files(claim.into_iter().collect()).await;
    }

    /// Gives back a right to write of which nothing was made.
    pub(crate) async fn give_back(&self, claim: Claim) {
        if claim.offset() == 0 {
            self.drop_files(vec![claim]).await;
        }
    }

    /// Drops what is older than this, and what is beyond so many.
    pub(crate) async fn age(&self, age: Duration, most: usize) {
        let now = self.world.now();
        let mut idle: Vec<Claim> = self.parts().iter().filter_map(Part::claim_idle).collect();
        idle.sort_by_key(|old| old.kept.touched);
        let beyond = self.parts().len().saturating_sub(most);
        // A clock that went back makes nothing old.
        let is_old = |old: &Claim| now.duration_since(old.kept.touched).is_ok_and(|passed| passed > age);
        let old = idle.into_iter().enumerate().filter(|(place, old)| *place < beyond || is_old(old));
        self.drop_files(old.map(|(_, old)| old).collect()).await;
    }

    async fn drop_files(&self, claims: Vec<Claim>) {
        if claims.is_empty() {
            return;
        }
        let (files, directory) = (self.world.files().clone(), self.directory.clone());
        // Where the runtime ends meanwhile, they are removed at the next start.
        let _ =
            self.world.blocking(move || claims.into_iter().for_each(|old| old.drop_files(&files, &directory))).await;
        self.parts().retain(|part| part.state() != State::Gone);
    }
}

/// What an earlier process has noted of a part, where that can be gone on with.
fn found(files: &Files, directory: &Path, stem: &str, place: impl Fn(u64) -> PathBuf) -> io::Result<Option<Arc<Part>>> {
    let record = files.open_kept(&directory.join(format!("{stem}{RECORD}")))?;
    let length = record.len()?.min(MAX_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let read = record.read_at(0, &mut bytes)?;
    let Some((head, mark, marks)) = Head::read(&bytes[..read]) else { return Ok(None) };
    let has =
        |path: &Path| -> io::Result<u64> { if files.exists(path) { files.open_kept(path)?.len() } else { Ok(0) } };
    let is_whole = mark.synced == head.of.length;
    let is_placed = is_whole && !files.exists(&directory.join(format!("{stem}{DATA}")));
    let kept = Kept { offset: mark.synced, synced: mark.synced, marks, hash: None, touched: mark.at, is_placed };
    let part = Part::new(head, kept);
    let path = if is_placed { place(head.index) } else { part.data(directory) };
    if part.record(directory) != directory.join(format!("{stem}{RECORD}"))
        || has(&path)? < mark.synced
        || mark.synced == 0
    {
        return Ok(None);
    }
    // A mark behind the torn one would be believed as soon as that is written anew.
    let end = HEAD_BYTES as u64 + marks * MARK_BYTES as u64;
    if record.len()? > end {
        record.set_len(end)?;
        record.sync()?;
    }
    Ok(Some(part))
}
