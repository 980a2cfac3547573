//! Files that are read again when they change.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::TlsError;

/// Detects that a file was replaced. A Kubernetes secret changes by becoming a link to another file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamps(Vec<Option<(SystemTime, u64, u64)>>);

impl Stamps {
    /// The stamps of these files. A missing file has none.
    fn of(files: &[PathBuf]) -> Self {
        Self(files.iter().map(|path| stamp(path).ok()).collect())
    }
}

fn stamp(path: &Path) -> io::Result<(SystemTime, u64, u64)> {
    let file = fs::metadata(path)?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&file);
    #[cfg(not(unix))]
    let inode = 0;
    Ok((file.modified()?, file.len(), inode))
}

/// Files that are only usable together. With no files, the part is not configured.
pub(super) struct TlsPart<T> {
    name: &'static str,
    pub(super) files: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> Result<T, TlsError>,
    stamps: Stamps,
    /// `None` if there are no files.
    pub(super) value: Option<T>,
}

/// A part whose files changed.
pub(super) struct PartChange {
    pub(super) part: &'static str,
    /// The first file of the part.
    pub(super) file: PathBuf,
    /// Whether the new content is in use.
    pub(super) outcome: Result<(), TlsError>,
}

impl<T> fmt::Debug for TlsPart<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").field("name", &self.name).field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> TlsPart<T> {
    /// Reads the files for the first time.
    pub(super) fn load<'a>(
        name: &'static str,
        files: impl IntoIterator<Item = Option<&'a PathBuf>>,
        read: fn(&[PathBuf]) -> Result<T, TlsError>,
    ) -> Result<Self, TlsError> {
        let files: Vec<PathBuf> = files.into_iter().flatten().cloned().collect();
        // The stamps are taken before the files are read, so that a change in between is noticed the next time.
        let stamps = Stamps::of(&files);
        let value = if files.is_empty() { None } else { Some(read(&files)?) };
        Ok(Self { name, files, read, stamps, value })
    }

    /// Reads the files again if one of them was replaced since the last time.
    pub(super) fn look(&mut self) -> Option<PartChange> {
        let stamps = Stamps::of(&self.files);
        if stamps == self.stamps {
            return None;
        }
        self.stamps = stamps;
        let outcome = (self.read)(&self.files).map(|value| self.value = Some(value));
        let file = self.files.first().cloned().unwrap_or_default();
        Some(PartChange { part: self.name, file, outcome })
    }
}
