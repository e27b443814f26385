//! What event loops have in common: everything but the way in which they wait.
//!
//! An event loop is one OS thread that never waits for one connection: it asks the kernel which
//! sockets are ready, does for each what can be done at once, and asks again. So every connection
//! has to be left in the middle of what it was doing, and taken up there later. That state, which
//! elsewhere lies on the stack of a thread, is a [`Connection`] here.
//!
//! A round of a loop is the same in each of them. What is in capitals is its own part:
//!
//! 1. WAIT, [`Service::next_timeout`] at most, for the sockets as each [`Interest`] says.
//! 2. [`Service::tick`] tells who is due because time has passed.
//! 3. READ from and WRITE to each connection that is ready or due, once. [`Service::settle`] then
//!    says what to wait for next, or that the connection is over, and [`Service::end`] closes it.
//! 4. ACCEPT as long as [`Service::may_accept`]; [`Service::welcome`] makes it a connection.
//! 5. When a stop is requested: accept those who wait in the queue, close the listener, and call
//!    [`Service::finish`]. The loop goes on until [`Service::is_over`].
//!
//! Nobody starves: a round does one read and one write for each connection, and a bounded number
//! of accepts.
//!
//! A connection is known by its descriptor, as it is to the kernel. Nothing here is shared with
//! another thread, so nothing is locked, and nothing is allocated for a message.
//!
//! Man pages: fcntl(2) (O_NONBLOCK), recv(2), send(2). Deliberately not here: the wait (see
//! `models`).

mod connection;
mod idle;
#[cfg(target_os = "linux")]
mod lending;
mod limits;
mod service;
mod steps;

use std::time::Duration;

pub(crate) use connection::{Connection, Interest};
#[cfg(target_os = "linux")]
pub(crate) use lending::Task;
pub(crate) use service::{Next, Service};

/// How many connections are accepted in one round at most: those who are there already are not to
/// wait for a crowd at the door.
pub(crate) const ACCEPTS_A_ROUND: i32 = 64;

/// What poll(2) and epoll_wait(2) take for a time-out: whole milliseconds, and -1 for none.
pub(crate) fn timeout_ms(timeout: Option<Duration>) -> i32 {
    // Rounded up: too early a return would only lead to another wait.
    timeout.map_or(-1, |timeout| {
        let ms = timeout.as_nanos().div_ceil(1_000_000);
        i32::try_from(ms).unwrap_or(i32::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_is_never_cut_short() {
        // Goal: a wait lasts until the deadline. Method: fractions, none at all, and the longest.
        assert_eq!(timeout_ms(None), -1);
        assert_eq!(timeout_ms(Some(Duration::ZERO)), 0);
        assert_eq!(timeout_ms(Some(Duration::from_nanos(1))), 1);
        assert_eq!(timeout_ms(Some(Duration::from_micros(1001))), 2);
        assert_eq!(timeout_ms(Some(Duration::MAX)), i32::MAX);
    }
}
