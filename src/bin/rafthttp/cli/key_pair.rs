//! A certificate and its private key, from two flags that must be given together.

use std::path::PathBuf;

use super::BadFlag;

/// Returns both or none. If one is missing, the error names it.
pub(super) fn key_pair(
    certificate_flag: &'static str,
    certificate: Option<PathBuf>,
    key_flag: &'static str,
    key: Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, BadFlag> {
    let alone =
        |flag, file: PathBuf, other| Err(BadFlag::new(flag, file.display(), format!("expected --{other} beside it")));
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (Some(certificate), None) => alone(certificate_flag, certificate, key_flag),
        (None, Some(key)) => alone(key_flag, key, certificate_flag),
        (None, None) => Ok(None),
    }
}
