//! What the containers of a node print, followed through the API of its cluster.
//!
//! A stream breaks off whenever an API server or a kubelet likes, at the latest when nothing was printed for as long as a call may
//! take. It is opened anew from the second of its last line, and what that brings once more is left out: the kubelet gives each line
//! its time, and filters by the whole second.
//!
//! A container that ends is begun anew in its pod, and which of the two a stream is of is nowhere said: a list of pods is somewhat old,
//! and a kubelet answers for what runs by then. So a pod is followed as a whole, by one stream at a time: its machine's clock says which
//! lines of the one that runs were read.
//!
//! What nobody can see: lines of a container's file that was rotated, or of a container that ended, while no stream was open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::AsyncReadExt as _;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod as ApiPod;
use kube::Api;
use kube::api::LogParams;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::deployments::DeploymentPlace;
use super::pod::Pod;
use super::pods::SetPlace;
use super::workload::{NOT_FOUND, Workload};
use crate::hosts::HostError;
use crate::lines::{Begin, Partial};
use crate::model::environment::Role;

/// Lines that are read ahead of who counts them: what a container prints in some seconds. Beyond it the kubelet waits.
const AHEAD: usize = 4_096;
/// Lines of one container that one look hands over; the next look brings the others.
const MOST_LINES: usize = 50_000;
/// Bytes of one read.
const CHUNK: usize = 16 * 1024;
/// Between two looks at which pods there are, while what is known of is followed: a Deployment's come and go.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A kubelet that is there answers at once; behind one that is not, an API server waits for half a minute.
const OPEN_WITHIN: Duration = Duration::from_secs(3);

/// Follows what every container of a node that runs its build prints.
#[derive(Debug)]
pub struct Printed {
    whose: Whose,
    begin: Begin,
    followed: BTreeMap<Printer, Followed>,
    looked_at: Option<Instant>,
    is_silent: bool,
    /// What was read and not handed over yet: a look may fail.
    read: Lines,
}

/// What one look brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lines {
    /// Complete lines, without their ends, each with the pod that printed it.
    pub lines: Vec<(Arc<str>, String)>,
    /// What may have been missed, and why.
    pub notes: Vec<String>,
    /// Whether all that was there has been read.
    pub caught_up: bool,
}

/// The node.
#[derive(Debug, Clone)]
pub(super) enum Whose {
    Set(Arc<SetPlace>, u32),
    Deployment(Arc<DeploymentPlace>, Role),
}

/// What prints: a container of one pod, however often it is begun anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Printer {
    pod: String,
    uid: String,
}

#[derive(Debug)]
struct Followed {
    /// For people, and to tell the requests of one pod from those of another.
    pod: Arc<str>,
    /// Where its first stream is to begin.
    begin: Begin,
    place: Place,
    stream: Option<Stream>,
    is_running: bool,
}

/// What runs and reads.
#[derive(Debug)]
struct Stream {
    lines: Receiver<String>,
    task: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How far a container's log was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    /// The latest time of a line.
    latest: Option<Timestamp>,
    /// Lines of its second.
    of_second: usize,
    /// Lines of the second before it.
    before: usize,
    /// How many lines that were read before the stream still brings.
    again: usize,
}

impl Place {
    /// After all that there is now, whose last line has this time.
    fn at_end(latest: Timestamp) -> Self {
        Self {
            latest: Some(latest),
            of_second: usize::MAX,
            ..Self::default()
        }
    }

    /// Where a stream has to begin: a second early, for two writers of one container may be somewhat out of order.
    fn opened(&mut self) -> Option<Timestamp> {
        self.again = self.of_second.saturating_add(self.before);
        let latest = self.latest?;
        Timestamp::from_second(second(latest) - 1).ok()
    }

    /// Whether a line was not read before.
    fn is_new(&mut self, at: Timestamp) -> bool {
        // Fewer may come again: a file that was rotated has lost its first ones.
        if self.again > 0 && self.latest.is_some_and(|latest| at <= latest) {
            self.again -= 1;
            return false;
        }
        self.again = 0;
        let later_by = self.latest.map_or(i64::MAX, |latest| second(at) - second(latest));
        match later_by {
            -1 => self.before = self.before.saturating_add(1),
            0 => self.of_second = self.of_second.saturating_add(1),
            1 => (self.before, self.of_second) = (self.of_second, 1),
            2.. => (self.before, self.of_second) = (0, 1),
            // A stream that begins where we say does not bring it.
            ..-1 => {}
        }
        self.latest = self.latest.max(Some(at));
        true
    }
}

/// Its whole second, rounded down: an API server is asked by those, and the nearest one may be later than the line.
fn second(at: Timestamp) -> i64 {
    at.as_millisecond().div_euclid(1_000)
}

/// A line as it comes with its time.
fn timed(line: &str) -> Option<(Timestamp, &str)> {
    let (at, text) = line.split_once(' ').unwrap_or((line, ""));
    Some((at.parse().ok()?, text))
}

impl Printed {
    pub(super) fn of(whose: Whose) -> Self {
        Self {
            whose,
            begin: Begin::AtEnd,
            followed: BTreeMap::new(),
            looked_at: None,
            is_silent: false,
            read: Lines::default(),
        }
    }

    /// From here on: of containers that run by the first look what is printed after it, unless all of it is asked for, and all of
    /// those that come later.
    #[must_use]
    pub fn from(self, begin: Begin) -> Self {
        Self { begin, ..self }
    }

    /// Looks once. After an error the next look goes on where the last one was.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn poll(&mut self) -> Result<Lines, String> {
        self.read.caught_up = true;
        self.drain();
        let is_due = self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        let mut all = self.followed.values();
        if is_due || all.clone().all(|one| one.stream.is_none()) || all.any(Followed::is_to_be_opened) {
            match self.look().await {
                Ok(()) => self.looked_at = Some(Instant::now()),
                // What has come is handed over all the same.
                Err(why) if self.read.lines.is_empty() => return Err(why.to_string()),
                Err(why) => self.read.notes.push(why.to_string()),
            }
        }
        Ok(std::mem::take(&mut self.read))
    }

    /// Takes what has come, and lets go of streams that have ended.
    fn drain(&mut self) {
        for one in self.followed.values_mut() {
            if one.drain(&mut self.read) == Drained::InPart {
                self.read.caught_up = false;
            }
        }
    }

    async fn look(&mut self) -> Result<(), HostError> {
        let (container, pods) = self.whose.pods().await?;
        self.notice(&pods);
        let workload = self.whose.workload();
        // Side by side: the machine of one may be away, which keeps nobody from reading the others.
        let closed = self.followed.values_mut().filter(|one| one.is_to_be_opened());
        let opened = closed.map(|one| async {
            let pod = Arc::clone(&one.pod);
            match tokio::time::timeout(OPEN_WITHIN, one.open(workload, &container)).await {
                Ok(opened) => opened.err().map(|why| why.to_string()),
                Err(_) => Some(format!(
                    "what {pod} prints: no answer within {} s",
                    OPEN_WITHIN.as_secs()
                )),
            }
        });
        let failed = join_all(opened).await;
        self.read.notes.extend(failed.into_iter().flatten());
        Ok(())
    }

    /// These are the pods that there are now.
    fn notice(&mut self, pods: &[Pod]) {
        let there: BTreeMap<Printer, bool> = pods
            .iter()
            .map(|pod| (Printer::of(pod), pod.running_since.is_some()))
            .collect();
        // What a container printed last comes to its stream's end; without one, nobody brings it.
        self.followed
            .retain(|printer, one| one.stream.is_some() || there.contains_key(printer));
        for (printer, one) in &mut self.followed {
            one.is_running = there.get(printer).copied().unwrap_or(false);
        }
        let is_heard = self.followed.values().any(|one| one.stream.is_some());
        let is_silent = !is_heard && !there.values().any(|is_running| *is_running);
        if is_silent && !self.is_silent {
            // Said once: a pod that is made anew takes a while.
            self.read.notes.push("none of its containers runs yet".to_owned());
        }
        self.is_silent = is_silent;
        for (printer, _) in there.into_iter().filter(|(_, is_running)| *is_running) {
            let pod = Arc::from(printer.pod.as_str());
            self.followed.entry(printer).or_insert(Followed {
                pod,
                begin: self.begin,
                place: Place::default(),
                stream: None,
                is_running: true,
            });
        }
        self.begin = Begin::AtBeginning;
    }
}

impl Printer {
    fn of(pod: &Pod) -> Self {
        Self {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
        }
    }
}

impl Whose {
    fn workload(&self) -> &Workload {
        match self {
            Whose::Set(set, _) => set.workload(),
            Whose::Deployment(deployment, _) => deployment.workload(),
        }
    }

    /// The container that runs the build, and the pods that have it.
    async fn pods(&self) -> Result<(String, Vec<Pod>), HostError> {
        // What a call to an API server holds is much for a task that waits most of the time.
        match self {
            Whose::Set(set, ordinal) => Box::pin(set.printing(*ordinal)).await,
            Whose::Deployment(deployment, role) => Box::pin(deployment.printing(*role)).await,
        }
    }
}

/// Whether everything that had come was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drained {
    Whole,
    InPart,
}

impl Followed {
    fn is_to_be_opened(&self) -> bool {
        self.is_running && self.stream.is_none()
    }

    fn drain(&mut self, read: &mut Lines) -> Drained {
        let Some(stream) = &mut self.stream else {
            return Drained::Whole;
        };
        for _ in 0..MOST_LINES {
            match stream.lines.try_recv() {
                Ok(line) => match timed(&line) {
                    Some((at, text)) => {
                        if self.place.is_new(at) {
                            read.lines.push((Arc::clone(&self.pod), text.to_owned()));
                        }
                    }
                    // Not a container's: the kubelet has put something in between, such as why it cannot go on.
                    None => read.notes.push(format!("{}: {line}", self.pod)),
                },
                Err(TryRecvError::Empty) => return Drained::Whole,
                Err(TryRecvError::Disconnected) => {
                    self.stream = None;
                    return Drained::Whole;
                }
            }
        }
        Drained::InPart
    }

    async fn open(&mut self, workload: &Workload, container: &str) -> Result<(), HostError> {
        let pod = Arc::clone(&self.pod);
        if self.begin == Begin::AtEnd {
            self.place = workload.end_of_log(&pod, container).await?;
            self.begin = Begin::AtBeginning;
        }
        let asked = LogParams {
            container: Some(container.to_owned()),
            follow: true,
            timestamps: true,
            since_time: self.place.opened(),
            ..LogParams::default()
        };
        let pods: Api<ApiPod> = workload.objects().await?;
        let stream = match pods.log_stream(&pod, &asked).await {
            Ok(stream) => stream,
            // It has gone meanwhile.
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => return Ok(()),
            Err(why) => return Err(workload.trouble(&format!("follow what {pod} prints"), &why)),
        };
        let (sender, lines) = channel(AHEAD);
        let task = tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            let mut bytes = vec![0; CHUNK];
            let (mut partial, mut whole) = (Partial::new(), Vec::new());
            loop {
                // However it ends: whether there is more is found out by opening it anew.
                let count = stream.read(&mut bytes).await.unwrap_or(0);
                if count == 0 {
                    return;
                }
                partial.take_in(&bytes[..count], &mut whole);
                for line in whole.drain(..) {
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
            }
        });
        self.stream = Some(Stream { lines, task });
        Ok(())
    }
}

impl Workload {
    /// Where a container's log ends now.
    async fn end_of_log(&self, pod: &str, container: &str) -> Result<Place, HostError> {
        let asked = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(1),
            timestamps: true,
            ..LogParams::default()
        };
        let pods: Api<ApiPod> = self.objects().await?;
        let last = pods.logs(pod, &asked).await;
        let last = last.map_err(|why| self.trouble(&format!("read what {pod} prints"), &why))?;
        Ok(match last.lines().last().and_then(timed) {
            Some((at, _)) => Place::at_end(at),
            None => Place::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::Sender;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).expect("in range")
    }

    /// What a stream brings that begins there: every line of the file of that second and later.
    fn brought(file: &[i64], since: Option<Timestamp>) -> Vec<i64> {
        let lines = file.iter().copied();
        lines
            .filter(|line| since.is_none_or(|since| at(*line) >= since))
            .collect()
    }

    #[test]
    fn a_stream_that_is_opened_anew_brings_every_line_once() {
        for file in [
            vec![100, 900, 1_000, 1_000, 1_000, 1_999, 2_000, 2_500, 4_000],
            vec![0, 0, 0, 0],
            // Two writers, and one that was overtaken, also over the second.
            vec![100, 1_003, 1_001, 1_002, 999, 2_001, 1_999, 2_001, 3_000],
        ] {
            for cut in 0..=file.len() {
                for again in cut..=file.len() {
                    let (mut place, mut read) = (Place::default(), Vec::new());
                    for end in [cut, again, file.len()] {
                        let since = place.opened();
                        let new = |line: &i64| place.is_new(at(*line));
                        read.extend(brought(&file[..end], since).into_iter().filter(new));
                    }
                    assert_eq!(read, file, "cut off after {cut} and {again} lines");
                }
            }
        }
    }

    /// A stream of what a pod's container has printed so far; it ends with who is handed back.
    fn opened(printed: &mut Printed, file: &[i64]) -> Sender<String> {
        let mut all = printed.followed.values_mut().filter(|one| one.is_to_be_opened());
        let one = all.next().expect("one is to be opened");
        let (sender, lines) = channel(AHEAD);
        for line in brought(file, one.place.opened()) {
            sender.try_send(format!("{} {line}", at(line))).expect("there is room");
        }
        let task = tokio::spawn(async {});
        one.stream = Some(Stream { lines, task });
        sender
    }

    #[tokio::test]
    async fn a_container_that_is_begun_anew_while_its_log_is_opened_is_read_once() {
        let reference = serde_json::from_value(serde_json::json!({"namespace": "shop", "name": "web", "replicas": 1}));
        let set = SetPlace::new(reference.expect("a reference"), Box::new(BTreeMap::new));
        let mut printed = Printed::of(Whose::Set(Arc::new(set), 0)).from(Begin::AtBeginning);
        let pod = |uid: &str, restarts: u32, running: Option<Timestamp>| Pod {
            name: "web-0".to_owned(),
            uid: uid.to_owned(),
            restarts,
            running_since: running,
            ..Pod::default()
        };
        let (running, ended) = (Some(at(0)), None);
        let (first, second) = ([100, 900], [1_500, 1_600, 2_700]);
        printed.notice(&[pod("a", 0, running)]);
        drop(opened(&mut printed, &first));
        printed.drain();
        // The list is old, and what is opened is the second's already.
        printed.notice(&[pod("a", 0, running)]);
        let stream = opened(&mut printed, &second[..2]);
        printed.drain();
        printed.notice(&[pod("a", 1, running)]);
        let to_open = |printed: &Printed| printed.followed.values().filter(|one| one.is_to_be_opened()).count();
        assert_eq!(to_open(&printed), 0, "one stream at a time");
        drop(stream);
        printed.drain();
        // It is begun a third time, which an old list has as the second.
        for seen in [pod("a", 1, ended), pod("a", 1, running)] {
            printed.notice(&[seen]);
        }
        assert_eq!(to_open(&printed), 1);
        drop(opened(&mut printed, &second));
        printed.drain();
        // A pod that is made anew may be on another machine, whose clock is another.
        printed.notice(&[pod("b", 0, running)]);
        drop(opened(&mut printed, &first));
        printed.drain();
        let read: Vec<&str> = printed.read.lines.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(read, ["100", "900", "1500", "1600", "2700", "100", "900"]);
    }

    #[test]
    fn a_stream_after_the_end_brings_what_comes_later() {
        let mut place = Place::at_end(at(1_500));
        let since = place.opened();
        assert_eq!(since, Some(at(0)));
        let new: Vec<i64> = brought(&[200, 1_100, 1_500, 1_600, 1_601], since);
        let new: Vec<i64> = new.into_iter().filter(|line| place.is_new(at(*line))).collect();
        assert_eq!(new, [1_600, 1_601]);
    }

    #[test]
    fn lines_that_a_rotation_took_are_not_waited_for() {
        let mut place = Place::default();
        for line in [1_000, 1_100, 1_200] {
            assert!(place.is_new(at(line)));
        }
        // Of these three the file has none any more.
        place.opened();
        assert!(place.is_new(at(1_300)) && place.is_new(at(1_250)));
    }

    #[test]
    fn a_line_has_its_time_before_it() {
        for (line, expected) in [
            ("1970-01-01T00:00:01.5Z a b", Some((at(1_500), "a b"))),
            ("1970-01-01T00:00:01.5Z ", Some((at(1_500), ""))),
            ("1970-01-01T01:00:01.5+01:00 x", Some((at(1_500), "x"))),
            ("failed to watch file", None),
            ("", None),
        ] {
            assert_eq!(timed(line), expected, "{line}");
        }
    }
}
