//! What an error of accept means: something is wrong with a peer, with this system or with us.
//!
//! When the system is short of descriptors or memory, accept fails and the connection stays in the
//! queue. The listener then stays readable, and a server that simply tried again would spin. So it
//! tries again when one of its connections has ended, which may have freed what was lacking, and at
//! the latest after a pause, because another process may have freed it.
//!
//! Man pages: accept(2) (ERRORS, "Error handling"). Deliberately not here: the waiting, which each
//! model does in its own way.

use log::{debug, warn};
use std::io;
use std::time::{Duration, Instant};

/// How long accepting pauses at most when the system lacks something.
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Shortages closer together than this are one, and logged once.
const EPISODE_GAP: Duration = Duration::from_secs(1);

/// These use the connection up, so that the next accept meets another. Whatever is neither in this
/// list nor in the next is taken for a shortage, so that no error can make the server spin. So is
/// EPERM: accept(2) blames a firewall for it, but what does report it, a sandbox, forbids the call
/// before it takes anybody from the queue.
const OF_THE_PEER: [i32; 9] = [
    libc::ECONNABORTED,
    libc::ECONNRESET,
    libc::EPROTO,
    libc::ENOPROTOOPT,
    libc::ENETDOWN,
    libc::ENETUNREACH,
    libc::EHOSTDOWN,
    libc::EHOSTUNREACH,
    libc::EOPNOTSUPP,
];

const OF_THE_LISTENER: [i32; 5] = [
    libc::EBADF,
    libc::EFAULT,
    libc::EINVAL,
    libc::ENOTSOCK,
    libc::ENOSYS,
];

/// Who is to blame for an error of accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The peer gave up while it was queued, or its network did; Linux reports either in accept.
    /// The next can be accepted at once.
    Peer,
    /// The system lacks something that it may have again later. The connection stays queued.
    Shortage,
    /// The listener itself is broken, and no accept will succeed any more.
    Listener,
}

impl Fault {
    /// Whose fault `error` is.
    pub(crate) fn of(error: &io::Error) -> Fault {
        match error.raw_os_error() {
            Some(code) if OF_THE_PEER.contains(&code) => {
                debug!("a connection was gone before it was accepted: {error}");
                Fault::Peer
            }
            Some(code) if !OF_THE_LISTENER.contains(&code) => Fault::Shortage,
            _ => Fault::Listener,
        }
    }
}

/// Tells the user of shortages, but not of each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shortages {
    last: Option<Instant>,
}

impl Shortages {
    /// Notes that no more than `open` connections can be held, because of `error`.
    pub(crate) fn note(&mut self, open: usize, error: &io::Error) {
        let now = Instant::now();
        let last = self.last.replace(now);
        if last.is_none_or(|last| now.duration_since(last) > EPISODE_GAP) {
            let hint = hint(error);
            warn!(
                "cannot take more than {open} connections: {error}. The next wait until one ends\
                 {hint}"
            );
        }
    }
}

/// Where the limit is that was met, if it has a name.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "; `ulimit -n` tells how many descriptors a process may have",
        Some(libc::ENFILE) => "; `sysctl fs.file-max` tells how many files may be open at all",
        // What clone and fork report.
        Some(libc::EAGAIN) => "; `ulimit -u` tells how many threads and processes a user may have",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept_are_told_apart() {
        // Goal: a peer's fault goes by, a broken listener ends the server, and whatever is unknown
        // cannot make it spin. Method: feeds some of each.
        for (fault, codes) in [
            (
                Fault::Peer,
                [libc::ECONNABORTED, libc::EPROTO, libc::EHOSTUNREACH],
            ),
            (Fault::Shortage, [libc::EMFILE, libc::EPERM, libc::EXDEV]),
            (Fault::Listener, [libc::EBADF, libc::EINVAL, libc::ENOTSOCK]),
        ] {
            for code in codes {
                assert_eq!(Fault::of(&io::Error::from_raw_os_error(code)), fault);
            }
        }
    }

    #[test]
    fn a_limit_is_named() {
        // Goal: a user learns which limit to raise. Method: an error for each, and one without.
        let hint = |code| hint(&io::Error::from_raw_os_error(code));
        assert!(hint(libc::EMFILE).contains("ulimit -n"));
        assert!(hint(libc::ENFILE).contains("file-max"));
        assert!(hint(libc::EAGAIN).contains("ulimit -u"));
        assert_eq!(hint(libc::ENOMEM), "");
    }
}
