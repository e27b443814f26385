//! A graceful stop: which connections may go on, for how long, and how they are ended.
//!
//! An echo server knows no messages, only bytes, so "finish what you have begun" can only mean:
//! whatever has been sent is answered. But the bytes that a peer sent before the stop may still be
//! on their way, and nobody can tell them from those it will send after. Hence, in every model, the
//! same steps, as many as are needed:
//!
//! 1. Nobody is accepted any more, except those who had connected already and wait in the queue:
//!    all for whom there is room, and where connections are served in turn the others after them.
//! 2. For a short grace everything goes on as before. What was under way arrives and is answered.
//! 3. Then the reading side of every socket is shut down. A read still gives the bytes that have
//!    arrived, and where it would have waited for more it reports the end. So whatever serves the
//!    connection answers what is there, believes that the peer has finished, and ends in the
//!    ordinary way: an idle connection at once, one with a backlog when it has worked through it
//!    (see `farewell`). The code that echoes knows nothing of this.
//! 4. Who still has answers to write when the drain time-out has passed has a peer that does not
//!    read. It is cut off.
//!
//! A peer sees the end of the stream after a whole answer in step 3, and anywhere in step 4. What
//! it sends after that is answered with a reset.
//!
//! Other kernels than Linux throw away in step 3 what has arrived and not been read. There the
//! grace is all that a connection has.
//!
//! Man pages: shutdown(2), tcp(7). Deliberately not here: how a model waits for its connections in
//! each step (`green::drain` and its siblings).

use std::time::Duration;

/// Time for bytes that are under way, also between continents.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// Time for the connections that were cut off to notice it and close their books.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// How far a graceful stop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Serving,
    /// Sockets are shut for reading: the end of a stream need not be the peer's.
    Finishing,
    /// Sockets are shut altogether: an error need not be the peer's.
    CutOff,
}
