//! Which families are shown.

use super::{etcd, families, family::Family, tls};

/// What is shown.
#[derive(Clone, Debug)]
pub struct Options {
    /// etcd's own 15 names (`etcd_network_…`) beside ours. Default: yes.
    pub etcd: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { etcd: true }
    }
}

/// Every family of the transport that these options show.
pub(crate) fn all(options: &Options) -> impl Iterator<Item = &'static Family> + use<> {
    let etcd = if options.etcd { etcd::FAMILIES } else { &[] };
    families::FAMILIES.iter().chain(tls::FAMILIES).chain(etcd)
}
