//! Why a connection ended: the same words and the same rules in every model.
//!
//! Deliberately not here: who counts it (`summary`), and the steps of a stop (`drain`).

use crate::drain::Phase;
use std::fmt;
use std::io::{self, ErrorKind};

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// There was no memory for whatever was to serve it, or no thread or process until the end.
    NeverStarted,
    /// What served it panicked, or was unwound with the end of the process.
    Unwound,
    /// The peer had sent its last byte, and has every answer.
    Finished,
    /// It was told to finish, and has.
    Drained,
    /// It was told to finish, and had not when the time was over.
    CutOff,
    /// Nothing came or went for the idle time-out.
    Idle,
    Failed(io::Error),
}

impl Ending {
    /// What it means that echoing came to `result` in this phase of the server.
    pub(crate) fn of(phase: Phase, result: io::Result<()>) -> Ending {
        match (phase, result) {
            (Phase::Serving, Ok(())) => Ending::Finished,
            (Phase::Finishing, Ok(())) => Ending::Drained,
            (Phase::CutOff, _) => Ending::CutOff,
            (_, Err(error)) if is_time_out(&error) => Ending::Idle,
            (_, Err(error)) => Ending::Failed(error),
        }
    }
}

/// Whether it is our time-out that passed. The kernel's own, when a peer has vanished, has a
/// number.
fn is_time_out(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || (error.kind() == ErrorKind::TimedOut && error.raw_os_error().is_none())
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Ending::NeverStarted => "there was nothing to serve it with",
            Ending::Unwound => "what served it was unwound",
            Ending::Finished => "the peer had finished",
            Ending::Drained => "the server is stopping",
            Ending::CutOff => "the drain time-out passed",
            Ending::Idle => "it was idle",
            Ending::Failed(error) => return error.fmt(formatter),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_means_something_else_in_each_phase() {
        // Goal: nobody is blamed for what the server did itself. Method: each phase with an end,
        // with our time-out and with the kernel's.
        let ours = || Err(io::Error::from(ErrorKind::WouldBlock));
        let kernels = || Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
        let of = Ending::of;
        assert!(matches!(of(Phase::Serving, Ok(())), Ending::Finished));
        assert!(matches!(of(Phase::Finishing, Ok(())), Ending::Drained));
        assert!(matches!(of(Phase::CutOff, Ok(())), Ending::CutOff));
        assert!(matches!(of(Phase::CutOff, kernels()), Ending::CutOff));
        assert!(matches!(of(Phase::Serving, ours()), Ending::Idle));
        assert!(matches!(of(Phase::Serving, kernels()), Ending::Failed(_)));
    }
}
