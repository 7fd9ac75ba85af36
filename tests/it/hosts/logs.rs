//! Files that are read on.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;

use stagegate::hosts::{Host as _, Tail, TailFrom};
use stagegate::lines::Begin;
use stagegate::signals::log::follow::{Follower, HostLog};

use super::{Bench, on_both_hosts};

on_both_hosts! {
    a_followed_file_is_read_on_across_its_rotation
    what_a_service_writes_into_its_renamed_log_still_counts
}

async fn a_followed_file_is_read_on_across_its_rotation(bench: Bench) {
    fs::create_dir_all(bench.path("log")).expect("made");
    let log = bench.path("log/server.log");
    let look = async |from| {
        let tail = bench.host.tail(&bench.node, "log/server.log", from, 4).await;
        let Tail { current, piece } = tail.expect("a look");
        (current, piece)
    };
    let tail = async |from| look(from).await.1.expect("there");
    assert_eq!(look(TailFrom::End).await, (None, None));
    fs::write(&log, b"ab\xff\x00cd").expect("written");
    let piece = tail(TailFrom::Start).await;
    assert_eq!((&piece.bytes[..], piece.size), (&b"ab\xff\x00"[..], 6));
    let old = piece.from.inode;
    // Renamed, with nothing in its place yet: the old one is still there, and its end is none.
    fs::rename(&log, bench.path("log/server.log.1")).expect("rotated");
    let (current, rest) = look(TailFrom::At(piece.next())).await;
    let rest = rest.expect("there");
    assert_eq!((current, &rest.bytes[..]), (None, &b"cd"[..]));
    fs::write(&log, "new").expect("written");
    let (current, none) = look(TailFrom::At(rest.next())).await;
    let none = none.expect("there");
    assert_eq!((none.from.inode, none.bytes.len(), none.next()), (old, 0, rest.next()));
    assert_ne!(current, Some(old));
    let new = tail(TailFrom::Start).await;
    assert_eq!((&new.bytes[..], current), (&b"new"[..], Some(new.from.inode)));
    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&log)
        .expect("cut back in place");
    fs::write(&log, "x").expect("written");
    let cut = tail(TailFrom::At(new.next())).await;
    assert_eq!((&cut.bytes[..], cut.from.offset), (&b"x"[..], 0));
    let end = tail(TailFrom::End).await;
    assert_eq!((end.bytes.len(), end.from.offset), (0, 1));
    fs::remove_file(bench.path("log/server.log.1")).expect("compressed, say");
    assert_eq!(look(TailFrom::At(rest.next())).await, (Some(end.from.inode), None));
}

/// logrotate renames; the service goes on in the old file until it is told to open a new one.
async fn what_a_service_writes_into_its_renamed_log_still_counts(bench: Bench) {
    fs::create_dir_all(bench.path("log")).expect("made");
    let (path, renamed) = (bench.path("log/server.log"), bench.path("log/server.log.1"));
    let mut service = fs::File::create(&path).expect("made");
    let log = HostLog::new(Arc::clone(&bench.host), bench.node.clone(), "log/server.log".into());
    let mut follower = Follower::new(log, Begin::AtEnd);
    let mut look = async || {
        let polled = follower.poll().await.expect("a look");
        assert_eq!((polled.notes, polled.caught_up), (vec![], true));
        polled.lines
    };
    assert_eq!(look().await, [""; 0]);
    service.write_all(b"start 1\nstart 2\nsta").expect("written");
    assert_eq!(look().await, ["start 1", "start 2"]);
    fs::rename(&path, &renamed).expect("rotated");
    for _ in 0..3 {
        assert_eq!(look().await, [""; 0]);
    }
    service.write_all(b"rt 3\nend 1\n").expect("written");
    assert_eq!(look().await, ["start 3", "end 1"], "no file in its place yet");
    let mut reopened = fs::File::create(&path).expect("made");
    for n in 0..3 {
        assert_eq!(look().await, [""; 0], "at the end of both files");
        writeln!(reopened, "start 4{n}").expect("written");
        writeln!(service, "end 2{n}").expect("written");
        assert_eq!(look().await, [format!("end 2{n}"), format!("start 4{n}")]);
    }
}
