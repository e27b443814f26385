//! A terminal of our own (pty(7)) with a program on it that can be typed to and looked at.
//!
//! Test support for `tests/client_chat.rs`. What is typed is not echoed, so that all that is seen
//! is the program's.

use std::fs::File;
use std::io::{Error, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use crate::run::DEADLINE;

pub(crate) struct Terminal {
    master: File,
    /// The program's side, until a program is there.
    slave: Option<OwnedFd>,
    seen: Arc<(Mutex<String>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    pub(crate) fn open() -> Terminal {
        let (mut master, mut slave) = (-1, -1);
        let (name, settings, size) = (
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        // SAFETY: both numbers are locals to write to, and the others may be null.
        let result = unsafe { libc::openpty(&mut master, &mut slave, name, settings, size) };
        assert_eq!(result, 0, "openpty: {}", Error::last_os_error());
        // SAFETY: the call has just opened it, and nobody else owns it.
        let master = unsafe { File::from_raw_fd(master) };
        // SAFETY: as above.
        let slave_fd = unsafe { OwnedFd::from_raw_fd(slave) };
        no_echo(slave);
        Terminal {
            master,
            slave: Some(slave_fd),
            seen: Arc::default(),
            reader: None,
        }
    }

    /// Starts a program whose controlling terminal this is; its errors are piped.
    pub(crate) fn start(&mut self, command: &mut Command) -> Child {
        let slave = self.slave.take().expect("one program a terminal");
        let stdin = slave.try_clone().unwrap();
        let command = command.stdin(stdin).stdout(slave).stderr(Stdio::piped());
        let take_terminal = || {
            // SAFETY: it takes nothing and is async-signal-safe.
            if unsafe { libc::setsid() } < 0 {
                return Err(Error::last_os_error());
            }
            // SAFETY: standard input is the terminal; the request takes a number and no pointer.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY as _, 0) } {
                0 => Ok(()),
                _ => Err(Error::last_os_error()),
            }
        };
        // SAFETY: the closure makes two system calls, both async-signal-safe.
        unsafe { command.pre_exec(take_terminal) };
        let child = command.spawn().unwrap();
        // The command holds its copies of the program's side: the end comes when the last is gone.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.read();
        child
    }

    fn read(&mut self) {
        let mut master = self.master.try_clone().unwrap();
        let seen = Arc::clone(&self.seen);
        self.reader = Some(thread::spawn(move || {
            let mut all = Vec::new();
            let mut piece = [0; 4096];
            // The end is an error here (EIO): nobody has the other side open.
            while let Ok(count @ 1..) = master.read(&mut piece) {
                all.extend_from_slice(&piece[..count]);
                *seen.0.lock().unwrap() = String::from_utf8_lossy(&all).into_owned();
                seen.1.notify_all();
            }
        }));
    }

    pub(crate) fn write(&mut self, typed: &[u8]) {
        self.master.write_all(typed).unwrap();
    }

    /// Waits until what is seen ends with `text`.
    pub(crate) fn wait_for(&self, text: &str) {
        let seen = self.seen.0.lock().unwrap();
        let waits = |seen: &mut String| !seen.ends_with(text);
        let (seen, result) = self
            .seen
            .1
            .wait_timeout_while(seen, DEADLINE, waits)
            .unwrap();
        assert!(!result.timed_out(), "{text:?} never came: {seen:?}");
    }

    /// All that was seen, once the program has ended.
    pub(crate) fn seen(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.seen.0.lock().unwrap().clone()
    }
}

fn no_echo(fd: i32) {
    let mut settings = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the descriptor is open, and the pointer is to a local of the right type.
    let got = unsafe { libc::tcgetattr(fd, settings.as_mut_ptr()) };
    assert_eq!(got, 0, "tcgetattr: {}", Error::last_os_error());
    // SAFETY: the call above has filled it.
    let mut settings = unsafe { settings.assume_init() };
    settings.c_lflag &= !libc::ECHO;
    // SAFETY: the descriptor is open, and the pointer is to a local of the right type.
    let set = unsafe { libc::tcsetattr(fd, libc::TCSANOW, &settings) };
    assert_eq!(set, 0, "tcsetattr: {}", Error::last_os_error());
}
