//! What is remembered of a thread in a chat, so that a courier that was killed, or never heard an answer, opens no second one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Threads remembered: of ten upgrades a day and two chats some fifty days; each takes about 500 bytes. One whose reports wait is
/// kept, whatever its age.
pub const KEEP_THREADS: u64 = 1_000;

/// A thread of one sink. A message is noted as tried before it is sent, and as told once the chat has answered: between the two
/// nobody but the chat knows whether it is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThreadState {
    /// The chat's own name of the message that the others answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// What that message says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
    /// Of which event that is: when it happened, and its number. Objects of a cluster number theirs each by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_of: Option<(Timestamp, u64)>,
    /// The last message that may have been sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
    /// The key of the last report that the chat has for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
}

/// A message that may have been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// Its key.
    pub key: String,
    /// When it was tried first.
    pub since: Timestamp,
}
