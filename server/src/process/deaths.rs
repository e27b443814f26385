//! Which children have ended, and how: they are waited for, so that none stays a zombie.
//!
//! SIGCHLD says that something has happened to a child, and its handler writes that to a pipe, so
//! that a parent can wait for it beside its sockets. It does not say to how many: a signal that
//! comes while one like it is pending is lost. So all who have ended are waited for each time,
//! until there is none left.
//!
//! Man pages: waitpid(2), signal(7), signal-safety(7). Deliberately not here: what an end means.

use crate::process::fork::Pid;
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level::pipe;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Tells of children that have ended. Readable when there may be one.
#[derive(Debug)]
pub(crate) struct Deaths {
    told: UnixStream,
}

impl Deaths {
    /// Children that end from now on are told of.
    ///
    /// # Errors
    ///
    /// If there is no pipe to be had, or the handler cannot be set up.
    pub(crate) fn watch() -> io::Result<Deaths> {
        let (told, handler) = UnixStream::pair()?;
        told.set_nonblocking(true)?;
        pipe::register(SIGCHLD, handler)?;
        Ok(Deaths { told })
    }

    /// Waits for every child that has ended, and for none that has not.
    ///
    /// # Errors
    ///
    /// None that is known; a parent could not go on without.
    pub(crate) fn take(&self) -> io::Result<Vec<(Pid, ExitStatus)>> {
        // The pipe first: who ends after this makes it readable again.
        self.forget_what_was_told()?;
        let mut ended = Vec::new();
        while let Some(end) = wait_for_any()? {
            ended.push(end);
        }
        Ok(ended)
    }

    fn forget_what_was_told(&self) -> io::Result<()> {
        let mut bytes = [0; 64];
        loop {
            match (&self.told).read(&mut bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Deaths {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }
}

/// One child that has ended, if there is any. From here on its number may become another's.
fn wait_for_any() -> io::Result<Option<(Pid, ExitStatus)>> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int, to `status`.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::ECHILD) => return Ok(None),
                    Some(libc::EINTR) => {}
                    _ => return Err(error),
                }
            }
            pid => return Ok(Some((pid, ExitStatus::from_raw(status)))),
        }
    }
}
