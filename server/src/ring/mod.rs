//! io_uring by raw system calls: operations go in, completions come out.
//!
//! Program and kernel share two rings. Into the one the program writes entries that say what to do
//! ("receive from this socket into this memory"); into the other the kernel writes what became of
//! it, whenever that is. One system call, `io_uring_enter`, hands over everything written so far
//! and waits for completions at the same time, so its price is divided by however many operations
//! have gathered.
//!
//! While an operation is under way the kernel uses its memory without asking. So the memory belongs
//! to the ring for that time: a buffer is given away with the operation and comes back with the
//! completion, and whoever uses the ring needs no `unsafe` and cannot do wrong. When the ring is
//! dropped, in a panic too, it cancels what is under way and waits for it; memory that the kernel
//! will not let go of is leaked rather than freed.
//!
//! Each ring is an array with two counters. One side writes entries and then moves the tail, the
//! other reads entries and then moves the head. Each move is a store with Release, each look at the
//! other side's counter a load with Acquire, and so the entries themselves need no care: who sees
//! the tail moved sees the entries before it, and who sees the head moved may overwrite those
//! behind it. The counters run through all 32 bits and wrap; a mask makes places of them.
//!
//! Man pages: io_uring(7), io_uring_setup(2), io_uring_enter(2). Deliberately not here: a kernel
//! thread that polls the ring (it takes a processor for itself), registered files and buffers,
//! operations that complete more than once.

mod kernel;
mod mapping;

use kernel::{CompletionEntry, Parameters, SubmissionEntry};
use log::{debug, error};
use mapping::Mapping;
use socket2::{SockAddr, SockAddrStorage};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem::{self, offset_of};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How many operations can be handed over at once; the rest waits for the next time.
const SUBMISSIONS: u32 = 1024;

/// How many completions have room. More are kept by the kernel until there is some.
const COMPLETIONS: u32 = 4096;

/// How long to wait when the kernel has no memory for another operation, before it is asked again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// How long to wait, at the end, for operations that were cancelled.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The name of an operation whose end interests nobody: a cancellation.
const NOBODY: u64 = u64::MAX;

/// What has become of an operation. `owner` is what was given with it.
#[derive(Debug)]
pub(crate) enum Completion {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Received {
        owner: usize,
        buffer: Vec<u8>,
        result: io::Result<usize>,
    },
    Sent {
        owner: usize,
        buffer: Vec<u8>,
        result: io::Result<usize>,
    },
    Readable(io::Result<()>),
}

/// Names an operation that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name(usize);

/// What the kernel may use until the operation has completed.
#[derive(Debug)]
enum Memory {
    /// One of them, in a vector: to move a box would say that nobody else uses what it holds.
    Accept(Vec<Peer>),
    Receive {
        owner: usize,
        buffer: Vec<u8>,
    },
    Send {
        owner: usize,
        buffer: Vec<u8>,
    },
    Poll,
}

/// Where accept writes who has connected.
#[derive(Debug)]
struct Peer {
    address: SockAddrStorage,
    bytes: libc::socklen_t,
}

/// An io_uring, and the memory of all operations under way.
#[derive(Debug)]
pub(crate) struct Ring {
    fd: OwnedFd,
    /// Both rings lie in one mapping, at the offsets that `layout` tells.
    rings: Mapping,
    /// The submission entries.
    entries: Mapping,
    layout: Parameters,
    /// Those for which the submission ring had no room.
    overflow: VecDeque<SubmissionEntry>,
    /// By name: the memory of what is under way.
    memory: Vec<Option<Memory>>,
    names_free: Vec<usize>,
}

impl Ring {
    /// A ring for the calling thread, which must be the only one to use it.
    ///
    /// # Errors
    ///
    /// If the kernel, or whatever guards it, refuses. The message tells what can be done about it.
    pub(crate) fn new() -> io::Result<Ring> {
        let (fd, layout) = kernel::setup(SUBMISSIONS, COMPLETIONS)?;
        let map = |bytes, offset| {
            Mapping::new(fd.as_fd(), bytes, offset).map_err(|error| kernel::explain(&error))
        };
        let rings = map(layout.rings_bytes(), kernel::OFFSET_RINGS)?;
        let entries = map(layout.entries_bytes(), kernel::OFFSET_ENTRIES)?;
        // The submission ring proper holds indices of entries, so that entries could be handed over
        // in another order than they lie in. Ours are not, so it is written once.
        for index in 0..layout.submissions {
            let offset = layout.submission.array as usize + 4 * index as usize;
            rings.counter(offset).store(index, Ordering::Relaxed);
        }
        Ok(Ring {
            fd,
            rings,
            entries,
            layout,
            overflow: VecDeque::new(),
            memory: Vec::new(),
            names_free: Vec::new(),
        })
    }

    /// Accepts one connection, when there is one.
    pub(crate) fn accept(&mut self, listener: BorrowedFd<'_>) -> Name {
        let address = SockAddrStorage::zeroed();
        let bytes = address.size_of();
        let mut peer = vec![Peer { address, bytes }];
        let place = peer.as_mut_ptr();
        let entry = SubmissionEntry {
            operation: kernel::OP_ACCEPT,
            fd: listener.as_raw_fd(),
            address: place as u64 + offset_of!(Peer, address) as u64,
            offset: place as u64 + offset_of!(Peer, bytes) as u64,
            operation_flags: libc::SOCK_CLOEXEC as u32,
            ..SubmissionEntry::default()
        };
        self.start(entry, Memory::Accept(peer))
    }

    /// Receives into `buffer`, when something has arrived.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, owner: usize, mut buffer: Vec<u8>) {
        let entry = SubmissionEntry {
            operation: kernel::OP_RECV,
            fd: socket.as_raw_fd(),
            address: buffer.as_mut_ptr() as u64,
            count: buffer.len() as u32,
            ..SubmissionEntry::default()
        };
        self.start(entry, Memory::Receive { owner, buffer });
    }

    /// Sends a part of `buffer`, or as much of it as the kernel takes at once.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        owner: usize,
        buffer: Vec<u8>,
        part: Range<usize>,
    ) {
        let bytes = &buffer[part];
        let entry = SubmissionEntry {
            operation: kernel::OP_SEND,
            fd: socket.as_raw_fd(),
            address: bytes.as_ptr() as u64,
            count: bytes.len() as u32,
            operation_flags: libc::MSG_NOSIGNAL as u32,
            ..SubmissionEntry::default()
        };
        self.start(entry, Memory::Send { owner, buffer });
    }

    /// Waits until `fd` is readable, once.
    pub(crate) fn watch(&mut self, fd: BorrowedFd<'_>) -> Name {
        let entry = SubmissionEntry {
            operation: kernel::OP_POLL_ADD,
            fd: fd.as_raw_fd(),
            operation_flags: kernel::poll_mask(libc::POLLIN),
            ..SubmissionEntry::default()
        };
        self.start(entry, Memory::Poll)
    }

    /// Asks for the end of an operation. It completes in any case, perhaps with success.
    pub(crate) fn cancel(&mut self, Name(name): Name) {
        self.push(SubmissionEntry {
            operation: kernel::OP_ASYNC_CANCEL,
            fd: -1,
            address: name as u64,
            name: NOBODY,
            ..SubmissionEntry::default()
        });
    }

    /// Hands over what has been started, and waits until something has completed or `timeout` has
    /// passed.
    ///
    /// # Errors
    ///
    /// If the kernel does not know the ring, which cannot happen.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        loop {
            self.refill();
            let is_last = self.overflow.is_empty();
            let wanted = u32::from(is_last && self.completed() == 0);
            match kernel::enter(self.fd.as_fd(), self.submitted(), wanted, timeout) {
                Ok(()) if is_last => return Ok(()),
                Ok(()) => {}
                Err(error) => match error.raw_os_error() {
                    // The time has passed, or a signal has come.
                    Some(libc::ETIME | libc::EINTR) => return Ok(()),
                    // No memory for an operation, or too many completions that nobody has looked
                    // at. What was not taken lies in the ring and goes with the next call.
                    Some(libc::EAGAIN | libc::EBUSY) => return self.wait_for_relief(&error),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Takes the next completion, if there is one.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        loop {
            if self.completed() == 0 {
                return None;
            }
            let layout = &self.layout.completion;
            let head = self.rings.counter(layout.head as usize);
            let place = head.load(Ordering::Relaxed) & (self.layout.completions - 1);
            let offset = layout.entries as usize + size_of::<CompletionEntry>() * place as usize;
            let entry: CompletionEntry = self.rings.read(offset);
            // Pairs with the kernel's Acquire before it writes another entry to this place.
            head.fetch_add(1, Ordering::Release);
            if entry.name != NOBODY {
                return Some(self.finish(entry));
            }
        }
    }

    /// How many operations are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.memory.len() - self.names_free.len()
    }

    /// Names an operation and writes it into the ring.
    fn start(&mut self, entry: SubmissionEntry, memory: Memory) -> Name {
        let name = self.names_free.pop().unwrap_or_else(|| {
            self.memory.push(None);
            self.memory.len() - 1
        });
        self.memory[name] = Some(memory);
        self.push(SubmissionEntry {
            name: name as u64,
            ..entry
        });
        Name(name)
    }

    /// Gives the memory of an operation back to its owner.
    fn finish(&mut self, entry: CompletionEntry) -> Completion {
        let name = entry.name as usize;
        let memory = self.memory[name].take();
        self.names_free.push(name);
        let result = match entry.result {
            code if code < 0 => Err(io::Error::from_raw_os_error(-code)),
            count => Ok(count as usize),
        };
        match memory.expect("the kernel completes each operation once") {
            Memory::Accept(peers) => {
                Completion::Accepted(result.and_then(|fd| accepted(fd, peers)))
            }
            Memory::Receive { owner, buffer } => Completion::Received {
                owner,
                buffer,
                result,
            },
            Memory::Send { owner, buffer } => Completion::Sent {
                owner,
                buffer,
                result,
            },
            Memory::Poll => Completion::Readable(result.map(drop)),
        }
    }

    /// How many entries the kernel has not taken yet.
    fn submitted(&self) -> u32 {
        let layout = &self.layout.submission;
        // Pairs with the kernel's Release when it has read entries: their places are free.
        let head = self.rings.counter(layout.head as usize);
        let tail = self.rings.counter(layout.tail as usize);
        tail.load(Ordering::Relaxed)
            .wrapping_sub(head.load(Ordering::Acquire))
    }

    /// How many completions wait to be taken.
    fn completed(&self) -> u32 {
        let layout = &self.layout.completion;
        // Pairs with the kernel's Release when it has written entries: they can be read.
        let head = self.rings.counter(layout.head as usize);
        let tail = self.rings.counter(layout.tail as usize);
        tail.load(Ordering::Acquire)
            .wrapping_sub(head.load(Ordering::Relaxed))
    }

    /// Writes an entry into the ring, or remembers it while there is no room.
    fn push(&mut self, entry: SubmissionEntry) {
        if !self.overflow.is_empty() || self.submitted() == self.layout.submissions {
            self.overflow.push_back(entry);
            return;
        }
        let tail = self.rings.counter(self.layout.submission.tail as usize);
        let place = tail.load(Ordering::Relaxed) & (self.layout.submissions - 1);
        let offset = size_of::<SubmissionEntry>() * place as usize;
        self.entries.write(offset, entry);
        // Pairs with the kernel's Acquire: it reads the entry after the tail.
        tail.fetch_add(1, Ordering::Release);
    }

    /// Writes remembered entries into the ring, as many as have room.
    fn refill(&mut self) {
        let room = self.layout.submissions - self.submitted();
        let mut overflow = mem::take(&mut self.overflow);
        let count = overflow.len().min(room as usize);
        overflow.drain(..count).for_each(|entry| self.push(entry));
        self.overflow = overflow;
    }

    /// Waits for a completion, but not long, and hands over nothing.
    fn wait_for_relief(&self, error: &io::Error) -> io::Result<()> {
        debug!("io_uring takes no more operations for now: {error}");
        if self.completed() > 0 {
            return Ok(());
        }
        match kernel::enter(self.fd.as_fd(), 0, 1, Some(SHORTAGE_PAUSE)) {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }
}

impl Drop for Ring {
    /// Ends what is under way, so that its memory can be freed.
    fn drop(&mut self) {
        let under_way = |memory: &[Option<Memory>]| {
            let names = 0..memory.len();
            names.filter(|name| memory[*name].is_some()).collect()
        };
        let names: Vec<usize> = under_way(&self.memory);
        names.into_iter().for_each(|name| self.cancel(Name(name)));
        let begin = Instant::now();
        while self.under_way() > 0 && begin.elapsed() < LAST_WAIT {
            if let Err(error) = self.wait(Some(LAST_WAIT)) {
                error!("operations cannot be waited for: {error}");
                break;
            }
            while self.next().is_some() {}
        }
        // The kernel may write to these for as long as the process lives.
        mem::forget(mem::take(&mut self.memory));
    }
}

/// The connection that accept has made, and its peer.
fn accepted(fd: usize, peers: Vec<Peer>) -> io::Result<(TcpStream, SocketAddr)> {
    // SAFETY: the descriptor is new, so nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let Some(Peer { address, bytes }) = peers.into_iter().next() else {
        unreachable!("an accept has one peer");
    };
    // SAFETY: the kernel has written an address of so many bytes.
    let address = unsafe { SockAddr::new(address, bytes) };
    match address.as_socket() {
        Some(peer) => Ok((TcpStream::from(fd), peer)),
        None => Err(io::Error::other("the peer has no address of the internet")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    /// How long to wait for what must come about.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A ring, or `None` where there is none to be had.
    fn ring() -> Option<Ring> {
        let ring = Ring::new();
        if let Err(error) = &ring {
            println!("skipped: {error}");
        }
        ring.ok()
    }

    /// Waits for the next completion.
    fn next(ring: &mut Ring) -> Completion {
        let begin = Instant::now();
        loop {
            if let Some(completion) = ring.next() {
                return completion;
            }
            assert!(begin.elapsed() < PATIENCE, "nothing completes");
            ring.wait(Some(PATIENCE)).unwrap();
        }
    }

    #[test]
    fn accepts_receives_and_sends() {
        // Goal: each operation does what its name says, and its buffer comes back. Method: one
        // message through a listener, both ways.
        let Some(mut ring) = ring() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        ring.accept(listener.as_fd());
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Completion::Accepted(Ok((stream, peer))) = next(&mut ring) else {
            panic!("nothing was accepted")
        };
        assert_eq!(peer, client.local_addr().unwrap());

        ring.receive(stream.as_fd(), 7, vec![0; 16]);
        client.write_all(b"message").unwrap();
        let completion = next(&mut ring);
        let Completion::Received {
            owner: 7,
            buffer,
            result: Ok(7),
        } = completion
        else {
            panic!("{completion:?}")
        };
        assert_eq!(&buffer[..7], b"message");

        ring.send(stream.as_fd(), 8, buffer, 3..7);
        let completion = next(&mut ring);
        let Completion::Sent {
            owner: 8,
            buffer,
            result: Ok(4),
        } = completion
        else {
            panic!("{completion:?}")
        };
        assert_eq!(buffer.len(), 16);
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!((&answer, ring.under_way()), (b"sage", 0));
    }

    #[test]
    fn errors_arrive_as_such() {
        // Goal: the number of an error survives the ring. Method: receives from what is no socket.
        let Some(mut ring) = ring() else { return };
        let file = std::fs::File::open("/dev/null").unwrap();
        ring.receive(file.as_fd(), 0, vec![0; 1]);
        let Completion::Received {
            result: Err(error), ..
        } = next(&mut ring)
        else {
            panic!("no error")
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
    }

    #[test]
    fn a_wait_ends_with_its_time_out() {
        // Goal: nobody waits for ever who did not ask to. Method: a wait for what never comes.
        let Some(mut ring) = ring() else { return };
        let (silent, _other) = UnixStream::pair().unwrap();
        ring.watch(silent.as_fd());
        ring.wait(Some(Duration::from_millis(1))).unwrap();
        assert!(ring.next().is_none());
        assert_eq!(ring.under_way(), 1);
    }

    #[test]
    fn more_operations_than_the_rings_have_room_for() {
        // Goal: nothing is lost when either ring is full. Method: three times as many operations as
        // have room, started at once, and all completed by one byte.
        const COUNT: usize = 3 * COMPLETIONS as usize;
        let Some(mut ring) = ring() else { return };
        let (watched, mut other) = UnixStream::pair().unwrap();
        for _ in 0..COUNT {
            ring.watch(watched.as_fd());
        }
        ring.wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(ring.under_way(), COUNT);
        other.write_all(b"x").unwrap();
        for _ in 0..COUNT {
            assert!(matches!(next(&mut ring), Completion::Readable(Ok(()))));
        }
        assert_eq!(ring.under_way(), 0);
        assert!(ring.next().is_none());
    }

    #[test]
    fn a_cancelled_operation_completes() {
        // Goal: whoever cancels still gets an answer. Method: cancels an accept that waits.
        let Some(mut ring) = ring() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name = ring.accept(listener.as_fd());
        ring.wait(Some(Duration::ZERO)).unwrap();
        ring.cancel(name);
        let Completion::Accepted(Err(error)) = next(&mut ring) else {
            panic!("it was not cancelled")
        };
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
    }

    #[test]
    fn dropping_the_ring_ends_what_is_under_way() {
        // Goal: no memory is freed that the kernel might write to. Method: drops a ring amid a
        // receive, sends afterwards, and finds the bytes untouched in the socket.
        let Some(mut ring) = ring() else { return };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        ring.receive(stream.as_fd(), 0, vec![0; 16]);
        ring.wait(Some(Duration::ZERO)).unwrap();
        let begin = Instant::now();
        drop(ring);
        assert!(
            begin.elapsed() < LAST_WAIT,
            "the cancellation had no effect"
        );
        client.write_all(b"for nobody").unwrap();
        let mut bytes = [0; 10];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"for nobody");
    }
}
