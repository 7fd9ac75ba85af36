//! The sinks, one file a kind. What chats have in common, threads, is in `chat`.

mod answers;
mod chat;
mod email;
mod mattermost;
mod only;
mod plain;
mod signature;
mod slack;
mod template;
mod webhook;

pub use answers::{LONGEST_RETRY_AFTER, SERVER_TIMEOUT};
pub use chat::ChatSink;
pub use email::MailSink;
pub use mattermost::Mattermost;
pub use only::OnlySink;
pub use plain::{FileSink, LineSink, Lines};
pub use slack::Slack;
pub use template::TemplateSink;
pub(crate) use template::trouble;
pub use webhook::{WebhookError, WebhookSink};
