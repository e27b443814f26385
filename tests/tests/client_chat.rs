//! `client chat` end to end, as a process: over pipes, files and a terminal (pty(7)), with servers
//! that follow a script.

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
#[path = "client/terminal.rs"]
mod terminal;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use fake::serve;
use run::{Ended, finish, read_until, scratch_file, signal};
use terminal::Terminal;

fn chat(address: &str) -> Command {
    let mut command = Command::new(tests::binaries::client());
    command
        .args(["chat", "--connect", address])
        .env_remove("RUST_LOG");
    command
}

fn spawn_with(command: &mut Command, stdin: Stdio) -> Child {
    let command = command.stdin(stdin);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Types `input` through a pipe, ends it, and waits for the end.
fn say(command: &mut Command, input: &[u8]) -> Ended {
    let mut child = spawn_with(command, Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read all.
    thread::spawn(move || drop(stdin.write_all(&input)));
    finish(child)
}

/// A server that answers each line with what `answer` makes of it.
fn by_lines(answer: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> String {
    serve(move |stream| {
        let mut reader = BufReader::new(&stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).unwrap() > 0 {
            (&stream)
                .write_all(&answer(std::mem::take(&mut line)))
                .unwrap();
        }
    })
}

/// A server that hands out all that it received, once the client has ended.
fn recorder(act: impl Fn(&TcpStream) + Send + Sync + 'static) -> (String, mpsc::Receiver<Vec<u8>>) {
    let (tx, rx) = mpsc::channel();
    let address = serve(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        act(&stream);
        stream.write_all(&all).unwrap();
        tx.send(all).unwrap();
    });
    (address, rx)
}

#[test]
fn lines_go_out_and_come_back() {
    // Goal: each line is sent as it is and shown as it comes back, empty ones are skipped, the last
    // one needs no end, and a pipe sees no prompt. Method: all of what went out and was shown.
    let (address, received) = recorder(|_| ());
    let ended = say(&mut chat(&address), b"one\n\n two \r\n\r\nlast");
    let expected = "one\n two \r\nlast\n";
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, expected);
    assert_eq!(ended.stderr, "");
    assert_eq!(received.recv().unwrap(), expected.as_bytes());
}

#[test]
fn q_ends_it() {
    // Goal: what stands before q is answered, what follows is not sent. Method: what went out.
    let (address, received) = recorder(|_| ());
    let ended = say(&mut chat(&address), b"quiet\nq\nnever\n");
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "quiet\n"));
    assert_eq!(received.recv().unwrap(), b"quiet\n");
}

#[test]
fn a_file_is_as_good_as_a_pipe() {
    // Goal: input that cannot be polled is read. Method: a regular file, an empty one, and the null
    // device.
    let address = by_lines(|line| line);
    let path = scratch_file("typed");
    for text in ["a\nb\n", ""] {
        std::fs::write(&path, text).unwrap();
        let file = File::open(&path).unwrap();
        let ended = finish(spawn_with(&mut chat(&address), file.into()));
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(0), text),
            "{}",
            ended.stderr
        );
    }
    std::fs::remove_file(&path).unwrap();
    let ended = finish(spawn_with(&mut chat(&address), Stdio::null()));
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
}

#[test]
fn what_the_server_says_is_shown_as_it_is() {
    // Goal: another case, pieces, and bytes that are no text reach a pipe unchanged. Method: a
    // server that does all of it, byte by byte.
    let said = [&b"ONE\xff\xfe\x1b[2J\xe2\x82\n"[..], b"\x00TWO\n"];
    let answers = std::sync::Mutex::new(said.into_iter());
    let address = serve(move |stream| {
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 0 {
            for byte in answers.lock().unwrap().next().unwrap() {
                (&stream).write_all(&[*byte]).unwrap();
            }
        }
    });
    let child = spawn_with(&mut chat(&address), Stdio::piped());
    let mut child = child;
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"one\ntwo\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, said.concat());
}

#[test]
fn a_long_line_comes_back_whole() {
    // Goal: a line that fits no buffer does not make both sides wait for one another. Method: eight
    // megabytes to a server that answers while it reads, and to one that reads all of it first.
    let mut line = vec![b'x'; 8 << 20];
    line.push(b'\n');
    let while_reading = serve(|mut stream| {
        let mut writer = stream.try_clone().unwrap();
        std::io::copy(&mut stream, &mut writer).unwrap();
    });
    for address in [while_reading, recorder(|_| ()).0] {
        let ended = say(&mut chat(&address), &line);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(
            ended.stdout.as_bytes() == line,
            "{} bytes",
            ended.stdout.len()
        );
    }
}

/// The client's end with its input still open, and nothing typed after `first`.
fn end_while_thinking(address: &str, first: &[u8]) -> Ended {
    let mut child = spawn_with(&mut chat(address), Stdio::piped());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(first).unwrap();
    let ended = finish(child);
    drop(stdin);
    ended
}

#[test]
fn the_end_of_the_server_is_told_at_once() {
    // Goal: it is told while the person thinks, not at the next line. Method: the input stays open
    // until the client has ended; the server ends, or resets, at once or after an answer.
    let at_once = serve(|stream| stream.shutdown(Shutdown::Both).unwrap());
    let later = serve(|mut stream| {
        let mut line = [0; 4];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(&line).unwrap();
    });
    let closed = "error: the server has closed the connection\n";
    for (address, first, shown) in [(at_once, "", ""), (later, "one\n", "one\n")] {
        let ended = end_while_thinking(&address, first.as_bytes());
        let said = (ended.stdout.as_str(), ended.stderr.as_str());
        assert_eq!((ended.code, said), (Some(1), (shown, closed)));
    }
    // A reset that comes too early is one of connecting.
    let resets = serve(|mut stream| {
        stream.read_exact(&mut [0; 4]).unwrap();
        fake::reset(stream);
    });
    let ended = end_while_thinking(&resets, b"one\n");
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("the server has gone: "),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("(ECONNRESET)"), "{}", ended.stderr);
}

#[test]
fn unanswered_lines_are_told() {
    // Goal: a server that ends without having answered is not taken for a good end. Method: it
    // answers one of three lines, or half of the third.
    for (answer, words) in [
        ("a\n", "and 2 lines are unanswered"),
        ("a\nb\n", "and 1 line is unanswered"),
        ("a\nb\nc", "in the middle of a line"),
    ] {
        let address = serve(move |mut stream| {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let ended = say(&mut chat(&address), b"a\nb\nc\n");
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), answer));
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn a_silent_server_does_not_hold_us() {
    // Goal: after the input's end, silence ends the conversation; so does a server that takes
    // nothing. Method: servers that hold the connection until the client has gone.
    let silent = serve(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let (_held, waits) = mpsc::channel::<()>();
        let _ = waits.recv_timeout(run::DEADLINE);
    });
    let ended = say(chat(&silent).args(["--timeout", "300ms"]), b"a\n");
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("neither answers nor ends"),
        "{}",
        ended.stderr
    );

    let deaf = serve(|stream| {
        let (_held, waits) = mpsc::channel::<()>();
        let _ = waits.recv_timeout(run::DEADLINE);
        drop(stream);
    });
    let flood = vec![b'x'; 64 << 20];
    let ended = say(chat(&deaf).args(["--timeout", "300ms"]), &flood);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("has taken nothing for 300ms"),
        "{}",
        ended.stderr
    );
}

#[test]
fn nobody_there_and_wrong_words() {
    // Goal: no connection is told with the remedy, wrong words are a usage error. Method: each.
    let ended = say(&mut chat(&fake::nobody()), b"a\n");
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("nobody listens there"),
        "{}",
        ended.stderr
    );
    for words in [
        ["--connect", "nowhere"],
        ["--connections", "3"],
        ["--timeout", "0s"],
    ] {
        let mut command = Command::new(tests::binaries::client());
        let ended = say(command.arg("chat").args(words), b"");
        assert_eq!(ended.code, Some(2), "{words:?}: {}", ended.stderr);
    }
}

#[test]
fn who_closes_our_output_has_seen_enough() {
    // Goal: a closed output ends it without complaint, a full one with. Method: a pipe that nobody
    // reads, the full device.
    let address = by_lines(|line| line);
    let mut child = spawn_with(&mut chat(&address), Stdio::piped());
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a\n").unwrap();
    let ended = finish(child);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    if cfg!(target_os = "linux") {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = chat(&address);
        let command = command
            .stdin(Stdio::piped())
            .stdout(full)
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"a\n").unwrap();
        let ended = finish(child);
        assert_eq!(ended.code, Some(1));
        assert!(
            ended.stderr.contains("cannot be written"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn signals_end_it_at_once() {
    // Goal: SIGINT is 130 and SIGTERM 143. Method: sends each once the first line has come back.
    let address = by_lines(|line| line);
    for (number, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut child = spawn_with(&mut chat(&address), Stdio::piped());
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"up\n").unwrap();
        read_until(child.stdout.take().unwrap(), "up\n");
        signal(child.id(), number);
        assert_eq!(finish(child).code, Some(code));
    }
}

#[test]
fn a_terminal_is_asked_for_lines() {
    // Goal: greeting, a prompt for each line, answers below them, q. Method: the whole of what a
    // terminal shows, which does not echo what is typed.
    let address = by_lines(|line| line.to_ascii_uppercase());
    let mut terminal = Terminal::open();
    let child = terminal.start(&mut chat(&address));
    terminal.wait_for("> ");
    terminal.write(b"one\n");
    terminal.wait_for("ONE\r\n> ");
    terminal.write(b"\n");
    terminal.wait_for("ONE\r\n> > ");
    terminal.write(b"two\n");
    terminal.wait_for("TWO\r\n> ");
    terminal.write(b"q\n");
    assert_eq!(finish(child).code, Some(0));
    let expected = format!("connected to {address}; q ends\r\n> ONE\r\n> > TWO\r\n> ");
    assert_eq!(terminal.seen(), expected);
}

#[test]
fn a_terminal_is_kept_safe() {
    // Goal: control sequences and broken text do nothing to the terminal, characters that come in
    // pieces are whole; the end of input is the end, and the terminal is left at a line's begin.
    // Method: the whole of what it shows.
    let address = serve(|stream| {
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        for byte in b"\x1b[2J\xff\xe2\x82\xac\n" {
            (&stream).write_all(&[*byte]).unwrap();
        }
        reader.read_line(&mut line).unwrap();
    });
    let mut terminal = Terminal::open();
    let child = terminal.start(&mut chat(&address));
    terminal.wait_for("> ");
    terminal.write(b"one\n");
    terminal.wait_for("\n> ");
    terminal.wait_for("€\r\n> ");
    // Ctrl-D at the beginning of a line.
    terminal.write(b"\x04");
    assert_eq!(finish(child).code, Some(0));
    let expected = format!("connected to {address}; q ends\r\n> \\x1b[2J\\xff€\r\n> \r\n");
    assert_eq!(terminal.seen(), expected);
}

#[test]
fn a_terminal_is_told_of_the_end_and_can_interrupt() {
    // Goal: at the prompt the server's end is told at once on a line of its own; Ctrl-C is 130.
    // Method: a server that ends after an answer, and one that does not.
    let ends = serve(|stream| {
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(b"bye\n").unwrap();
    });
    let mut terminal = Terminal::open();
    let child = terminal.start(&mut chat(&ends));
    terminal.wait_for("> ");
    terminal.write(b"one\n");
    let ended = finish(child);
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.stderr,
        "error: the server has closed the connection\n"
    );
    assert!(
        terminal.seen().ends_with("> bye\r\n> \r\n"),
        "{}",
        terminal.seen()
    );

    let mut terminal = Terminal::open();
    let child = terminal.start(&mut chat(&by_lines(|line| line)));
    terminal.wait_for("> ");
    terminal.write(b"\x03");
    assert_eq!(finish(child).code, Some(130));
}
