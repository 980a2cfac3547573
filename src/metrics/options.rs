//! The choice of families.

use super::{
    etcd,
    families::{self, snapshots},
    family::Family,
    tls,
};

/// The choice of what is shown.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether etcd's own 15 names (`etcd_network_…`) are shown too. Default: true.
    pub etcd: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { etcd: true }
    }
}

/// All families of the transport that these options select.
pub(crate) fn all(options: &Options) -> impl Iterator<Item = &'static Family> + use<> {
    let etcd = if options.etcd { etcd::FAMILIES } else { &[] };
    families::FAMILIES.iter().chain(snapshots::FAMILIES).chain(tls::FAMILIES).chain(etcd)
}
