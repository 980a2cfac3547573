//! What etcd logs: a JSON object a line.

/// A line of a member's log.
#[derive(Clone, Debug)]
pub struct Line {
    /// `info`, `warn`, `error`, `panic`, `fatal`; `text` for a line that is not JSON, as of a panicking process.
    pub level: String,
    pub message: String,
    /// The whole line.
    pub text: String,
}

impl Line {
    pub(super) fn parse(text: &str) -> Self {
        let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
        let field = |name: &str| json.as_ref().and_then(|json| json[name].as_str()).map(ToOwned::to_owned);
        Self {
            level: field("level").unwrap_or_else(|| "text".to_owned()),
            message: field("msg").unwrap_or_default(),
            text: text.to_owned(),
        }
    }

    /// Whether it is worse than `info`.
    pub fn is_complaint(&self) -> bool {
        !matches!(self.level.as_str(), "debug" | "info")
    }

    /// Whether it names any of these.
    pub fn names(&self, any: &[&str]) -> bool {
        any.iter().any(|name| self.text.contains(name))
    }
}
