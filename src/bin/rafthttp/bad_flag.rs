//! A flag that cannot be used, as every command says it: the flag, its value and what was expected.

use std::fmt::Display;

/// A flag whose value parses but cannot be used, alone or beside another.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value '{value}' for '{flag}': {expected}")]
pub(crate) struct BadFlag {
    /// As it is written: `--NAME`, or `<NAME>` of an argument without a flag.
    flag: String,
    value: String,
    expected: String,
}

impl BadFlag {
    pub(crate) fn new(flag: &'static str, value: impl Display, expected: impl Into<String>) -> Self {
        Self { flag: format!("--{flag}"), value: value.to_string(), expected: expected.into() }
    }

    /// The same of an argument that stands without a flag.
    pub(crate) fn argument(name: &'static str, value: impl Display, expected: impl Into<String>) -> Self {
        Self { flag: format!("<{name}>"), value: value.to_string(), expected: expected.into() }
    }
}
