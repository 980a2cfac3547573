//! The received parts of snapshots that are incomplete, or that raft has not been asked about yet. They are limited in
//! number, in age, and by the free space of the file system.
//!
//! Each part has two files beside the final place of snapshots: `part-{sender}-{name}.data`, and a
//! [`record`](super::record) of how far the data are synced. Data without a readable record are removed when the store
//! is opened.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{
    part::{Claim, Claimed, DATA, KeptBytes, PREFIX, PartState, PartialSnapshot, RECORD, remove},
    receiver::ReceiveError,
    record::{HEAD_BYTES, MARK_BYTES, MAX_BYTES, RecordHead},
};
use crate::{
    id::MemberId,
    wire::resumption::{Named, Rest},
    world::{Files, World},
};

/// The parts of one store.
pub(crate) struct PartialSnapshots {
    world: World,
    directory: PathBuf,
    parts: Mutex<Vec<Arc<PartialSnapshot>>>,
}

/// The result of beginning to receive the rest of a snapshot.
pub(crate) enum Begun {
    /// The caller may write it.
    Writing(Claim),
    /// It is complete. This tells the result.
    Whole(watch::Receiver<PartState>),
}

/// A part that was added.
struct Admitted {
    /// The right to write it.
    claim: Claim,
    /// The parts that are dropped for it.
    dropped: Vec<Claim>,
    /// How many bytes of another snapshot of the same sender are dropped for it.
    instead_of: Option<u64>,
}

impl fmt::Debug for PartialSnapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartialSnapshots")
            .field("directory", &self.directory)
            .field("parts", &self.parts().len())
            .finish()
    }
}

impl PartialSnapshots {
    /// Finds the parts that an earlier process left in a directory. `place` returns the final place of a snapshot.
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

    fn parts(&self) -> MutexGuard<'_, Vec<Arc<PartialSnapshot>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, sender: MemberId, of: &Named) -> Option<Arc<PartialSnapshot>> {
        let parts = self.parts();
        parts.iter().find(|part| part.head.sender == sender && part.head.of == *of).cloned()
    }

    /// How many bytes of the named snapshot are there. The bytes of an older connection are written first.
    pub(crate) async fn has(&self, sender: MemberId, of: &Named) -> Result<u64, ReceiveError> {
        let Some(part) = self.find(sender, of) else { return Ok(0) };
        Ok(match part.claim().await? {
            Claimed::Claim(claim) => claim.offset(),
            Claimed::Whole(_) => of.length,
            Claimed::Gone => 0,
        })
    }

    /// Begins to receive the rest of a snapshot whose first bytes are there. `index` and `term` are those of its message.
    /// `None` if nothing of it is there. If the application took the snapshot with a message of another term, that is
    /// forgotten, so that it is asked anew, with all bytes.
    pub(crate) async fn go_on(
        &self,
        sender: MemberId,
        rest: Rest,
        index: u64,
        term: u64,
    ) -> Result<Option<Begun>, ReceiveError> {
        if let Some(part) = self.find(sender, &rest.of) {
            if part.head.index != index {
                let why = format!("it stood for index {}, and now for {index}", part.head.index);
                return Err(ReceiveError::Save(why));
            }
            match part.claim().await? {
                Claimed::Claim(claim) if claim.offset() == rest.offset => return Ok(Some(Begun::Writing(claim))),
                Claimed::Claim(claim) => return Err(ReceiveError::OtherOffset(claim.offset())),
                Claimed::Whole(_) if !part.is_of_term(term) => {
                    let claim = part.claim_idle().ok_or(ReceiveError::BEING_WRITTEN)?;
                    self.drop_files(vec![claim]).await;
                }
                Claimed::Whole(state) if rest.offset == rest.of.length => return Ok(Some(Begun::Whole(state))),
                Claimed::Whole(_) => return Err(ReceiveError::OtherOffset(rest.of.length)),
                Claimed::Gone => {}
            }
        }
        if rest.offset > 0 { Err(ReceiveError::OtherOffset(0)) } else { Ok(None) }
    }

    /// Begins to receive a snapshot of which nothing is there. A part of another snapshot of the same sender is dropped.
    /// If there are `most` parts, the first that is [idle](idle) is dropped. Returns the right to write, and how many
    /// bytes of another snapshot of the same sender were dropped.
    pub(crate) async fn add(
        &self,
        sender: MemberId,
        of: Named,
        index: u64,
        most: usize,
    ) -> Result<(Claim, Option<u64>), ReceiveError> {
        let Admitted { claim, dropped, instead_of } = self.admit(RecordHead { sender, of, index }, most)?;
        self.drop_files(dropped).await;
        Ok((claim, instead_of))
    }

    /// Adds a part. The caller removes the files of those that are dropped for it.
    fn admit(&self, head: RecordHead, most: usize) -> Result<Admitted, ReceiveError> {
        let part = PartialSnapshot::new(head, KeptBytes::nothing(self.world.now()));
        let claim = part.claim_idle().ok_or(ReceiveError::BEING_WRITTEN)?;
        let mut parts = self.parts();
        parts.retain(|part| part.state() != PartState::Gone);
        let (mut dropped, idle): (Vec<Claim>, Vec<Claim>) =
            idle(&parts).into_iter().partition(|old| old.part.head.sender == head.sender);
        let is_same = |other: &RecordHead| (other.sender, other.of.name) == (head.sender, head.of.name);
        let same = parts.iter().filter(|part| is_same(&part.head)).count();
        if same > dropped.iter().filter(|old| is_same(&old.part.head)).count() {
            return Err(ReceiveError::BEING_WRITTEN);
        }
        // Those that are dropped do not count, and stay in the list until their files are gone: until then, nobody else
        // may have the same files.
        let kept = parts.iter().filter(|part| part.is_kept()).count() - dropped.len();
        let beyond = (kept + 1).saturating_sub(most);
        if beyond > idle.len() {
            return Err(ReceiveError::TOO_MANY);
        }
        let arriving = |old: &&Claim| old.part.state() == PartState::Arriving;
        let instead_of = dropped.iter().filter(arriving).map(Claim::offset).max().filter(|bytes| *bytes > 0);
        dropped.extend(idle.into_iter().take(beyond));
        dropped.iter().for_each(Claim::leave);
        parts.push(part);
        Ok(Admitted { claim, dropped, instead_of })
    }

    /// Drops parts that nobody writes until there is room for the rest of this one, beside so many bytes that must stay
    /// free. If they would not make enough room together, none is dropped.
    pub(crate) async fn make_room(&self, claim: &Claim, headroom: u64) {
        let missing = claim.part.head.of.length.saturating_sub(claim.offset());
        let (files, directory) = (self.world.files().clone(), self.directory.clone());
        let is_room = move |bytes| files.leave_free(&directory, headroom, bytes).is_ok();
        let look = is_room.clone();
        // A disk that does not answer is the writer's to report.
        if self.world.blocking(move || look(missing)).await.unwrap_or(true) {
            return;
        }
        let idle = idle(&self.parts());
        let (files, directory) = (self.world.files().clone(), self.directory.clone());
        let drops = move || {
            let all: u64 = idle.iter().map(Claim::on_disk).sum();
            if !is_room(missing.saturating_sub(all)) {
                return;
            }
            for old in idle {
                if is_room(missing) {
                    return;
                }
                old.drop_files(&files, &directory);
            }
        };
        let _ = self.world.blocking(drops).await;
        self.parts().retain(|part| part.state() != PartState::Gone);
    }

    /// Forgets the part of a snapshot, if nobody writes it.
    pub(crate) async fn forget(&self, sender: MemberId, of: &Named) {
        let claim = self.find(sender, of).and_then(|part| part.claim_idle());
        self.drop_files(claim.into_iter().collect()).await;
    }

    /// Forgets a snapshot that the application has not taken. Nothing of it is left but the answer.
    pub(super) fn forget_failed(&self, failed: &Arc<PartialSnapshot>) {
        self.parts().retain(|part| !Arc::ptr_eq(part, failed));
    }

    /// Gives back an unused right to write.
    pub(crate) async fn give_back(&self, claim: Claim) {
        if claim.offset() == 0 {
            self.drop_files(vec![claim]).await;
        }
    }

    /// Drops the parts that are older than `age`, and those beyond `most`.
    pub(crate) async fn age(&self, age: Duration, most: usize) {
        let now = self.world.now();
        let idle = idle(&self.parts());
        let beyond = self.parts().iter().filter(|part| part.is_kept()).count().saturating_sub(most);
        // A clock that went back makes nothing old.
        let is_old = |old: &Claim| now.duration_since(old.kept.touched).is_ok_and(|passed| passed > age);
        let old = idle.into_iter().enumerate().filter(|(place, old)| *place < beyond || is_old(old));
        self.drop_files(old.map(|(_, old)| old).collect()).await;
    }

    /// A sender is no peer any more. Its parts that nobody writes are as good as old.
    pub(crate) fn forsake(&self, sender: MemberId) {
        for mut old in idle(&self.parts()).into_iter().filter(|old| old.part.head.sender == sender) {
            old.kept.touched = SystemTime::UNIX_EPOCH;
        }
    }

    async fn drop_files(&self, claims: Vec<Claim>) {
        if claims.is_empty() {
            return;
        }
        let (files, directory) = (self.world.files().clone(), self.directory.clone());
        // If the runtime ends meanwhile, they are removed at the next start.
        let _ =
            self.world.blocking(move || claims.into_iter().for_each(|old| old.drop_files(&files, &directory))).await;
        self.parts().retain(|part| part.state() != PartState::Gone);
    }
}

/// The parts that nobody writes, in the order in which they are dropped: first those that raft has answered for, which are
/// only remembered for senders that did not get the answer, and then the oldest.
fn idle(parts: &[Arc<PartialSnapshot>]) -> Vec<Claim> {
    let mut idle: Vec<Claim> = parts.iter().filter_map(PartialSnapshot::claim_idle).collect();
    idle.sort_by_key(|old| (old.part.state() == PartState::Arriving, old.kept.touched));
    idle
}

/// The record of a part that an earlier process left, if it can be continued.
fn found(
    files: &Files,
    directory: &Path,
    stem: &str,
    place: impl Fn(u64) -> PathBuf,
) -> io::Result<Option<Arc<PartialSnapshot>>> {
    let record = files.open_kept(&directory.join(format!("{stem}{RECORD}")))?;
    let length = record.len()?.min(MAX_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let read = record.read_at(0, &mut bytes)?;
    let Some((head, mark, marks)) = RecordHead::read(&bytes[..read]) else { return Ok(None) };
    let has =
        |path: &Path| -> io::Result<u64> { if files.exists(path) { files.open_kept(path)?.len() } else { Ok(0) } };
    let is_whole = mark.synced == head.of.length;
    let is_placed = is_whole && !files.exists(&directory.join(format!("{stem}{DATA}")));
    let kept = KeptBytes { offset: mark.synced, synced: mark.synced, marks, hash: None, touched: mark.at, is_placed };
    let part = PartialSnapshot::new(head, kept);
    let path = if is_placed { place(head.index) } else { part.data(directory) };
    if part.record(directory) != directory.join(format!("{stem}{RECORD}"))
        || has(&path)? < mark.synced
        || mark.synced == 0
    {
        return Ok(None);
    }
    // A mark after the torn one would be believed once the torn one is overwritten.
    let end = HEAD_BYTES as u64 + marks * MARK_BYTES as u64;
    if record.len()? > end {
        record.set_len(end)?;
        record.sync()?;
    }
    Ok(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: u128) -> Named {
        Named { name, length: 1000, checksum: 5 }
    }

    #[tokio::test]
    async fn a_part_comes_back_only_when_the_files_of_the_older_one_are_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let world = World::default();
        let parts = PartialSnapshots::open(&world, directory.path(), |_| PathBuf::new()).expect("a directory");
        let first = RecordHead { sender: MemberId(2), of: named(1), index: 1 };
        let second = RecordHead { of: named(2), ..first };
        let data = parts.admit(first, 2).map(|admitted| admitted.claim.part.data(directory.path())).expect("room");
        std::fs::write(&data, "the older one's").expect("a file");
        let Admitted { dropped, .. } = parts.admit(second, 2).expect("room");
        assert_eq!(dropped.len(), 1);
        assert!(matches!(parts.admit(first, 2), Err(ReceiveError::Busy(_))), "its files are still there");
        let of_another = parts.admit(RecordHead { sender: MemberId(3), ..first }, 2);
        assert!(of_another.is_ok_and(|admitted| admitted.dropped.is_empty()), "a part that leaves does not count");
        parts.drop_files(dropped).await;
        assert!(!data.exists());
        assert!(parts.admit(first, 2).is_ok());
    }
}
