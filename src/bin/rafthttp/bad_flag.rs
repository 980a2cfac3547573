//! A flag that cannot be used. Every command reports it in the same way: the flag, its value and what was expected.

use std::fmt::Display;

/// A flag whose value can be parsed but not used, alone or together with another flag.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value '{value}' for '{flag}': {expected}")]
pub(crate) struct BadFlag {
    /// The flag in the form `--NAME`, or `<NAME>` for an argument without a flag.
    flag: String,
    value: String,
    expected: String,
}

impl BadFlag {
    pub(crate) fn new(flag: &'static str, value: impl Display, expected: impl Into<String>) -> Self {
        Self { flag: format!("--{flag}"), value: value.to_string(), expected: expected.into() }
    }

    /// The same for an argument without a flag.
    pub(crate) fn argument(name: &'static str, value: impl Display, expected: impl Into<String>) -> Self {
        Self { flag: format!("<{name}>"), value: value.to_string(), expected: expected.into() }
    }
}
