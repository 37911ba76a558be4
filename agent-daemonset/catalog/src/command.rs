use serde::{Deserialize, Serialize};

/// A command that a Rollout wants to be run on the machine once, to see how it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCommand {
    /// Tells this wish from every other: what was run for it is not run again.
    pub token: String,
    /// The program and its arguments. No shell is started, and nothing in it is secret.
    pub argv: Vec<String>,
    /// How long it may take, in seconds.
    pub timeout_seconds: u32,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The wish that it was run for.
    pub token: String,
    /// Its exit code; absent when it could not be started, took too long, or was ended by a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// How it ended in words, and the last 256 bytes of what it printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}
