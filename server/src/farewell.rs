//! When a connection may end while the server stops: not before its peer can have all it is owed.
//!
//! A stop shuts a socket for reading (see `drain`), after which a read finds an end as soon as
//! nothing more has arrived. To close it there and then could lose answers: while the
//! peer's window is full they lie in our kernel, and if the peer, too, has more to send, its next
//! segment meets a closed socket, which answers with a reset and throws away what it still had to
//! send (RFC 9293, 3.6.1).
//!
//! So a connection with unsent answers is looked at again a little later, and everything that has
//! arrived by then is echoed as before. Once they are on their way the peer gets a moment to pass
//! on what its own kernel had held back, and when that brings nothing new either, the connection
//! ends. For a peer that only ever waits for its answer none of this takes time: there is nothing
//! unsent.
//!
//! Man pages: tcp(7) (SIOCOUTQNSD is described in the kernel's sources only). Deliberately not
//! here: the waiting itself, which each model does in its own way, and the drain time-out, which
//! ends this in any case.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How often a connection that waits looks again: what it waits for is a human being or a network.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Time for what the peer's kernel has held back: while we did not read it may have had to repeat
/// itself, and it waits twice as long after each attempt.
const QUIET: Duration = Duration::from_secs(2);

/// What one connection has seen of its own backlog since the server began to stop.
#[derive(Debug, Default)]
pub(crate) struct Farewell {
    had_backlog: bool,
    /// Since when nothing has come, and how much had come by then.
    quiet: Option<(Instant, u64)>,
}

impl Farewell {
    /// Decides, when there is nothing to read, whether it is worth looking again after
    /// [`LOOK_EVERY`]. `bytes_in` is how much the connection has read so far.
    pub(crate) fn worth_waiting(&mut self, socket: impl AsFd, bytes_in: u64) -> bool {
        if has_unsent_bytes(socket) {
            self.had_backlog = true;
            self.quiet = None;
        } else if !self.had_backlog || self.is_quiet_for_long(bytes_in) {
            return false;
        }
        true
    }

    fn is_quiet_for_long(&mut self, bytes_in: u64) -> bool {
        match self.quiet {
            Some((since, then)) if then == bytes_in => since.elapsed() >= QUIET,
            _ => {
                self.quiet = Some((Instant::now(), bytes_in));
                false
            }
        }
    }
}

/// Whether the kernel holds bytes that it has not even sent once, for want of room at the peer.
#[cfg(target_os = "linux")]
fn has_unsent_bytes(socket: impl AsFd) -> bool {
    use std::os::fd::AsRawFd;
    let mut count: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // C libraries do not agree on the type of a request.
    let request = libc::SIOCOUTQNSD as _;
    // SAFETY: this request writes one int, to `count`, and `socket` keeps the descriptor open.
    let result = unsafe { libc::ioctl(fd, request, &mut count) };
    result == 0 && count > 0
}

/// Other kernels do not tell, and have dropped unread bytes already: see `drain`.
#[cfg(not(target_os = "linux"))]
fn has_unsent_bytes(_socket: impl AsFd) -> bool {
    false
}
