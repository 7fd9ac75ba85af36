//! What goes on, for who does not watch a terminal: there nothing can be written over, so it is said now and then, and only
//! when nothing else was.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Silence is broken after this: a person who waits wonders after some ten seconds whether anything goes on.
const SILENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it has lasted that long; nobody notices a second.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What goes on, and when a line was last written.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
    doing: Option<Doing>,
    spoke_at: Instant,
    is_beating: bool,
}

#[derive(Debug)]
struct Doing {
    what: String,
    since: Instant,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Beat {
            doing: None,
            spoke_at: Instant::now(),
            is_beating: false,
        })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Beat) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A line was written.
    pub(super) fn spoke(&self) {
        self.with(|beat| beat.spoke_at = Instant::now());
    }

    /// This goes on now. True when it is something else than before, and not only further.
    pub(super) fn doing(&self, what: &str) -> bool {
        self.with(|beat| beat.begin(what, Instant::now()))
    }

    pub(super) fn idle(&self) {
        self.with(|beat| beat.doing = None);
    }

    /// Breaks silences by `say` from now on, for as long as anybody has this; a second call changes nothing.
    pub(super) fn beat(self: &Arc<Self>, say: impl Fn(&str) + Send + 'static) {
        if self.with(|beat| std::mem::replace(&mut beat.is_beating, true)) {
            return;
        }
        let pulse: Weak<Self> = Arc::downgrade(self);
        let beating = move || {
            while let Some(pulse) = pulse.upgrade() {
                if let Some(line) = pulse.with(|beat| beat.due(Instant::now())) {
                    say(&line);
                }
                drop(pulse);
                std::thread::sleep(LOOK_EVERY);
            }
        };
        if let Err(why) = std::thread::Builder::new().name("pulse".to_owned()).spawn(beating) {
            tracing::debug!(%why, "long work goes on in silence");
        }
    }
}

impl Beat {
    fn begin(&mut self, what: &str, now: Instant) -> bool {
        let same = self.doing.as_ref().filter(|doing| topic(&doing.what) == topic(what));
        let since = same.map_or(now, |doing| doing.since);
        let is_new = same.is_none();
        self.doing = Some(Doing {
            what: what.to_owned(),
            since,
        });
        is_new
    }

    /// What is to be said now, if it is time.
    fn due(&mut self, now: Instant) -> Option<String> {
        let doing = self.doing.as_ref()?;
        if now.duration_since(self.spoke_at) < SILENCE {
            return None;
        }
        let for_s = now.duration_since(doing.since).as_secs();
        let line = format!("  … {} ({for_s}s)", doing.what);
        self.spoke_at = now;
        Some(line)
    }
}

/// What goes on without its figures, which stand in parentheses and change all the time.
fn topic(what: &str) -> &str {
    what.split(" (").next().unwrap_or(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_broken_every_ten_seconds_with_what_goes_on_and_for_how_long() {
        let begin = Instant::now();
        let at = |s| begin + Duration::from_secs(s);
        let mut beat = Beat {
            doing: None,
            spoke_at: begin,
            is_beating: false,
        };
        assert_eq!(beat.due(at(60)), None, "nothing goes on");
        assert!(beat.begin("web-2: preparing (1 of 9)", at(60)));
        beat.spoke_at = at(62);
        assert_eq!(beat.due(at(71)), None, "somebody spoke just now");
        assert!(!beat.begin("web-2: preparing (3 of 9)", at(72)), "only further");
        assert_eq!(beat.due(at(72)).as_deref(), Some("  … web-2: preparing (3 of 9) (12s)"));
        assert_eq!(beat.due(at(81)), None);
        assert_eq!(beat.due(at(82)).as_deref(), Some("  … web-2: preparing (3 of 9) (22s)"));
        assert!(beat.begin("web: looking", at(90)));
        assert_eq!(beat.due(at(92)).as_deref(), Some("  … web: looking (2s)"));
    }
}
