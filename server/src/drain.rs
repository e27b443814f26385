//! A graceful stop: which connections may go on, for how long, and how they are ended.
//!
//! An echo server knows no messages, only bytes, so "finish what you have begun" can only mean:
//! whatever has been sent is answered. But the bytes that a peer sent before the stop may still be
//! on their way, and nobody can tell them from those it will send after. Hence three steps, as many
//! as are needed:
//!
//! 1. For a short grace everything goes on as before. What was under way arrives and is answered.
//! 2. Then the reading side of every socket is shut down. A read still gives the bytes that have
//!    arrived, and where it would have waited for more it reports the end. So each green thread
//!    answers what is there, believes that the peer has finished, and ends in the ordinary way: an
//!    idle connection at once, one with a backlog when it has worked through it (see `farewell`).
//!    The code that echoes knows nothing of this.
//! 3. Who still has answers to write when the drain time-out has passed has a peer that does not
//!    read. It is cut off.
//!
//! A peer sees the end of the stream after a whole answer in step 2, and anywhere in step 3. What
//! it sends after that is answered with a reset.
//!
//! Other kernels than Linux throw away in step 2 what has arrived and not been read. There the
//! grace is all that a connection has.
//!
//! Man pages: shutdown(2), tcp(7). Deliberately not here: the accept loop, which has ended before.

use crate::service::{Phase, Service};
use log::{info, warn};
use runtime::net::Shutdown;
use std::time::{Duration, Instant};

/// Time for bytes that are under way, also between continents.
const GRACE: Duration = Duration::from_millis(200);

/// Time for the connections that were cut off to notice it and close their books.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Sees all connections out, which takes `timeout` and the last words at most.
pub(crate) fn drain(service: &Service, timeout: Duration) {
    if service.admission.open() == 0 {
        return;
    }
    let begin = Instant::now();
    info!(
        "{} connections may finish for {timeout:?}",
        service.admission.open()
    );
    if service.wait_until_empty(begin, timeout.min(GRACE)) {
        return;
    }
    info!(
        "no more is read: {} connections answer what has arrived",
        service.admission.open()
    );
    service.shut_down(Shutdown::Read, Phase::Finishing);
    if service.wait_until_empty(begin, timeout) {
        return;
    }
    warn!(
        "{} connections are cut off after {timeout:?}",
        service.admission.open()
    );
    service.shut_down(Shutdown::Both, Phase::CutOff);
    service.wait_until_empty(Instant::now(), LAST_WORDS);
}
