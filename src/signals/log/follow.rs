//! Following a file by reading it again and again: no line is lost or doubled over rotation (renamed, with or without a new
//! file in its place) and truncation in place.
//!
//! What reading from outside cannot see, nobody can: two rotations between two looks hide the file in the middle, lines
//! written between the last look and a truncation or removal are gone, and a file that was truncated (or removed, and made
//! anew with the same inode) and grew past the place of the last look is taken for one that only grew. A look a second keeps
//! each of these to a second.

use std::sync::Arc;

use crate::hosts::{AnyHost, FilePosition, Host as _, NodeAddress, Tail, TailFrom};
use crate::lines::{Begin, Partial};

/// Bytes asked for in one read.
pub const MAX_CHUNK_BYTES: usize = 256 * 1024;

/// Reads of one file in one look: 16 MiB, more than a service logs in a second.
const MAX_READS: usize = 64;

/// Looks without news after which a renamed file is let go. Services go on writing into it until they are told to
/// open the new one, which log rotation does within seconds.
pub const LINGER_LOOKS: u32 = 30;

/// A log file where it lies. It is read through its node's host, so that a log here and one over SSH are the same.
#[derive(Debug, Clone)]
pub struct HostLog {
    host: Arc<AnyHost>,
    node: NodeAddress,
    path: String,
    chunk_bytes: usize,
}

impl HostLog {
    /// The file at `path`, relative to the node's directory or absolute.
    #[must_use]
    pub fn new(host: Arc<AnyHost>, node: NodeAddress, path: String) -> Self {
        Self {
            host,
            node,
            path,
            chunk_bytes: MAX_CHUNK_BYTES,
        }
    }

    /// Reads at most so many bytes at a time.
    #[must_use]
    pub fn with_chunks(self, bytes: usize) -> Self {
        Self {
            chunk_bytes: bytes.max(1),
            ..self
        }
    }

    async fn tail(&self, from: TailFrom) -> Result<Tail, String> {
        let tail = self.host.tail(&self.node, &self.path, from, self.chunk_bytes);
        tail.await.map_err(|e| e.to_string())
    }
}

/// What one look brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Polled {
    /// Complete lines, without their ends.
    pub lines: Vec<String>,
    /// What may have been missed, and why.
    pub notes: Vec<String>,
    /// Whether all that was there has been read.
    pub caught_up: bool,
}

/// Follows one path.
#[derive(Debug)]
pub struct Follower {
    log: HostLog,
    begin: Begin,
    /// Oldest first: the last is the one that the path named last, the others were renamed and may still grow.
    files: Vec<Followed>,
    missing: bool,
    /// What was read and not handed over yet: a look may fail after its first file.
    read: Polled,
}

#[derive(Debug)]
struct Followed {
    at: FilePosition,
    partial: Partial,
    quiet_looks: u32,
}

enum Read {
    ToTheEnd,
    NotYet,
    Gone,
}

impl Follower {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(log: HostLog, begin: Begin) -> Self {
        Self {
            log,
            begin,
            files: Vec::new(),
            missing: false,
            read: Polled::default(),
        }
    }

    /// Looks once. After an error the next look goes on where the last one was.
    ///
    /// # Errors
    /// What the host says.
    pub async fn poll(&mut self) -> Result<Polled, String> {
        self.read.caught_up = true;
        self.look().await?;
        Ok(std::mem::take(&mut self.read))
    }

    async fn look(&mut self) -> Result<(), String> {
        if self.files.is_empty() && !self.open_first().await? {
            return Ok(());
        }
        let mut index = 0;
        while index < self.files.len() {
            match self.read_on(index).await? {
                Read::ToTheEnd => index += 1,
                Read::NotYet => {
                    self.read.caught_up = false;
                    index += 1;
                }
                Read::Gone => self.let_go(index),
            }
        }
        self.let_quiet_ones_go();
        Ok(())
    }

    async fn open_first(&mut self) -> Result<bool, String> {
        let Some(end) = self.log.tail(TailFrom::End).await?.piece else {
            // Said once: a service may open its log with its first request.
            if !std::mem::replace(&mut self.missing, true) {
                self.read.notes.push("there is no such file yet".to_owned());
            }
            self.begin = Begin::AtBeginning;
            return Ok(false);
        };
        self.missing = false;
        let mut file = Followed::new(end.from.inode);
        if self.begin == Begin::AtEnd && end.size > 0 {
            // From the last byte that is there: if it ends a line nothing is skipped, else the rest of that line is.
            file.at.offset = end.size - 1;
            file.partial = Partial::Skipping;
        }
        self.begin = Begin::AtBeginning;
        self.files.push(file);
        Ok(true)
    }

    async fn read_on(&mut self, index: usize) -> Result<Read, String> {
        for _ in 0..MAX_READS {
            let Tail { current, piece } = self.log.tail(TailFrom::At(self.files[index].at)).await?;
            self.notice(current);
            let Some(piece) = piece else {
                return Ok(Read::Gone);
            };
            let file = &mut self.files[index];
            if piece.from.offset < file.at.offset {
                self.read.notes.push(format!(
                    "the file was truncated; what was written to it since the last look, beyond byte {}, is gone",
                    file.at.offset
                ));
                *file = Followed::new(file.at.inode);
            }
            if piece.bytes.is_empty() {
                file.quiet_looks = file.quiet_looks.saturating_add(1);
                return Ok(Read::ToTheEnd);
            }
            file.quiet_looks = 0;
            file.at.offset += piece.bytes.len() as u64;
            file.partial.take_in(&piece.bytes, &mut self.read.lines);
        }
        Ok(Read::NotYet)
    }

    /// Begins to follow the file that the path names, if that is a new one.
    fn notice(&mut self, current: Option<u64>) {
        if let Some(inode) = current
            && self.files.iter().all(|file| file.at.inode != inode)
        {
            self.files.push(Followed::new(inode));
        }
    }

    fn let_go(&mut self, index: usize) {
        let file = self.files.remove(index);
        file.partial.finish(&mut self.read.lines);
        self.read.notes.push(format!(
            "the file was removed; what was written to it beyond byte {} is gone",
            file.at.offset
        ));
    }

    fn let_quiet_ones_go(&mut self) {
        let newest = self.files.len().saturating_sub(1);
        let mut index = 0;
        for _ in 0..newest {
            if self.files[index].quiet_looks < LINGER_LOOKS {
                index += 1;
                continue;
            }
            let file = self.files.remove(index);
            file.partial.finish(&mut self.read.lines);
        }
    }
}

impl Followed {
    fn new(inode: u64) -> Self {
        Self {
            at: FilePosition { inode, offset: 0 },
            partial: Partial::new(),
            quiet_looks: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::fs;
    use std::io::Write as _;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::hosts::LocalHost;
    use crate::lines::MAX_LINE_BYTES;

    /// A log in this directory.
    fn log_in(dir: &Path, name: &str) -> HostLog {
        let node = NodeAddress {
            environment: "e".to_owned(),
            node: "n".to_owned(),
            directory: dir.to_string_lossy().into_owned(),
            pid_file: None,
        };
        HostLog::new(Arc::new(AnyHost::Local(LocalHost::new())), node, name.to_owned())
    }

    /// What a service and its log rotation do between two looks.
    #[derive(Debug, Clone)]
    enum Act {
        /// Writes this many bytes of what it has to say, cut anywhere.
        Write(usize),
        /// Renames the file and opens a new one.
        Rotate,
        /// Truncates it in place.
        Truncate,
        Look,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            6 => (1..40_usize).prop_map(Act::Write),
            1 => Just(Act::Rotate),
            1 => Just(Act::Truncate),
            4 => Just(Act::Look),
        ];
        proptest::collection::vec(act, 0..60)
    }

    fn open(path: &Path) -> fs::File {
        let mut options = fs::OpenOptions::new();
        options
            .append(true)
            .create(true)
            .open(path)
            .expect("the test's own file")
    }

    proptest! {
        // Each look is a process or more.
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn no_line_is_lost_or_doubled_over_rotation_and_truncation(
            acts in acts(),
            chunk in 10..200_usize,
            lengths in proptest::collection::vec(0..30_usize, 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("service.log");
            let lines: Vec<String> = lengths
                .iter()
                .enumerate()
                .map(|(n, length)| format!("{n}:{}", "é".repeat(*length)))
                .collect();
            let mut unwritten: VecDeque<u8> =
                lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
            let mut file = open(&path);
            let mut follower =
                Follower::new(log_in(dir.path(), "service.log").with_chunks(chunk), Begin::AtBeginning);
            let mut read = Vec::new();
            let mut look = |read: &mut Vec<String>| {
                let polled = runtime.block_on(follower.poll()).expect("a look");
                read.extend(polled.lines);
                polled.caught_up
            };
            let mut at_line_end = true;
            // Whether a look has seen the file that the path names now.
            let mut known = false;
            for (n, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Write(bytes) => {
                        let bytes: Vec<u8> = unwritten.drain(..bytes.min(unwritten.len())).collect();
                        at_line_end = bytes.last().map_or(at_line_end, |byte| *byte == b'\n');
                        file.write_all(&bytes).expect("written");
                    }
                    Act::Look => {
                        look(&mut read);
                        known = true;
                    }
                    // A service that rotates in the middle of a line has lost that line itself, and a file that came
                    // and went between two looks nobody can see.
                    Act::Rotate if !at_line_end || !known => {}
                    Act::Truncate if !at_line_end => {}
                    Act::Rotate => {
                        known = false;
                        fs::rename(&path, dir.path().join(format!("service.log.{n}"))).expect("renamed");
                        file = open(&path);
                    }
                    Act::Truncate => {
                        while !look(&mut read) {}
                        file.set_len(0).expect("truncated");
                        look(&mut read);
                        known = true;
                    }
                }
            }
            let rest: Vec<u8> = unwritten.drain(..).collect();
            file.write_all(&rest).expect("written");
            while !look(&mut read) {}
            prop_assert_eq!(read, lines);
        }
    }

    async fn poll(follower: &mut Follower) -> Polled {
        follower.poll().await.expect("a look")
    }

    #[tokio::test]
    async fn a_renamed_file_is_let_go_in_the_end_and_a_removed_one_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let mut old = open(&path);
        let mut follower = Follower::new(log_in(dir.path(), "a.log"), Begin::AtBeginning);
        old.write_all(b"one\ntwo").expect("written");
        assert_eq!(poll(&mut follower).await.lines, ["one"]);
        fs::rename(&path, dir.path().join("a.log.1")).expect("renamed");
        open(&path);
        let mut last = Vec::new();
        for _ in 0..=LINGER_LOOKS {
            let polled = poll(&mut follower).await;
            assert_eq!(polled.notes, [""; 0], "a rotation is nothing to tell");
            last.extend(polled.lines);
        }
        assert_eq!(last, ["two"], "the last line of a file that is let go needs no end");
        assert_eq!(follower.files.len(), 1);
        fs::remove_file(&path).expect("removed");
        let told = poll(&mut follower).await.notes;
        assert!(told.len() == 1 && told[0].contains("was removed"), "{told:?}");
    }

    #[tokio::test]
    async fn what_was_read_before_a_look_failed_is_handed_over_by_the_next() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let mut old = open(&path);
        let mut follower = Follower::new(log_in(dir.path(), "a.log"), Begin::AtBeginning);
        assert_eq!(poll(&mut follower).await.lines, [""; 0]);
        fs::rename(&path, dir.path().join("a.log.1")).expect("renamed");
        old.write_all(b"one\n").expect("written");
        // In the place of the log something that cannot be read.
        fs::create_dir(&path).expect("made");
        assert!(follower.poll().await.is_err());
        fs::remove_dir(&path).expect("removed");
        open(&path).write_all(b"two\n").expect("written");
        // The next look notices the new file, one more reads it.
        let mut lines = poll(&mut follower).await.lines;
        lines.extend(poll(&mut follower).await.lines);
        assert_eq!(lines, ["one", "two"]);
    }

    #[tokio::test]
    async fn beginning_at_the_end_skips_what_is_there_even_half_a_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let rows: [(&[u8], &[u8], &[&str]); 4] = [
            (b"old\n", b"new\n", &["new"]),
            (b"old\nhal", b"f\nnew\n", &["new"]),
            (b"", b"new\n", &["new"]),
            (b"\n", b"new\r\n", &["new"]),
        ];
        for (n, (before, after, expected)) in rows.into_iter().enumerate() {
            let path = dir.path().join(format!("{n}.log"));
            let mut file = open(&path);
            file.write_all(before).expect("written");
            let mut follower = Follower::new(log_in(dir.path(), &format!("{n}.log")), Begin::AtEnd);
            assert_eq!(follower.poll().await.expect("a look").lines, [""; 0]);
            file.write_all(after).expect("written");
            assert_eq!(follower.poll().await.expect("a look").lines, expected, "row {n}");
        }
    }

    #[tokio::test]
    async fn a_file_that_comes_later_is_read_from_its_beginning_and_missing_is_said_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("late.log");
        let mut follower = Follower::new(log_in(dir.path(), "late.log"), Begin::AtEnd);
        assert_eq!(follower.poll().await.expect("a look").notes.len(), 1);
        assert_eq!(follower.poll().await.expect("a look").notes.len(), 0);
        open(&path).write_all(b"first\n").expect("written");
        assert_eq!(follower.poll().await.expect("a look").lines, ["first"]);
    }

    #[tokio::test]
    async fn a_line_beyond_the_bound_is_cut_once_and_the_next_one_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("long.log");
        let text = format!(
            "{}\nshort\n{}\n",
            "x".repeat(MAX_LINE_BYTES * 3),
            "y".repeat(MAX_LINE_BYTES)
        );
        open(&path).write_all(text.as_bytes()).expect("written");
        let log = log_in(dir.path(), "long.log").with_chunks(4000);
        let lines = Follower::new(log, Begin::AtBeginning)
            .poll()
            .await
            .expect("a look")
            .lines;
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_LINE_BYTES, 5, MAX_LINE_BYTES]);
    }
}
