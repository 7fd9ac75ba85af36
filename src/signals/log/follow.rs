//! Following a file by reading it again and again: no line is lost or doubled over rotation (renamed, and a new file
//! in its place) and truncation in place.
//!
//! What reading from outside cannot see, nobody can: two rotations between two looks hide the file in the middle,
//! lines written between the last look and a truncation are gone, and a file that was truncated and grew past the
//! place of the last look is taken for one that only grew. A look a second keeps each of these to a second.

use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// A longer line is cut here; no request log has one.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Bytes asked for in one read.
pub const MAX_CHUNK_BYTES: usize = 256 * 1024;

/// Reads of one file in one look: 16 MiB, more than a service logs in a second.
const MAX_READS: usize = 64;

/// Looks without news after which a renamed file is let go. Services go on writing into it until they are told to
/// open the new one, which log rotation does within seconds.
const LINGER_LOOKS: u32 = 30;

/// A place in a file. The inode tells the file, whatever it is called by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The file's inode number on its file system.
    pub inode: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// What one read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Inode of the file that the path names now; `None` when there is none.
    pub current: Option<u64>,
    /// What is at the position.
    pub found: Found,
}

/// What is at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Bytes from there on; none means the end of the file.
    Bytes(Vec<u8>),
    /// The file ends before the position: it was truncated.
    Shorter,
    /// The file is no longer to be found, under any name.
    Gone,
}

/// Reads a log file where it lies. Errors are trouble of ours (no connection, no permission), as text.
pub trait LogReader: Send {
    /// The end of the file that the path names now; `None` when there is none.
    fn end(&mut self) -> impl Future<Output = Result<Option<Position>, String>> + Send;
    /// Reads from a position, in a file that may have been renamed since.
    fn read(&mut self, from: Position) -> impl Future<Output = Result<Chunk, String>> + Send;
    /// Says that a file will not be read any more.
    fn forget(&mut self, inode: u64);
}

/// Where the first look begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With what is written from now on.
    AtEnd,
    /// With all that is there.
    AtBeginning,
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
pub struct Follower<R> {
    reader: R,
    begin: Begin,
    /// Oldest first: the last is the one that the path named last, the others were renamed and may still grow.
    files: Vec<Followed>,
    missing: bool,
}

#[derive(Debug)]
struct Followed {
    at: Position,
    partial: Partial,
    quiet_looks: u32,
}

enum Read {
    ToTheEnd,
    NotYet,
    Gone,
}

impl<R: LogReader> Follower<R> {
    /// Reads nothing yet.
    pub fn new(reader: R, begin: Begin) -> Self {
        Self {
            reader,
            begin,
            files: Vec::new(),
            missing: false,
        }
    }

    /// Looks once. After an error the next look goes on where the last one was.
    ///
    /// # Errors
    /// What the reader says.
    pub async fn poll(&mut self) -> Result<Polled, String> {
        let mut polled = Polled {
            caught_up: true,
            ..Polled::default()
        };
        if self.files.is_empty() && !self.open_first(&mut polled).await? {
            return Ok(polled);
        }
        let mut index = 0;
        while index < self.files.len() {
            match self.read_on(index, &mut polled).await? {
                Read::ToTheEnd => index += 1,
                Read::NotYet => {
                    polled.caught_up = false;
                    index += 1;
                }
                Read::Gone => self.let_go(index, &mut polled),
            }
        }
        self.let_quiet_ones_go(&mut polled);
        Ok(polled)
    }

    async fn open_first(&mut self, polled: &mut Polled) -> Result<bool, String> {
        let Some(end) = self.reader.end().await? else {
            // Said once: a service may open its log with its first request.
            if !std::mem::replace(&mut self.missing, true) {
                polled.notes.push("there is no such file yet".to_owned());
            }
            self.begin = Begin::AtBeginning;
            return Ok(false);
        };
        self.missing = false;
        let mut file = Followed::new(end.inode, 0);
        if self.begin == Begin::AtEnd && end.offset > 0 {
            // From the last byte that is there: if it ends a line nothing is skipped, else the rest of that line is.
            file.at.offset = end.offset - 1;
            file.partial = Partial::Skipping;
        }
        self.begin = Begin::AtBeginning;
        self.files.push(file);
        Ok(true)
    }

    async fn read_on(&mut self, index: usize, polled: &mut Polled) -> Result<Read, String> {
        for _ in 0..MAX_READS {
            let chunk = self.reader.read(self.files[index].at).await?;
            self.notice(chunk.current);
            let file = &mut self.files[index];
            match chunk.found {
                Found::Bytes(bytes) if bytes.is_empty() => {
                    file.quiet_looks = file.quiet_looks.saturating_add(1);
                    return Ok(Read::ToTheEnd);
                }
                Found::Bytes(bytes) => {
                    file.quiet_looks = 0;
                    file.at.offset += bytes.len() as u64;
                    file.partial.take_in(&bytes, &mut polled.lines);
                }
                Found::Shorter => {
                    polled.notes.push(format!(
                        "the file was truncated; what was written to it since the last look, beyond byte {}, is gone",
                        file.at.offset
                    ));
                    *file = Followed::new(file.at.inode, 0);
                }
                Found::Gone => return Ok(Read::Gone),
            }
        }
        Ok(Read::NotYet)
    }

    /// Begins to follow the file that the path names, if that is a new one.
    fn notice(&mut self, current: Option<u64>) {
        if let Some(inode) = current
            && self.files.iter().all(|file| file.at.inode != inode)
        {
            self.files.push(Followed::new(inode, 0));
        }
    }

    fn let_go(&mut self, index: usize, polled: &mut Polled) {
        let file = self.files.remove(index);
        self.reader.forget(file.at.inode);
        file.partial.finish(&mut polled.lines);
        polled.notes.push(format!(
            "the file was removed; what was written to it beyond byte {} is gone",
            file.at.offset
        ));
    }

    fn let_quiet_ones_go(&mut self, polled: &mut Polled) {
        let newest = self.files.len().saturating_sub(1);
        let mut index = 0;
        for _ in 0..newest {
            if self.files[index].quiet_looks < LINGER_LOOKS {
                index += 1;
                continue;
            }
            let file = self.files.remove(index);
            self.reader.forget(file.at.inode);
            file.partial.finish(&mut polled.lines);
        }
    }
}

impl Followed {
    fn new(inode: u64, offset: u64) -> Self {
        Self {
            at: Position { inode, offset },
            partial: Partial::Kept(Vec::new()),
            quiet_looks: 0,
        }
    }
}

/// The line that has no end yet.
#[derive(Debug)]
enum Partial {
    /// Its beginning.
    Kept(Vec<u8>),
    /// Its rest is of no use: it was too long, or we came in its middle.
    Skipping,
}

impl Partial {
    fn take_in(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            if let Partial::Kept(line) = self {
                let room = MAX_LINE_BYTES - line.len();
                line.extend_from_slice(&text[..text.len().min(room)]);
                if ends || text.len() > room {
                    lines.push(line_text(line));
                    line.clear();
                }
                if !ends && text.len() > room {
                    *self = Partial::Skipping;
                }
            } else if ends {
                *self = Partial::Kept(Vec::new());
            }
        }
    }

    /// The last line of a file that nobody will write to any more, though it has no end.
    fn finish(self, lines: &mut Vec<String>) {
        match self {
            Partial::Kept(line) if !line.is_empty() => lines.push(line_text(&line)),
            Partial::Kept(_) | Partial::Skipping => {}
        }
    }
}

fn line_text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

/// A log file on this machine. Files that are followed stay open, so that one that is renamed, or even removed, is
/// read to its end.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    chunk_bytes: usize,
    open: BTreeMap<u64, File>,
}

impl LocalFile {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self::with_chunks(path, MAX_CHUNK_BYTES)
    }

    /// Reads at most so many bytes at a time.
    #[must_use]
    pub fn with_chunks(path: PathBuf, chunk_bytes: usize) -> Self {
        Self {
            path,
            chunk_bytes: chunk_bytes.max(1),
            open: BTreeMap::new(),
        }
    }

    fn trouble(&self, tried: &str, error: &std::io::Error) -> String {
        format!("cannot {tried} {}: {error}", self.path.display())
    }

    /// Opens what the path names and says which file that is, and how long.
    async fn open_current(&mut self) -> Result<Option<Position>, String> {
        let file = match File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.trouble("open", &error)),
        };
        let about = file.metadata().await.map_err(|e| self.trouble("look at", &e))?;
        if !about.is_file() {
            return Err(format!("{} is not a file", self.path.display()));
        }
        self.open.entry(about.ino()).or_insert(file);
        Ok(Some(Position {
            inode: about.ino(),
            offset: about.len(),
        }))
    }

    async fn bytes_at(&mut self, from: Position) -> std::io::Result<Found> {
        let Some(file) = self.open.get_mut(&from.inode) else {
            return Ok(Found::Gone);
        };
        if file.metadata().await?.len() < from.offset {
            return Ok(Found::Shorter);
        }
        file.seek(SeekFrom::Start(from.offset)).await?;
        let mut bytes = Vec::new();
        let limit = self.chunk_bytes as u64;
        (&mut *file).take(limit).read_to_end(&mut bytes).await?;
        Ok(Found::Bytes(bytes))
    }
}

impl LogReader for LocalFile {
    async fn end(&mut self) -> Result<Option<Position>, String> {
        self.open_current().await
    }

    async fn read(&mut self, from: Position) -> Result<Chunk, String> {
        let current = self.open_current().await?.map(|position| position.inode);
        let found = self
            .bytes_at(from)
            .await
            .map_err(|error| self.trouble("read", &error))?;
        Ok(Chunk { current, found })
    }

    fn forget(&mut self, inode: u64) {
        self.open.remove(&inode);
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

    /// What a service and its log rotation do between two looks.
    #[derive(Debug, Clone)]
    enum Act {
        /// Writes this many bytes of what it has to say, cut anywhere.
        Write(usize),
        /// Renames the file and opens a new one.
        Rotate,
        /// Removes the file and opens a new one.
        Remove,
        /// Truncates it in place.
        Truncate,
        Look,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            6 => (1..40_usize).prop_map(Act::Write),
            1 => Just(Act::Rotate),
            1 => Just(Act::Remove),
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
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn no_line_is_lost_or_doubled_over_rotation_removal_and_truncation(
            acts in acts(),
            chunk in 1..50_usize,
            lengths in proptest::collection::vec(0..30_usize, 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
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
                Follower::new(LocalFile::with_chunks(path.clone(), chunk), Begin::AtBeginning);
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
                    Act::Rotate | Act::Remove if !at_line_end || !known => {}
                    Act::Truncate if !at_line_end => {}
                    Act::Rotate => {
                        known = false;
                        fs::rename(&path, dir.path().join(format!("service.log.{n}"))).expect("renamed");
                        file = open(&path);
                    }
                    Act::Remove => {
                        known = false;
                        fs::remove_file(&path).expect("removed");
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

    fn follower(path: &Path, begin: Begin) -> Follower<LocalFile> {
        Follower::new(LocalFile::new(path.to_path_buf()), begin)
    }

    #[tokio::test]
    async fn what_is_written_into_a_renamed_file_still_counts_and_it_is_let_go_in_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.log");
        let mut old = open(&path);
        let mut follower = follower(&path, Begin::AtBeginning);
        old.write_all(b"one\ntw").expect("written");
        assert_eq!(follower.poll().await.expect("a look").lines, ["one"]);
        fs::rename(&path, dir.path().join("a.log.1")).expect("renamed");
        let mut new = open(&path);
        new.write_all(b"three\n").expect("written");
        assert_eq!(follower.poll().await.expect("a look").lines, ["three"]);
        old.write_all(b"o\nfour").expect("written");
        assert_eq!(follower.poll().await.expect("a look").lines, ["two"]);
        let mut last = Vec::new();
        for _ in 0..LINGER_LOOKS {
            last.extend(follower.poll().await.expect("a look").lines);
        }
        assert_eq!(last, ["four"], "the last line of a file that is let go needs no end");
        assert_eq!(follower.reader.open.len(), 1, "and the file is closed");
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
            let mut follower = follower(&path, Begin::AtEnd);
            assert_eq!(follower.poll().await.expect("a look").lines, [""; 0]);
            file.write_all(after).expect("written");
            assert_eq!(follower.poll().await.expect("a look").lines, expected, "row {n}");
        }
    }

    #[tokio::test]
    async fn a_file_that_comes_later_is_read_from_its_beginning_and_missing_is_said_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("late.log");
        let mut follower = follower(&path, Begin::AtEnd);
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
        let reader = LocalFile::with_chunks(path, 4000);
        let lines = Follower::new(reader, Begin::AtBeginning)
            .poll()
            .await
            .expect("a look")
            .lines;
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_LINE_BYTES, 5, MAX_LINE_BYTES]);
    }
}
