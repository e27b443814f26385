//! A connection whose buffer is lent out: to an operation that reads into it, or sends from it,
//! while the loop does something else.
//!
//! A connection has one buffer, so it has one operation under way at a time: it receives, sends
//! until everything is sent, and receives again. That is also what keeps a peer that does not read
//! from filling our memory.
//!
//! Deliberately not here: the operations (see `models::aio`).

use crate::ready::Connection;
use std::mem;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

/// What a connection has to do next, and the buffer to do it with.
#[derive(Debug)]
pub(crate) enum Task {
    Receive(Vec<u8>),
    /// Send this part of the buffer.
    Send(Vec<u8>, Range<usize>),
}

impl Connection {
    /// Lends out the buffer for what is to be done next. `None` if that is nothing, or if it is
    /// lent out already.
    pub(crate) fn next_task(&mut self) -> Option<Task> {
        let wants = self.wants();
        if self.is_lent() {
            None
        } else if wants.write {
            Some(Task::Send(
                mem::take(&mut self.buffer),
                self.begin..self.end,
            ))
        } else if wants.read {
            Some(Task::Receive(mem::take(&mut self.buffer)))
        } else {
            None
        }
    }

    /// Takes the buffer back with what was received into it, and gives back that part. It is in the
    /// output queue already.
    pub(crate) fn received(&mut self, buffer: Vec<u8>, count: usize) -> &mut [u8] {
        self.buffer = buffer;
        self.take_in(count)
    }

    /// Takes the buffer back, of which so much was sent.
    pub(crate) fn sent(&mut self, buffer: Vec<u8>, count: usize) {
        self.buffer = buffer;
        self.take_out(count);
    }

    /// Takes the buffer back from an operation that has failed.
    pub(crate) fn take_back(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// Whether an operation has the buffer.
    pub(crate) fn is_lent(&self) -> bool {
        // There is no connection without a buffer.
        self.buffer.is_empty()
    }

    /// Makes an operation that is under way complete, so that the connection can be ended.
    pub(crate) fn recall(&mut self) {
        self.is_leaving = true;
        self.shut_down(Shutdown::Both);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
