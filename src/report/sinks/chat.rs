//! Threads in a chat: one message for each promotion (or upgrade without one) that always says how it stands, and under it what
//! happened, message by message. What belongs to neither is a message of its own.
//!
//! Before a message is sent it is written down as tried, and after the answer as told. Whoever finds one that was tried and not
//! told, after a kill or a lost answer, looks for it in the chat by its key before it sends it again.

use std::future::Future;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use jiff::Timestamp;

use crate::model::reasons;
use crate::report::{Clock, Report, Sink, SinkError};
use crate::store::{Store, StoreError, ThreadState, Tried};

/// Times that a thread is opened anew in one delivery when its first message is gone: somebody has deleted it.
const MOST_OPENINGS: u32 = 2;

/// A message to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The first message of its thread, if it has one.
    pub root: Option<&'a str>,
    /// Its key, and whose it is: the same for every repeat, and found again in the chat.
    pub mark: Mark<'a>,
    /// What it says, as plain text.
    pub text: &'a str,
}

/// What a message is found by.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    /// Its key.
    pub key: &'a str,
    /// Which sink sent it: two may write into one channel.
    pub sink: &'a str,
}

/// Why a chat did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatError {
    /// As a sink says it.
    Sink(SinkError),
    /// The first message of the thread is there no more.
    Gone,
}

impl From<SinkError> for ChatError {
    fn from(e: SinkError) -> Self {
        Self::Sink(e)
    }
}

/// A chat whose messages have threads and can be changed.
pub trait Chat: Send + Sync {
    /// Sends a message; answers the chat's name of it.
    fn post(&self, message: Message<'_>) -> impl Future<Output = Result<String, ChatError>> + Send;
    /// Looks for a message that may have been sent since then, in its thread or, where it has none, in the channel.
    fn find(
        &self,
        root: Option<&str>,
        mark: Mark<'_>,
        since: Timestamp,
    ) -> impl Future<Output = Result<Option<String>, ChatError>> + Send;
    /// Changes what a message says. To do it twice does no harm.
    fn edit(&self, id: &str, text: &str) -> impl Future<Output = Result<(), ChatError>> + Send;
}

/// Reports as messages of a chat.
pub struct ChatSink<C> {
    name: String,
    chat: C,
    store: Arc<dyn Store>,
    clock: Clock,
}

impl<C: Chat> ChatSink<C> {
    /// A sink of this name. The store keeps its threads.
    pub fn new(name: impl Into<String>, chat: C, store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            name: name.into(),
            chat,
            store,
            clock,
        }
    }

    fn thread(&self, report: &Report) -> Result<Thread<'_, C>, SinkError> {
        let name = report.thread();
        let state = self.store.thread(&self.name, &name).map_err(unkept)?;
        Ok(Thread {
            sink: self,
            state: state.unwrap_or_default(),
            name,
        })
    }

    /// The first message of a thread that there is says how it stands, also where nothing is said below it.
    async fn show_only(&self, report: &Report) -> Result<(), SinkError> {
        let mut thread = self.thread(report)?;
        let Some(root) = thread.state.root.clone() else {
            return Ok(());
        };
        match thread.show_news(&root, report).await {
            // Whoever has deleted it wants none.
            Ok(()) | Err(ChatError::Gone) => Ok(()),
            Err(ChatError::Sink(why)) => Err(why),
        }
    }

    async fn tell(&self, report: &Report) -> Result<(), SinkError> {
        let mut thread = self.thread(report)?;
        let mut openings = 0;
        loop {
            match thread.tell(report).await {
                Ok(()) => return Ok(()),
                Err(ChatError::Sink(why)) => return Err(why),
                Err(ChatError::Gone) if openings < MOST_OPENINGS => {
                    openings += 1;
                    thread.begin_anew()?;
                }
                Err(ChatError::Gone) => {
                    return Err(SinkError::later(
                        "the chat says again and again that a thread's first message is gone",
                    ));
                }
            }
        }
    }
}

/// A thread while one report of it is told.
struct Thread<'a, C> {
    sink: &'a ChatSink<C>,
    name: String,
    state: ThreadState,
}

impl<C: Chat> Thread<'_, C> {
    async fn tell(&mut self, report: &Report) -> Result<(), ChatError> {
        let Report { text, dedupe_key, .. } = report;
        if report.upgrade.is_none() && report.promotion.is_none() {
            self.once(None, dedupe_key, text).await?;
            return Ok(());
        }
        let root = match self.state.root.clone() {
            Some(root) => root,
            None => self.open(report).await?,
        };
        if self.state.told.as_ref() != Some(dedupe_key) {
            self.once(Some(&root), dedupe_key, text).await?;
            self.state.told = Some(dedupe_key.clone());
            self.keep()?;
        }
        self.show_news(&root, report).await
    }

    /// A report that was refused and is sent again later is no news of how it stands.
    async fn show_news(&mut self, root: &str, report: &Report) -> Result<(), ChatError> {
        let is_news =
            Some((report.at, report.seq)) > self.state.shown_of && self.state.shown.as_ref() != Some(&report.text);
        if is_news && reasons::says_how_it_stands(&report.reason) {
            self.show(root, report).await?;
        }
        Ok(())
    }

    async fn open(&mut self, report: &Report) -> Result<String, ChatError> {
        let Report { text, seq, at, .. } = report;
        let key = format!("{}-thread-{}", self.sink.store.home(), self.name);
        let root = self.once(None, &key, text).await?;
        self.state = ThreadState {
            root: Some(root.clone()),
            shown: Some(text.clone()),
            shown_of: Some((*at, *seq)),
            ..ThreadState::default()
        };
        self.keep()?;
        Ok(root)
    }

    /// That the first message says something older is a pity; the report itself has been told.
    async fn show(&mut self, root: &str, report: &Report) -> Result<(), ChatError> {
        let Report { text, seq, at, .. } = report;
        match self.sink.chat.edit(root, text).await {
            Ok(()) => {}
            Err(ChatError::Sink(SinkError::Never { why })) => {
                tracing::warn!(
                    sink = self.sink.name,
                    thread = self.name,
                    why,
                    "its first message keeps its text"
                );
            }
            Err(why @ (ChatError::Sink(SinkError::Later { .. }) | ChatError::Gone)) => return Err(why),
        }
        self.state.shown = Some(text.clone());
        self.state.shown_of = Some((*at, *seq));
        self.keep()?;
        Ok(())
    }

    /// Sends a message, unless it was tried before and is there.
    async fn once(&mut self, root: Option<&str>, key: &str, text: &str) -> Result<String, ChatError> {
        let ChatSink { name, chat, clock, .. } = self.sink;
        let mark = Mark { key, sink: name };
        let before = self.state.tried.as_ref().filter(|tried| tried.key == key);
        if let Some(Tried { since, .. }) = before {
            if let Some(id) = chat.find(root, mark, *since).await? {
                return Ok(id);
            }
        } else {
            self.state.tried = Some(Tried {
                key: key.to_owned(),
                since: clock(),
            });
            self.keep()?;
        }
        chat.post(Message { root, mark, text }).await
    }

    fn begin_anew(&mut self) -> Result<(), SinkError> {
        self.state = ThreadState::default();
        self.keep()
    }

    fn keep(&self) -> Result<(), SinkError> {
        let ChatSink { name, store, clock, .. } = self.sink;
        store.put_thread(name, &self.name, &self.state, clock()).map_err(unkept)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn unkept(why: StoreError) -> SinkError {
    SinkError::later(format!("which thread it belongs to is not known: {why}"))
}

impl<C: Chat> Sink for ChatSink<C> {
    fn name(&self) -> &str {
        &self.name
    }

    fn passes_over<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        self.show_only(report).boxed()
    }

    fn deliver<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), SinkError>> {
        self.tell(report).boxed()
    }
}
