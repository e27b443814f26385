//! `client load --depth` end to end: every byte of a batch of replies is checked as strictly as
//! that of a single one.
//!
//! The servers collect as many lines as are in flight before they answer, so that what they do to
//! one of them is done in the middle of a batch (`client/fake.rs`).

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

#[allow(dead_code, reason = "shared with the tests of `client load`")]
#[path = "client/fake.rs"]
mod fake;
#[allow(dead_code, reason = "shared with the tests of `client load`")]
#[path = "client/run.rs"]
mod run;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Barrier, Mutex, mpsc};

use fake::{for_each_line, serve};
use run::{Ended, client};

/// Messages in flight on each connection.
const DEPTH: usize = 8;
/// Five batches on each of twenty connections.
const SOME: &[&str] = &["--connections", "20", "--messages", "40", "--depth", "8"];

/// Answers batch after batch with what `change` makes of it: connection, first number, lines.
fn batches(
    change: impl Fn(u32, u64, Vec<Vec<u8>>) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> String {
    serve(move |stream| {
        let mut batch = Vec::new();
        for_each_line(&stream, |request, mut stream| {
            batch.push(request.line);
            if batch.len() < DEPTH {
                return true;
            }
            let first = request.n + 1 - DEPTH as u64;
            let lines = change(request.connection, first, std::mem::take(&mut batch));
            stream.write_all(&lines.concat()).is_ok()
        });
    })
}

/// An echo that makes something else of messages 16 to 23 of connection 3.
fn wrong_once(change: impl Fn(&mut Vec<Vec<u8>>) + Send + Sync + 'static) -> String {
    batches(move |connection, first, mut lines| {
        if (connection, first) == (3, 16) {
            change(&mut lines);
        }
        lines
    })
}

/// Connection 3 failed at message 19, and with it the five that were in flight then; the other
/// connections were not disturbed.
#[track_caller]
fn assert_failed_at_19(ended: &Ended, cause: &str, words: &str) {
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let expected = [("verify", cause, 1, 5)];
    assert_eq!(ended.failures(), expected, "{:#}", ended.json);
    assert_eq!(ended.number("messages/answered"), 19 * 40 + 19);
    assert_eq!(ended.number("connections/closed"), 19);
    let first = ended.first_failure();
    assert!(
        first.starts_with("connection 3, message 19, byte "),
        "{first}"
    );
    assert!(first.contains(words), "{first}");
}

#[test]
fn right_batches_are_right() {
    // Goal: batches pass, whole and in pieces, with everything counted. Method: a server that
    // answers batches, and one that answers byte by byte; the numbers that are certain.
    let whole = batches(|_, _, lines| lines);
    let pieces = serve(|stream| {
        for_each_line(&stream, |request, mut stream| {
            let mut bytes = request.line.iter();
            bytes.all(|byte| stream.write_all(&[*byte]).is_ok())
        });
    });
    for address in [whole, pieces] {
        let ended = client(&address, SOME);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        for (path, expected) in [
            ("settings/depth", 8),
            ("messages/sent", 800),
            ("messages/answered", 800),
            ("window/bytes", 800 * 64),
            ("latency_ns/count", 800),
        ] {
            assert_eq!(ended.number(path), expected, "{path}");
        }
        assert!(
            ended.stdout.contains("8 in flight each"),
            "{}",
            ended.stdout
        );
    }
}

#[test]
fn a_batch_is_one_write_and_never_more_than_the_depth() {
    // Goal: what is in flight goes out at once, and is all there ever is. Method: the first read of
    // a server that answers nothing until the client has given up.
    let (tx, rx) = mpsc::channel();
    let tx = Mutex::new(tx);
    let address = serve(move |mut stream| {
        let mut piece = [0; 65_536];
        let mut counts = Vec::new();
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            counts.push(count);
        }
        tx.lock().unwrap().send(counts).unwrap();
    });
    let words = ["--connections", "1", "--depth", "100", "--timeout", "300ms"];
    let ended = client(&address, &words);
    assert_eq!(ended.failures(), [("receive", "timed out", 1, 100)]);
    assert_eq!(rx.recv_timeout(run::DEADLINE).unwrap(), [100 * 64]);
}

#[test]
fn fewer_messages_than_the_depth_are_no_more() {
    // Goal: --messages bounds what is launched, also within the first batch. Method: three messages
    // at depth 8.
    let address = fake::answer(|request| request.line);
    let words = ["--connections", "5", "--messages", "3", "--depth", "8"];
    let ended = client(&address, &words);
    let sent = ended.number("messages/sent");
    assert_eq!((ended.code, sent), (Some(0), 15), "{}", ended.stdout);
}

#[test]
fn lines_of_every_length_keep_their_borders() {
    // Goal: messages of different lengths in one row, and upper case, which is sent from another.
    // Method: sizes below a message's own length, so that message 10 is longer than 9.
    let same = fake::answer(|request| request.line);
    let upper = fake::answer(|request| request.line.to_ascii_uppercase());
    for size in ["1", "5", "40"] {
        let words = [SOME, &["--size", size]].concat();
        for ended in [
            client(&same, &words),
            client(&upper, &[&words[..], &["--upper"]].concat()),
        ] {
            let answered = ended.number("messages/answered");
            assert_eq!((ended.code, answered), (Some(0), 800), "{}", ended.stdout);
        }
    }
}

#[test]
fn changed_bytes_in_a_batch_are_caught() {
    // Goal: one changed byte fails its message and those behind it, none before it. Method: header,
    // filler and end of the fourth line.
    for at in [0, 30, 63] {
        let address = wrong_once(move |lines| lines[3][at] ^= 1);
        let ended = client(&address, SOME);
        assert_failed_at_19(
            &ended,
            "corrupt bytes",
            &format!("byte {at}: 1 byte was changed"),
        );
    }
}

#[test]
fn bytes_dropped_from_a_batch_are_caught() {
    // Goal: a gap is called that though other replies close it. Method: leaves out pieces of the
    // fourth line, and all of it.
    for range in [0..1, 10..15, 20..60, 0..64] {
        let bytes = range.len();
        let address = wrong_once(move |lines| {
            lines[3].drain(range.clone());
        });
        let ended = client(&address, SOME);
        assert_failed_at_19(&ended, "missing bytes", &format!("{bytes} left out"));
    }
}

#[test]
fn replies_repeated_in_a_batch_are_caught() {
    // Goal: a reply that comes again before the next one, or instead of it. Method: both.
    let again = wrong_once(|lines| lines.insert(3, lines[2].clone()));
    let instead = wrong_once(|lines| lines[3] = lines[2].clone());
    for address in [again, instead] {
        let ended = client(&address, SOME);
        assert_failed_at_19(&ended, "repeated bytes", "message 18 came again");
    }
}

#[test]
fn replies_swapped_in_a_batch_are_caught() {
    // Goal: all bytes there, in the wrong order. Method: exchanges two lines, and halves of them.
    let lines = wrong_once(|lines| lines.swap(3, 4));
    let ended = client(&lines, SOME);
    assert_failed_at_19(
        &ended,
        "replies out of order",
        "message 20 came before its turn",
    );
    let halves = wrong_once(|lines| {
        let (left, right) = lines.split_at_mut(4);
        left[3][1000..1999].swap_with_slice(&mut right[0][1000..1999]);
    });
    let ended = client(&halves, &[SOME, &["--size", "2000"]].concat());
    assert_failed_at_19(
        &ended,
        "replies out of order",
        "message 20 came before its turn",
    );
}

#[test]
fn bytes_added_to_a_batch_are_caught() {
    // Goal: bytes that nobody sent, before and inside a reply. Method: puts some in.
    for at in [0, 17] {
        let address = wrong_once(move |lines| {
            lines[3].splice(at..at, *b"###");
        });
        let ended = client(&address, SOME);
        assert_failed_at_19(&ended, "extra bytes", "3 that nobody sent");
    }
}

#[test]
fn what_follows_a_whole_batch_is_caught() {
    // Goal: bytes behind the last reply that can come. Method: adds bytes, and the last line again;
    // they may be read with the batch or in front of the next one.
    for (cause, again) in [("extra bytes", false), ("repeated bytes", true)] {
        let address = wrong_once(move |lines| {
            lines.push(if again {
                lines[7].clone()
            } else {
                b"##".to_vec()
            });
        });
        let ended = client(&address, SOME);
        assert_eq!(ended.code, Some(1), "{}", ended.stdout);
        let (phase, found, connections, _) = ended.failures()[0];
        assert_eq!((phase, found, connections), ("verify", cause, 1));
    }
}

#[test]
fn anothers_replies_in_a_batch_name_their_owner() {
    // Goal: two connections that get one another's reply in mid-batch both fail there. Method: the
    // server lets connections 1 and 2 meet and exchanges their fourth lines.
    let meeting = Barrier::new(2);
    let met = Mutex::new([Vec::new(), Vec::new()]);
    let address = batches(move |connection, first, mut lines| {
        if matches!((connection, first), (1 | 2, 16)) {
            let own = connection as usize - 1;
            met.lock().unwrap()[own].clone_from(&lines[3]);
            meeting.wait();
            lines[3].clone_from(&met.lock().unwrap()[1 - own]);
        }
        lines
    });
    let ended = client(&address, SOME);
    let expected = [("verify", "bytes of another connection", 2, 10)];
    assert_eq!(ended.failures(), expected, "{:#}", ended.json);
    let first = ended.first_failure();
    assert!(first.contains("message 19, byte 0"), "{first}");
}

#[test]
fn an_end_within_a_batch_fails_all_that_is_in_flight() {
    // Goal: what is answered counts, what is not fails, however the stream ends. Method: half a
    // batch, with and without a piece of the next line, and then silence or the end.
    let ending = |bytes: usize, keep: fn(TcpStream)| {
        serve(move |stream| {
            let mut batch = Vec::new();
            for_each_line(&stream, |request, mut stream| {
                batch.extend(request.line);
                if request.n % 8 == 7 && (request.connection, request.n) != (3, 23) {
                    return stream.write_all(&std::mem::take(&mut batch)).is_ok();
                }
                request.n != 23
            });
            if !batch.is_empty() {
                (&stream).write_all(&batch[..bytes]).unwrap();
                keep(stream);
            }
        })
    };
    // The client sends three more for the three that are answered; unread, they would make a reset.
    let silent = |mut stream: TcpStream| drop(std::io::copy(&mut stream, &mut std::io::sink()));
    let closing = |mut stream: TcpStream| {
        fake::end_with(&stream, b"");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    };
    let words = [SOME, &["--timeout", "300ms"]].concat();
    for (bytes, keep, cause) in [
        (192, silent as fn(TcpStream), "timed out"),
        (200, silent, "timed out in mid-reply"),
        (192, closing, "closed by the server"),
        (200, closing, "closed by the server in mid-reply"),
    ] {
        let ended = client(&ending(bytes, keep), &words);
        let expected = [("receive", cause, 1, 8)];
        assert_eq!(ended.failures(), expected, "{:#}", ended.json);
        assert_eq!(ended.number("messages/answered"), 19 * 40 + 19);
    }
}

#[test]
fn large_messages_in_flight_do_not_lock_up() {
    // Goal: more in flight than all socket buffers hold passes a server that reads nothing while it
    // answers. Method: three times 4 MB, twice over.
    let address = serve(|mut stream| {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            if stream.write_all(&piece[..count]).is_err() {
                return;
            }
        }
    });
    let size = ["--connections", "2", "--size", "4000000"];
    let ended = client(
        &address,
        &[&size[..], &["--messages", "6", "--depth", "3"]].concat(),
    );
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(ended.number("window/bytes"), 12 * 4_000_000);
}

#[cfg(target_os = "linux")]
#[test]
fn more_in_flight_than_the_memory_holds_is_refused() {
    // Goal: told before the first connection, with the remedy, instead of by the system in
    // mid-run. Method: a gigabyte in flight on each of very many connections.
    let words = ["--depth", "65536", "--size", "16384"];
    let ended = client(
        &fake::nobody(),
        &[&words[..], &["--connections", "15000"]].concat(),
    );
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("bytes of memory") && ended.stderr.contains("smaller --depth"),
        "{}",
        ended.stderr
    );
}
