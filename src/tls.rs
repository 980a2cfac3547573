//! TLS between peers.
/// Loaded certificates of a member; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {}
