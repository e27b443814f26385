//! L4. Channels with many senders and one receiver, under the names of [`std::sync::mpsc`].
//!
//! The ends may be on green threads of one worker or of several, and on plain OS threads: whoever
//! waits is suspended if it is green and blocks otherwise. Errors are std's own types. Every wait
//! is a suspension point, where a kill or time-out may unwind; no message is lost by that.
//!
//! Deliberately not here: how the ends agree (`channel`).

mod channel;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use self::channel::Channel;
use crate::sys::clock::Moment;

/// A channel without bound: sending never waits.
///
/// Mirrors [`std::sync::mpsc::channel`].
///
/// # Examples
///
/// ```
/// use runtime::{sync::mpsc, thread};
///
/// runtime::run(|| {
///     let (sender, receiver) = mpsc::channel();
///     thread::spawn(move || (0..3).for_each(|n| sender.send(n).unwrap()));
///     assert_eq!(receiver.iter().collect::<Vec<_>>(), [0, 1, 2]);
/// });
/// ```
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel::new(None));
    (
        Sender {
            channel: Arc::clone(&channel),
        },
        Receiver {
            channel,
            not_sync: NotSync::default(),
        },
    )
}

/// A channel that holds at most `bound` messages: senders wait for room. With a bound of zero each
/// waits until its message is received.
///
/// Mirrors [`std::sync::mpsc::sync_channel`].
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let channel = Arc::new(Channel::new(Some(bound)));
    (
        SyncSender {
            channel: Arc::clone(&channel),
        },
        Receiver {
            channel,
            not_sync: NotSync::default(),
        },
    )
}

/// Keeps a type from being shared between OS threads, though it may be sent.
type NotSync = std::marker::PhantomData<std::cell::Cell<()>>;

/// The sending end of a [`channel()`].
///
/// Mirrors [`std::sync::mpsc::Sender`].
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

impl<T> Sender<T> {
    /// Sends a message without waiting.
    ///
    /// # Errors
    ///
    /// Gives the message back when the receiver is gone.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.channel.send(message)
    }
}

/// The sending end of a [`sync_channel`].
///
/// Mirrors [`std::sync::mpsc::SyncSender`].
pub struct SyncSender<T> {
    channel: Arc<Channel<T>>,
}

impl<T> SyncSender<T> {
    /// Sends a message, waiting for room.
    ///
    /// # Errors
    ///
    /// Gives the message back when the receiver is gone.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.channel.send(message)
    }

    /// Sends a message if that needs no waiting.
    ///
    /// # Errors
    ///
    /// Gives the message back when there is no room, or the receiver is gone.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.channel.try_send(message)
    }
}

/// The receiving end of a channel.
///
/// Mirrors [`std::sync::mpsc::Receiver`].
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
    not_sync: NotSync,
}

impl<T> Receiver<T> {
    /// Waits for a message.
    ///
    /// # Errors
    ///
    /// When there is none and every sender is gone.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.channel.receive(None).map_err(|_| RecvError)
    }

    /// Waits for a message, but no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// When none came in time, or every sender is gone.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.channel.receive(Moment::after(timeout))
    }

    /// Takes a message that is there.
    ///
    /// # Errors
    ///
    /// When there is none, and whether there may still be one.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.channel.try_receive()
    }

    /// Waits for message after message, until every sender is gone.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { receiver: self }
    }

    /// The messages that are there.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { receiver: self }
    }
}

/// See [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

/// See [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T> {
    receiver: &'a Receiver<T>,
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

/// The messages of a receiver that is used up by them.
#[derive(Debug)]
pub struct IntoIter<T> {
    receiver: Receiver<T>,
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.receiver.recv().ok()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter { receiver: self }
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.add_sender();
        Sender {
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> SyncSender<T> {
        self.channel.add_sender();
        SyncSender {
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.remove_sender();
    }
}

impl<T> Drop for SyncSender<T> {
    fn drop(&mut self) {
        self.channel.remove_sender();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.channel.remove_receiver();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Receiver").finish_non_exhaustive()
    }
}
