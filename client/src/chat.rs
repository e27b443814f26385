//! `client chat`: what is typed goes to the server line by line, what comes back is shown.
//!
//! Application on L4. Two green threads that look blocking: one waits for the person, one for the
//! server, and whichever has something comes first. So the end of the server is told at once, also
//! while the person thinks; and a long line cannot make the two sides wait for one another. The one
//! that listens is the main green thread: when the server has ended, the run has.
//!
//! Rests on shutdown(2), and on epoll_ctl(2), EPERM: what cannot be polled (a regular file) is
//! always ready. Deliberately not here: checking the answers (that is `client load`).

mod screen;
mod typed;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::EXIT_SIGNAL;
use crate::failure::{Phase, words_of};
use crate::net::{Shutdown, TcpStream, ToSocketAddrs};
use crate::{arguments, print, thread};

use screen::Screen;
use typed::{Cutter, Typed};

/// What `--help` adds after the options.
pub(crate) const AFTER_HELP: &str = "\
Each line goes to the server as it is, and what the server says is shown as it comes. There is a
prompt if input and output are a terminal. On a terminal control characters, and what is not UTF-8,
are written as \\x1b; a file or a pipe gets the server's bytes.

Exit codes:
  0    the input ended, or said q, and every line was answered
  1    no connection, or the server ended it, or was silent after the last line
  2    the command line is wrong
  130  Ctrl-C; 143: SIGTERM";

/// The options of `client chat`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Chat {
    /// The server's address, as HOST:PORT; the host may be a name
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    #[arg(value_parser = arguments::address)]
    connect: String,

    /// How long to wait for the connection, for the server to take what is sent and, once the input
    /// has ended, for the answers that are still to come
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = arguments::duration)]
    timeout: Duration,
}

/// Connects and talks until either side ends.
///
/// # Errors
///
/// In words: no connection, the server gone before its time, the input or the output broken.
pub(crate) fn run(settings: Chat) -> Result<ExitCode, String> {
    end_on_signals().map_err(|error| format!("signals cannot be caught: {error}"))?;
    runtime::Builder::new()
        .run(move || Talk::begin(settings)?.listen_to_the_end())
        .map_err(|error| format!("the runtime cannot start: {error}"))?
        .map(|()| ExitCode::SUCCESS)
}

/// There are no books to close, so the first signal ends the process, as a shell expects it.
fn end_on_signals() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let status = i32::from(EXIT_SIGNAL) + signal;
        flag::register_conditional_shutdown(signal, status, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// One conversation, shared by the two green threads.
struct Talk {
    settings: Chat,
    stream: TcpStream,
    screen: RefCell<Screen>,
    /// Lines that were sent with their end ...
    sent: Cell<u64>,
    /// ... and lines that came.
    answered: Cell<u64>,
    received_bytes: Cell<u64>,
    /// The last byte that came did not end a line.
    is_midline: Cell<bool>,
    input_ended: Cell<bool>,
    /// Why our side ended the conversation, if it did.
    reason: RefCell<Option<String>>,
}

impl Talk {
    fn begin(settings: Chat) -> Result<Rc<Talk>, String> {
        let stream = connect(&settings)?;
        let talk = Rc::new(Talk {
            settings,
            stream,
            screen: RefCell::new(Screen::new()),
            sent: Cell::new(0),
            answered: Cell::new(0),
            received_bytes: Cell::new(0),
            is_midline: Cell::new(false),
            input_ended: Cell::new(false),
            reason: RefCell::default(),
        });
        let greeted = talk.screen.borrow().greet(&talk.settings.connect);
        let typist = Rc::clone(&talk);
        thread::Builder::new()
            .name("input".into())
            .spawn(move || typist.pass_input_on())
            .map_err(|error| format!("there is no room for a green thread: {error}"))?;
        match greeted {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(output_broken(&error)),
            _ => Ok(talk),
        }
    }

    fn listen_to_the_end(&self) -> Result<(), String> {
        let listened = self.listen();
        let finished = self.screen.borrow_mut().finish();
        match listened.and(finished.map_err(Ended::Output)) {
            Ok(()) => Ok(()),
            // Who closed our output has seen enough.
            Err(Ended::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            Err(Ended::Output(error)) => Err(output_broken(&error)),
            Err(Ended::Talk(words)) => Err(words),
        }
    }
}

fn output_broken(error: &io::Error) -> String {
    format!("the output cannot be written: {}", words_of(error))
}

/// Tries the addresses in turn, each with the time-out.
fn connect(settings: &Chat) -> Result<TcpStream, String> {
    let connect = &settings.connect;
    let told = |phase, error: &io::Error| {
        let quoted = format!("`{connect}`");
        print::reason(phase, &words_of(error), &quoted, connect).unwrap_or_default()
    };
    let addresses = connect.to_socket_addrs();
    let addresses = addresses.map_err(|error| told(Phase::Resolve, &error))?;
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let stream = TcpStream::connect_timeout(&address, settings.timeout).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(settings.timeout))?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(told(Phase::Connect, &last))
}

/// Why listening ended before its time.
enum Ended {
    Output(io::Error),
    Talk(String),
}

/// The server's side.
impl Talk {
    fn listen(&self) -> Result<(), Ended> {
        let mut piece = vec![0; 16 * 1024];
        loop {
            match (&self.stream).read(&mut piece) {
                Ok(0) => return self.judge_end(),
                Ok(count) => self.hear(&piece[..count]).map_err(Ended::Output)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = self.reason.take();
                    return Err(Ended::Talk(reason.unwrap_or_else(|| server_gone(&error))));
                }
            }
        }
    }

    fn hear(&self, piece: &[u8]) -> io::Result<()> {
        let lines = piece.iter().filter(|byte| **byte == b'\n').count();
        self.received_bytes
            .set(self.received_bytes.get() + piece.len() as u64);
        self.answered.set(self.answered.get() + lines as u64);
        self.is_midline.set(piece.last() != Some(&b'\n'));
        self.screen.borrow_mut().show(piece)?;
        self.prompt_if_answered()
    }

    /// Asks for the next line once nothing is owed for the last one.
    fn prompt_if_answered(&self) -> io::Result<()> {
        let all_answered = self.answered.get() >= self.sent.get() && !self.is_midline.get();
        if all_answered && !self.input_ended.get() {
            self.screen.borrow_mut().prompt()?;
        }
        Ok(())
    }

    /// The server has sent all that it will.
    fn judge_end(&self) -> Result<(), Ended> {
        let owed = match self.sent.get().saturating_sub(self.answered.get()) {
            _ if self.is_midline.get() => Some("in the middle of a line".to_owned()),
            0 => None,
            1 => Some("and 1 line is unanswered".to_owned()),
            lines => Some(format!("and {lines} lines are unanswered")),
        };
        let words = match (self.reason.take(), owed) {
            (Some(reason), _) => reason,
            (None, None) if self.input_ended.get() => return Ok(()),
            (None, None) => "the server has closed the connection".to_owned(),
            (None, Some(owed)) => format!("the server has closed the connection, {owed}"),
        };
        Err(Ended::Talk(words))
    }
}

fn server_gone(error: &io::Error) -> String {
    format!("the server has gone: {}", words_of(error))
}

/// The person's side.
impl Talk {
    fn pass_input_on(&self) {
        let passed = self.pass_lines_on();
        self.input_ended.set(true);
        let how = match passed {
            Ok(()) => Shutdown::Write,
            Err(reason) => {
                *self.reason.borrow_mut() = Some(reason);
                Shutdown::Both
            }
        };
        // If this fails the connection is over already, and the listener knows.
        let _ = self.stream.shutdown(how);
        self.watch_over_the_rest();
    }

    /// Until the input ends or says so.
    fn pass_lines_on(&self) -> Result<(), String> {
        let mut input = Input::new().map_err(|error| input_broken(&error))?;
        let mut cutter = Cutter::default();
        self.prompt_if_answered()
            .map_err(|error| output_broken(&error))?;
        let mut piece = vec![0; 16 * 1024];
        loop {
            let count = input
                .read(&mut piece)
                .map_err(|error| input_broken(&error))?;
            cutter.take_in(&piece[..count]);
            while let Some(typed) = cutter.next() {
                if !self.pass_on(typed)? {
                    return Ok(());
                }
            }
            if count == 0 {
                if let Some(typed) = cutter.finish() {
                    self.pass_on(typed)?;
                }
                return Ok(());
            }
        }
    }

    /// False if that was the last one.
    fn pass_on(&self, typed: Typed) -> Result<bool, String> {
        self.screen.borrow_mut().typed();
        match typed {
            Typed::Quit => return Ok(false),
            Typed::Skip => {
                let prompted = self.prompt_if_answered();
                prompted.map_err(|error| output_broken(&error))?;
            }
            Typed::Part(part) => self.send(&part)?,
            Typed::Line(line) => {
                // Before it is sent: the answer may come while the rest of it still goes out.
                self.sent.set(self.sent.get() + 1);
                self.send(&line)?;
            }
        }
        Ok(true)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), String> {
        (&self.stream).write_all(bytes).map_err(|error| {
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                let timeout = humantime::format_duration(self.settings.timeout);
                return format!("the server has taken nothing for {timeout}");
            }
            server_gone(&error)
        })
    }

    /// Ends the conversation when the server neither answers nor ends for the time-out.
    fn watch_over_the_rest(&self) {
        loop {
            let before = self.received_bytes.get();
            thread::sleep(self.settings.timeout);
            if self.received_bytes.get() == before {
                let timeout = humantime::format_duration(self.settings.timeout);
                let words = format!("the server neither answers nor ends: nothing for {timeout}");
                *self.reason.borrow_mut() = Some(words);
                let _ = self.stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

fn input_broken(error: &io::Error) -> String {
    format!("the input cannot be read: {}", words_of(error))
}

/// Standard input without std's buffer: what lies in a buffer does not make a descriptor readable.
struct Input {
    file: File,
    can_wait: bool,
}

impl Input {
    fn new() -> io::Result<Input> {
        let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Regular files are always ready; a kqueue would wait at their end for more.
        let can_wait = !file.metadata()?.is_file();
        Ok(Input { file, can_wait })
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.can_wait
                && let Err(error) = runtime::io::wait_readable(&self.file, None)
            {
                log::debug!("the input cannot be waited for, so it is read at once: {error}");
                self.can_wait = false;
            }
            match self.file.read(piece) {
                // It may be another program's, which has made it non-blocking, and read first.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.can_wait => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}
