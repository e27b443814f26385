//! A thread that sends beside the one that receives, for messages beyond the sockets' buffers.
//!
//! Application on L4. Such messages may not fit the buffers of both sides; a server that answers
//! while it reads would then wait for us to read while we wait for it, so sending and receiving go
//! on side by side. The sender makes its messages itself, and is told how many it may send.
//!
//! Deliberately not here: the books. A message counts as sent when the sender is told of it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::message::Message;
use crate::net::Shutdown;
use crate::thread::{self, JoinHandle, Thread};
use crate::wire::Wire;

#[derive(Debug, Default)]
struct Orders {
    /// Messages below this number may be sent.
    granted: AtomicU64,
    is_over: AtomicBool,
}

/// The receiver's end of it.
pub(crate) struct Sender {
    orders: Arc<Orders>,
    handle: Handle,
}

/// The sender is a thread of the kind that starts it.
enum Handle {
    Green(JoinHandle<io::Result<()>>),
    System(std::thread::JoinHandle<io::Result<()>>),
}

impl Sender {
    /// Starts a thread that sends `message`, number by number, to `stream`.
    ///
    /// # Errors
    ///
    /// If there is no memory for another thread.
    pub(crate) fn start(stream: Arc<impl Wire>, message: Message) -> io::Result<Sender> {
        let orders = Arc::new(Orders::default());
        let theirs = Arc::clone(&orders);
        let action = move || send(&theirs, &*stream, message);
        let handle = if thread::workers() > 0 {
            Handle::Green(thread::Builder::new().spawn(action)?)
        } else {
            Handle::System(std::thread::Builder::new().spawn(action)?)
        };
        Ok(Sender { orders, handle })
    }

    /// Messages below number `n` may be sent.
    pub(crate) fn grant(&self, n: u64) {
        // Relaxed: the number is all that is told.
        self.orders.granted.store(n, Ordering::Relaxed);
        self.unpark();
    }

    /// Waits for the sender to end: what its last call said. If the receiver has failed, the
    /// stream must have been shut down.
    pub(crate) fn end(self) -> io::Result<()> {
        self.orders.is_over.store(true, Ordering::Relaxed);
        self.unpark();
        let result = match self.handle {
            Handle::Green(handle) => handle.join(),
            Handle::System(handle) => handle.join(),
        };
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn unpark(&self) {
        match &self.handle {
            Handle::Green(handle) => Thread::unpark(handle.thread()),
            Handle::System(handle) => handle.thread().unpark(),
        }
    }
}

fn send(orders: &Orders, stream: &impl Wire, mut message: Message) -> io::Result<()> {
    let mut n = 0;
    // Relaxed: parking and unparking order what is done in between.
    while !orders.is_over.load(Ordering::Relaxed) {
        if n >= orders.granted.load(Ordering::Relaxed) {
            thread::park();
            continue;
        }
        message.set(n);
        n += 1;
        if let Err(error) = stream.write_all(message.bytes()) {
            // The receiver would wait for a reply to what has not been sent.
            let _ = stream.shutdown(Shutdown::Both);
            return Err(error);
        }
    }
    Ok(())
}
