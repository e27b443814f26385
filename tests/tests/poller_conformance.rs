//! The written contract of `runtime::poller::Poller`, as tests: one body for every poller.
//!
//! Each function below takes a poller and is run for all four kinds; those that this system lacks
//! say so. Waits for something that must come have no timeout (a watchdog ends them), and waits
//! for what must not come only look, because all the causes here act at once.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use runtime::poller::{self, Events, Interest, Kind, Poller, Readiness, Token, Trigger};
use tests::watchdog::Watchdog;

const EDGE: Trigger = Trigger::Edge;
const LEVEL: Trigger = Trigger::Level;
const LOOK: Option<Duration> = Some(Duration::ZERO);
const READABLE: Interest = Interest::READABLE;
const WRITABLE: Interest = Interest::WRITABLE;

/// Makes a module of tests for each kind of poller.
macro_rules! on_every_poller {
    ($($test:ident),* $(,)?) => {
        on_every_poller!(@module epoll Epoll $($test)*);
        on_every_poller!(@module kqueue Kqueue $($test)*);
        on_every_poller!(@module poll Poll $($test)*);
        on_every_poller!(@module select Select $($test)*);
    };
    (@module $module:ident $kind:ident $($test:ident)*) => {
        mod $module {
            $(#[test]
            fn $test() {
                super::run(runtime::poller::Kind::$kind, super::$test);
            })*
        }
    };
}

on_every_poller!(
    says_what_it_is,
    level_reports_as_long_as_it_lasts,
    edge_reports_what_is_new,
    reports_only_what_is_asked,
    an_empty_interest_is_silent,
    modify_changes_token_and_interest,
    hang_up_wakes_readers,
    half_close_leaves_the_other_direction,
    half_close_does_not_bother_writers,
    failures_wake_either_direction,
    a_refused_connection_wakes_the_writer,
    priority_data_is_told_apart,
    refuses_what_it_cannot_do,
    what_is_removed_ends_no_wait,
    remove_after_close_is_fine,
    a_reused_number_is_a_new_descriptor,
    a_forgotten_close_harms_nobody_else,
    regular_files,
    very_many_descriptors,
    numbers_beyond_the_limit,
    more_events_than_the_buffer_holds,
    an_always_ready_descriptor_starves_nobody,
    churn_keeps_every_descriptor_apart,
    timeouts_are_never_early,
    timeouts_beyond_all_measure,
    signals_neither_end_nor_lengthen_a_wait,
    another_thread_ends_the_wait,
    closes_its_own_descriptor_on_exec,
);

/// Descriptor numbers belong to the whole process, and some tests are about particular ones.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(kind: Kind, test: fn(&mut dyn Poller)) {
    if !Kind::available().contains(&kind) {
        println!("skipped: this system has no {kind}");
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _watchdog = Watchdog::new(Duration::from_secs(60));
    let mut poller = poller::open(kind).unwrap();
    test(&mut *poller);
}

/// Two connected sockets that do not block.
fn pair() -> (UnixStream, UnixStream) {
    let (left, right) = UnixStream::pair().unwrap();
    left.set_nonblocking(true).unwrap();
    right.set_nonblocking(true).unwrap();
    (left, right)
}

/// Two ends of one TCP connection.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// A duplicate of `fd` with the number `number` or the next free one.
fn duplicate_from(fd: &impl AsRawFd, number: RawFd) -> OwnedFd {
    // SAFETY: the command only makes a new descriptor.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    assert!(copy >= number, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// Raises this process's limit of descriptors as far as it goes; false if that is too low for a
/// test with thousands, which says so.
fn has_thousands_of_descriptors() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    assert_eq!(result, 0);
    limit.rlim_cur = limit.rlim_max.min(20_000);
    // SAFETY: the kernel reads `limit`.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(result, 0);
    let is_enough = limit.rlim_cur >= 6_000;
    if !is_enough {
        println!(
            "skipped: `ulimit -Hn` is {}, and this test needs 6000",
            limit.rlim_max
        );
    }
    is_enough
}

/// One wait: who is ready for what. Several events of one descriptor are one here.
fn wait(poller: &mut dyn Poller, timeout: Option<Duration>) -> BTreeMap<u64, Readiness> {
    let mut events = Events::new();
    poller.wait(&mut events, timeout).unwrap();
    let mut ready = BTreeMap::new();
    for event in &events {
        assert!(!event.readiness.is_empty(), "an event must say something");
        let known = ready.entry(event.token.0).or_insert(Readiness::EMPTY);
        *known = *known | event.readiness;
    }
    ready
}

/// Waits, for as long as it takes, until `token` is ready for all of `wanted`.
fn wait_for(poller: &mut dyn Poller, token: u64, wanted: Readiness) -> Readiness {
    let mut seen = Readiness::EMPTY;
    while !seen.contains(wanted) {
        seen = seen | wait(poller, None).get(&token).copied().unwrap_or_default();
    }
    seen
}

fn add(poller: &mut dyn Poller, fd: &impl AsRawFd, token: u64, interest: Interest) {
    poller
        .add(fd.as_raw_fd(), Token(token), interest, LEVEL)
        .unwrap();
}

fn drain(mut stream: &UnixStream) {
    while stream.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
}

fn says_what_it_is(poller: &mut dyn Poller) {
    // Goal: kinds, names and capabilities agree. Method: there and back again.
    let kind = poller.kind();
    assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
    let capabilities = poller.capabilities();
    assert_eq!(
        capabilities.edge_triggered,
        matches!(kind, Kind::Epoll | Kind::Kqueue)
    );
    assert_eq!(
        capabilities.descriptor_limit.is_some(),
        kind == Kind::Select
    );
    assert!(!format!("{poller:?}").is_empty());
    let error = "epol".parse::<Kind>().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    for kind in Kind::available() {
        assert!(
            error.to_string().contains(kind.name()),
            "{error} must list {kind}"
        );
    }
}

fn level_reports_as_long_as_it_lasts(poller: &mut dyn Poller) {
    // Goal: level-triggering, and readiness from before the registration. Method: look three
    // times while a byte lies there, and again when it is gone.
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    add(poller, &near, 7, READABLE);
    for _ in 0..3 {
        let ready = wait(poller, None);
        assert_eq!(
            ready.into_iter().collect::<Vec<_>>(),
            [(7, Readiness::READABLE)]
        );
    }
    drain(&near);
    assert!(wait(poller, LOOK).is_empty());
}

fn edge_reports_what_is_new(poller: &mut dyn Poller) {
    // Goal: edge-triggering: at registration, at each arrival, at a modify, and not otherwise.
    // Method: look twice after each of these, without ever reading.
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    far.write_all(b"x").unwrap();
    let result = poller.add(fd, Token(1), Interest::BOTH, EDGE);
    if !poller.capabilities().edge_triggered {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(
            error.to_string().contains("edge_triggered"),
            "{error} must name the capability"
        );
        add(poller, &near, 1, READABLE);
        let error = poller.modify(fd, Token(2), READABLE, EDGE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(
            wait(poller, LOOK).contains_key(&1),
            "a refused change must change nothing"
        );
        return;
    }
    result.unwrap();
    let both = Readiness::READABLE | Readiness::WRITABLE;
    assert_eq!(wait(poller, LOOK).get(&1), Some(&both));
    assert!(wait(poller, LOOK).is_empty());
    far.write_all(b"y").unwrap();
    assert!(wait(poller, LOOK)[&1].is_readable());
    assert!(wait(poller, LOOK).is_empty());
    poller.modify(fd, Token(2), Interest::BOTH, EDGE).unwrap();
    assert_eq!(wait(poller, LOOK).get(&2), Some(&both));
    assert!(wait(poller, LOOK).is_empty());
    poller.modify(fd, Token(3), READABLE, LEVEL).unwrap();
    assert!(wait(poller, LOOK)[&3].is_readable() && wait(poller, LOOK)[&3].is_readable());
}

fn reports_only_what_is_asked(poller: &mut dyn Poller) {
    // Goal: interests are kept apart. Method: a socket that can be written but not read, asked
    // for either, and both, and then filled.
    let (near, mut far) = pair();
    add(poller, &near, 1, READABLE);
    assert!(wait(poller, LOOK).is_empty());
    poller
        .modify(near.as_raw_fd(), Token(1), WRITABLE, LEVEL)
        .unwrap();
    assert_eq!(wait(poller, LOOK)[&1], Readiness::WRITABLE);
    far.write_all(b"x").unwrap();
    assert_eq!(wait(poller, LOOK)[&1], Readiness::WRITABLE);
    poller
        .modify(near.as_raw_fd(), Token(1), Interest::BOTH, LEVEL)
        .unwrap();
    assert_eq!(
        wait(poller, LOOK)[&1],
        Readiness::READABLE | Readiness::WRITABLE
    );
    while (&near).write(&[0; 4096]).is_ok() {}
    assert_eq!(wait(poller, LOOK)[&1], Readiness::READABLE);
}

fn an_empty_interest_is_silent(poller: &mut dyn Poller) {
    // Goal: an empty interest silences everything, the hang-up too, and can be ended. Method:
    // silence, hang up, look; wake, look; silence, remove, add, look.
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    far.write_all(b"x").unwrap();
    add(poller, &near, 1, READABLE);
    poller.modify(fd, Token(1), Interest::EMPTY, LEVEL).unwrap();
    poller.modify(fd, Token(1), Interest::EMPTY, LEVEL).unwrap();
    drop(far);
    assert!(wait(poller, LOOK).is_empty());
    let error = poller.add(fd, Token(1), READABLE, LEVEL).unwrap_err();
    assert_eq!(
        error.kind(),
        io::ErrorKind::AlreadyExists,
        "it is still known"
    );
    poller.modify(fd, Token(2), READABLE, LEVEL).unwrap();
    assert!(wait(poller, LOOK)[&2].is_readable());
    poller.modify(fd, Token(2), Interest::EMPTY, LEVEL).unwrap();
    poller.remove(fd).unwrap();
    let error = poller.modify(fd, Token(2), READABLE, LEVEL).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    add(poller, &near, 3, READABLE);
    assert!(wait(poller, LOOK)[&3].is_readable());
}

fn modify_changes_token_and_interest(poller: &mut dyn Poller) {
    // Goal: a change takes effect on what lies there already. Method: two descriptors that swap
    // their tokens, extreme ones.
    let (one, mut one_far) = pair();
    let (two, _two_far) = pair();
    one_far.write_all(b"x").unwrap();
    add(poller, &one, u64::MAX, READABLE);
    add(poller, &two, 0, WRITABLE);
    assert_eq!(wait(poller, LOOK)[&u64::MAX], Readiness::READABLE);
    poller
        .modify(one.as_raw_fd(), Token(0), READABLE, LEVEL)
        .unwrap();
    poller
        .modify(two.as_raw_fd(), Token(u64::MAX), WRITABLE, LEVEL)
        .unwrap();
    let ready = wait(poller, LOOK);
    assert_eq!(
        (ready[&0], ready[&u64::MAX]),
        (Readiness::READABLE, Readiness::WRITABLE)
    );
}

fn hang_up_wakes_readers(poller: &mut dyn Poller) {
    // Goal: a peer that is gone wakes whoever waits for it. Method: drop the other end, of a
    // socket and of a pipe in both directions.
    let (near, far) = pair();
    add(poller, &near, 1, READABLE);
    assert!(wait(poller, LOOK).is_empty());
    drop(far);
    let readiness = wait(poller, None)[&1];
    assert!(readiness.is_readable());
    assert_eq!(readiness.is_closed(), poller.kind() != Kind::Select);
    poller.remove(near.as_raw_fd()).unwrap();

    let (reader, writer) = io::pipe().unwrap();
    add(poller, &reader, 2, READABLE);
    drop(writer);
    assert!(wait(poller, None)[&2].is_readable());
    poller.remove(reader.as_raw_fd()).unwrap();

    let (reader, mut writer) = io::pipe().unwrap();
    add(poller, &writer, 3, WRITABLE);
    drop(reader);
    assert!(wait(poller, None)[&3].is_writable());
    assert_eq!(
        writer.write(b"x").unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
}

fn half_close_leaves_the_other_direction(poller: &mut dyn Poller) {
    // Goal: the end of the peer's sending is readable, closed where that can be told, no error,
    // and writing goes on. Method: shut down one direction of a TCP connection.
    let (near, far) = tcp_pair();
    add(poller, &near, 1, READABLE);
    far.shutdown(Shutdown::Write).unwrap();
    let readiness = wait_for(poller, 1, Readiness::READABLE);
    assert_eq!(readiness.is_closed(), poller.capabilities().half_close);
    assert!(!readiness.is_error() && !readiness.is_writable());
    assert_eq!((&near).read(&mut [0; 8]).unwrap(), 0);
    (&near).write_all(b"still here").unwrap();
    let mut buffer = [0; 10];
    (&far).read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still here");
}

fn half_close_does_not_bother_writers(poller: &mut dyn Poller) {
    // Goal: a writer that waits for room is not woken again and again by the peer's half-close.
    // Method: fill a connection, half-close the other end, look.
    let (near, far) = pair();
    while (&near).write(&[0; 4096]).is_ok() {}
    add(poller, &near, 1, WRITABLE);
    assert!(wait(poller, LOOK).is_empty());
    far.shutdown(Shutdown::Write).unwrap();
    assert!(wait(poller, LOOK).is_empty());
}

fn failures_wake_either_direction(poller: &mut dyn Poller) {
    // Goal: a reset connection wakes a reader and a writer. Method: close with unread data in
    // the receive buffer, which makes TCP send a reset.
    for interest in [READABLE, WRITABLE, Interest::BOTH] {
        let (near, far) = tcp_pair();
        (&near).write_all(b"never read").unwrap();
        far.peek(&mut [0; 1]).unwrap();
        add(poller, &near, 1, READABLE);
        drop(far);
        wait_for(poller, 1, Readiness::READABLE);
        poller
            .modify(near.as_raw_fd(), Token(2), interest, LEVEL)
            .unwrap();
        let readiness = wait(poller, None)[&2];
        assert!(!interest.contains(READABLE) || readiness.is_readable());
        assert!(!interest.contains(WRITABLE) || readiness.is_writable());
        if matches!(poller.kind(), Kind::Epoll | Kind::Poll) {
            assert!(readiness.is_error() && readiness.is_readable() && readiness.is_writable());
        }
        let error = (&near).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        poller.remove(near.as_raw_fd()).unwrap();
    }
}

fn a_refused_connection_wakes_the_writer(poller: &mut dyn Poller) {
    // Goal: an attempt to connect that fails is reported as writable. Method: connect, without
    // blocking, to a port that has just been given up.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert!(fd >= 0);
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { TcpStream::from_raw_fd(fd) };
    socket.set_nonblocking(true).unwrap();
    // SAFETY: zeros are a valid address structure.
    let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = port.to_be();
    name.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: `name` is a socket address of the given length.
    unsafe { libc::connect(fd, (&raw const name).cast(), length) };
    add(poller, &socket, 1, WRITABLE);
    assert!(wait(poller, None)[&1].is_writable());
    let error = socket.take_error().unwrap().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

fn priority_data_is_told_apart(poller: &mut dyn Poller) {
    // Goal: urgent data is reported to those who ask for it, as what it is, and ordinary data is
    // not. Method: a byte of each on a TCP connection.
    let (near, far) = tcp_pair();
    let result = poller.add(near.as_raw_fd(), Token(1), Interest::PRIORITY, LEVEL);
    if !poller.capabilities().priority {
        assert!(result.unwrap_err().to_string().contains("priority"));
        return;
    }
    result.unwrap();
    (&far).write_all(b"o").unwrap();
    near.peek(&mut [0; 1]).unwrap();
    assert!(wait(poller, LOOK).is_empty());
    // SAFETY: the pointer is to one byte.
    let sent = unsafe { libc::send(far.as_raw_fd(), b"u".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    let readiness = wait(poller, None)[&1];
    assert!(readiness.is_priority() && !readiness.is_readable());
}

fn refuses_what_it_cannot_do(poller: &mut dyn Poller) {
    // Goal: every refusal of the contract, by its kind, and that it leaves no trace. Method: one
    // of each, and a look at the end.
    let (near, mut far) = pair();
    let fd = near.as_raw_fd();
    far.write_all(b"x").unwrap();
    let kind_of = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(
        kind_of(poller.modify(fd, Token(1), READABLE, LEVEL)),
        io::ErrorKind::NotFound
    );
    poller.remove(fd).unwrap();
    let empty = poller.add(fd, Token(1), Interest::EMPTY, LEVEL);
    assert_eq!(kind_of(empty), io::ErrorKind::InvalidInput);
    let limit = poller.capabilities().descriptor_limit.unwrap_or(RawFd::MAX);
    for closed in [-1, RawFd::MIN, (limit - 1).min(1_000_000)] {
        let error = poller.add(closed, Token(1), READABLE, LEVEL).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "{error}");
        assert!(poller.modify(closed, Token(1), READABLE, LEVEL).is_err());
        poller.remove(closed).unwrap();
    }
    add(poller, &near, 1, READABLE);
    let twice = poller.add(fd, Token(2), WRITABLE, LEVEL);
    assert_eq!(kind_of(twice), io::ErrorKind::AlreadyExists);
    let ready = wait(poller, LOOK);
    assert_eq!(
        ready.into_iter().collect::<Vec<_>>(),
        [(1, Readiness::READABLE)]
    );
    poller.remove(fd).unwrap();
    assert!(wait(poller, LOOK).is_empty());
}

fn what_is_removed_ends_no_wait(poller: &mut dyn Poller) {
    // Goal: a removed descriptor does not even make a wait return for nothing, nor fail. Method:
    // remove one that is ready, between two that are not, first open and then closed, and wait.
    let (ready, mut far) = pair();
    let (idle, _idle_far) = pair();
    far.write_all(b"x").unwrap();
    let low = duplicate_from(&ready, 100);
    let high = duplicate_from(&idle, 200);
    add(poller, &idle, 1, READABLE);
    add(poller, &low, 2, READABLE);
    add(poller, &high, 3, READABLE);
    poller.remove(low.as_raw_fd()).unwrap();
    let timeout = Duration::from_millis(2);
    for _ in 0..2 {
        let begin = Instant::now();
        assert!(wait(poller, Some(timeout)).is_empty());
        assert!(begin.elapsed() >= timeout);
        // SAFETY: `low` is ours; its number now belongs to the idle file.
        unsafe { libc::dup2(idle.as_raw_fd(), low.as_raw_fd()) };
    }
}

fn remove_after_close_is_fine(poller: &mut dyn Poller) {
    // Goal: a descriptor may be removed when it is closed already, silenced or not, and its
    // readiness goes with it. Method: close one that is ready, remove, look.
    for silent in [false, true] {
        let (near, mut far) = pair();
        far.write_all(b"x").unwrap();
        let fd = near.as_raw_fd();
        add(poller, &near, 1, READABLE);
        if silent {
            poller.modify(fd, Token(1), Interest::EMPTY, LEVEL).unwrap();
        }
        drop(near);
        poller.remove(fd).unwrap();
        poller.remove(fd).unwrap();
        assert!(wait(poller, LOOK).is_empty());
    }
}

fn a_reused_number_is_a_new_descriptor(poller: &mut dyn Poller) {
    // Goal: a descriptor does not inherit from the one that had its number. Method: put another
    // file under the number of a ready one (dup2 closes the old), first after the removal, then
    // before it.
    for remove_first in [true, false] {
        let (old, mut old_far) = pair();
        old_far.write_all(b"x").unwrap();
        let (new, mut new_far) = pair();
        let fd = old.as_raw_fd();
        add(poller, &old, 1, READABLE);
        if remove_first {
            poller.remove(fd).unwrap();
        }
        // SAFETY: both descriptors are ours; `old` owns the file that is under its number now.
        assert_eq!(unsafe { libc::dup2(new.as_raw_fd(), fd) }, fd);
        if !remove_first {
            poller.remove(fd).unwrap();
        }
        poller.add(fd, Token(2), READABLE, LEVEL).unwrap();
        assert!(wait(poller, LOOK).is_empty());
        new_far.write_all(b"y").unwrap();
        assert_eq!(wait(poller, LOOK).into_keys().collect::<Vec<_>>(), [2]);
        poller.remove(fd).unwrap();
    }
}

fn a_forgotten_close_harms_nobody_else(poller: &mut dyn Poller) {
    // Goal: a descriptor that was closed and not removed is silent or fails, alone. Method: one
    // such beside a ready one; remove it at last.
    let (lost, _lost_far) = pair();
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    // Out of the reach of whatever else takes the lowest free number meanwhile.
    let lost = duplicate_from(&lost, 200);
    let fd = lost.as_raw_fd();
    add(poller, &lost, 1, READABLE);
    add(poller, &near, 2, READABLE);
    drop(lost);
    let mut seen = BTreeMap::new();
    for _ in 0..4 {
        seen.extend(wait(poller, None));
    }
    assert!(seen[&2].is_readable());
    if matches!(poller.kind(), Kind::Poll | Kind::Select) {
        assert!(seen[&1].is_error() && seen[&1].is_readable() && seen[&1].is_writable());
    }
    poller.remove(fd).unwrap();
    assert_eq!(wait(poller, LOOK).into_keys().collect::<Vec<_>>(), [2]);
}

fn regular_files(poller: &mut dyn Poller) {
    // Goal: files of the disk are refused by epoll, without a trace, and always ready elsewhere.
    // Method: this test's own program.
    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    let result = poller.add(file.as_raw_fd(), Token(1), READABLE, LEVEL);
    if poller.kind() == Kind::Epoll {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        poller.remove(file.as_raw_fd()).unwrap();
        assert!(wait(poller, LOOK).is_empty());
    } else {
        result.unwrap();
        assert!(wait(poller, None)[&1].is_readable());
    }
}

fn very_many_descriptors(poller: &mut dyn Poller) {
    // Goal: more descriptors than the batch has room for, each reported once. Method: duplicates
    // of one ready socket, all collected by waits with a buffer of the default size.
    if !has_thousands_of_descriptors() {
        return;
    }
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let has_limit = poller.capabilities().descriptor_limit.is_some();
    let wanted = if has_limit { 900 } else { 3_000 };
    let copies: Vec<OwnedFd> = (0..wanted)
        .map(|_| near.try_clone().unwrap().into())
        .collect();
    for (token, fd) in (0..).zip(&copies) {
        add(poller, fd, token, READABLE);
    }
    let mut seen = BTreeMap::new();
    for _ in 0..copies.len().div_ceil(Events::CAPACITY_DEFAULT) {
        seen.extend(wait(poller, LOOK));
    }
    assert_eq!(seen.len(), copies.len());
    drain(&near);
    assert!(wait(poller, LOOK).is_empty());
    for fd in copies {
        poller.remove(fd.as_raw_fd()).unwrap();
    }
}

fn numbers_beyond_the_limit(poller: &mut dyn Poller) {
    // Goal: a descriptor number above 1024 works, or is refused with the limit and a remedy.
    // Method: the last number that select has room for, the first that it has not, and more.
    if !has_thousands_of_descriptors() {
        return;
    }
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let limit = poller.capabilities().descriptor_limit;
    for number in [1_024, 5_000] {
        let high = duplicate_from(&near, number);
        let result = poller.add(high.as_raw_fd(), Token(1), READABLE, LEVEL);
        if let Some(limit) = limit {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            for part in [&limit.to_string(), "FD_SETSIZE", "RUNTIME_POLLER=poll"] {
                assert!(error.to_string().contains(part), "{error} must say {part}");
            }
            assert!(
                poller
                    .modify(high.as_raw_fd(), Token(1), READABLE, LEVEL)
                    .is_err()
            );
            poller.remove(high.as_raw_fd()).unwrap();
        } else {
            result.unwrap();
            assert!(wait(poller, LOOK)[&1].is_readable());
            poller.remove(high.as_raw_fd()).unwrap();
        }
    }
    let last = duplicate_from(&near, 1_023);
    assert_eq!(last.as_raw_fd(), 1_023);
    add(poller, &last, 2, READABLE);
    assert!(wait(poller, LOOK)[&2].is_readable());
}

fn more_events_than_the_buffer_holds(poller: &mut dyn Poller) {
    // Goal: what does not fit comes with the next wait, and first. Method: ten ready descriptors
    // that stay ready, and a buffer for three: four waits see all, whatever came before.
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    let copies: Vec<UnixStream> = (0..10).map(|_| near.try_clone().unwrap()).collect();
    for (token, copy) in copies.iter().enumerate() {
        add(poller, copy, token as u64, READABLE);
    }
    let mut events = Events::with_capacity(3);
    for _ in 0..5 {
        let mut seen = BTreeMap::new();
        for _ in 0..4 {
            poller.wait(&mut events, None).unwrap();
            assert_eq!((events.len(), events.capacity()), (3, 3));
            seen.extend(events.iter().map(|event| (event.token.0, ())));
        }
        assert_eq!(seen.len(), 10);
    }
}

fn an_always_ready_descriptor_starves_nobody(poller: &mut dyn Poller) {
    // Goal: fairness with the smallest buffer. Method: three descriptors that are always ready,
    // one that becomes ready, and one that never is; whatever their order.
    let pairs: Vec<_> = (0..5).map(|_| pair()).collect();
    for (token, (near, _)) in pairs.iter().enumerate() {
        add(poller, near, token as u64, READABLE);
    }
    for busy in [0, 2, 4] {
        (&pairs[busy].1).write_all(b"x").unwrap();
    }
    let mut events = Events::with_capacity(1);
    for _ in 0..20 {
        poller.wait(&mut events, None).unwrap();
    }
    (&pairs[3].1).write_all(b"y").unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        poller.wait(&mut events, None).unwrap();
        seen.extend(events.iter().map(|event| event.token.0));
    }
    assert!(seen.contains(&3) && !seen.contains(&1), "{seen:?}");
}

fn churn_keeps_every_descriptor_apart(poller: &mut dyn Poller) {
    // Goal: the tables stay true through any history. Method: a random one (the seed is printed)
    // of additions, changes, removals and writes, held against a map after each step.
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let pairs: Vec<_> = (0..24).map(|_| pair()).collect();
    let mut is_ready = [false; 24];
    let mut model: BTreeMap<usize, (u64, bool)> = BTreeMap::new();
    for step in 0..4_000 {
        let index = random(24) as usize;
        let fd = pairs[index].0.as_raw_fd();
        let is_known = model.contains_key(&index);
        match random(5) {
            0 => {
                let result = poller.add(fd, Token(step), READABLE, LEVEL);
                assert_eq!(result.is_ok(), !is_known);
                model.entry(index).or_insert((step, true));
            }
            1 => {
                let interest = [READABLE, Interest::EMPTY][random(2) as usize];
                let result = poller.modify(fd, Token(step), interest, LEVEL);
                assert_eq!(result.is_ok(), is_known);
                model
                    .entry(index)
                    .and_modify(|entry| *entry = (step, !interest.is_empty()));
            }
            2 => {
                poller.remove(fd).unwrap();
                model.remove(&index);
            }
            3 => {
                (&pairs[index].1).write_all(b"x").unwrap();
                is_ready[index] = true;
            }
            _ => {
                drain(&pairs[index].0);
                is_ready[index] = false;
            }
        }
        let expected: Vec<u64> = {
            let ready = model
                .iter()
                .filter(|(index, entry)| is_ready[**index] && entry.1);
            let mut tokens: Vec<u64> = ready.map(|(_, entry)| entry.0).collect();
            tokens.sort_unstable();
            tokens
        };
        assert_eq!(
            wait(poller, LOOK).into_keys().collect::<Vec<_>>(),
            expected,
            "step {step}"
        );
    }
}

fn timeouts_are_never_early(poller: &mut dyn Poller) {
    // Goal: an empty answer means that the time is up. Method: odd timeouts, with nothing
    // registered and with something silent.
    let (near, _far) = pair();
    for _ in 0..2 {
        for nanoseconds in [0, 1, 999, 1_001, 500_000, 999_999, 1_000_001, 7_654_321] {
            let timeout = Duration::from_nanos(nanoseconds);
            let begin = Instant::now();
            assert!(wait(poller, Some(timeout)).is_empty());
            assert!(
                begin.elapsed() >= timeout,
                "{:?} < {timeout:?}",
                begin.elapsed()
            );
        }
        if poller.remove(near.as_raw_fd()).is_ok() {
            add(poller, &near, 1, READABLE);
        }
    }
}

fn timeouts_beyond_all_measure(poller: &mut dyn Poller) {
    // Goal: no timeout is refused or overflows. Method: the greatest, with something ready.
    let (near, mut far) = pair();
    far.write_all(b"x").unwrap();
    add(poller, &near, 1, READABLE);
    for timeout in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_nanos(u64::MAX),
    ] {
        assert!(wait(poller, Some(timeout))[&1].is_readable());
    }
}

/// How many of the signals below have arrived.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_signal(_number: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

fn signals_neither_end_nor_lengthen_a_wait(poller: &mut dyn Poller) {
    // Goal: EINTR never comes out, and a wait under fire ends neither early nor never. Method:
    // another thread sends signals to the waiting one until it reports that it is through.
    // SAFETY: zeros are a valid structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count_signal as *const () as usize; // Without SA_RESTART.
    // SAFETY: the handler only counts, and the previous action is not asked for.
    let result = unsafe { libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) };
    assert_eq!(result, 0);

    let (near, mut far) = pair();
    let (endless, through) = (AtomicBool::new(false), AtomicBool::new(false));
    let (started, has_started) = mpsc::channel();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let (silent, _far) = pair();
            add(poller, &silent, 2, Interest::BOTH);
            while (&silent).write(&[0; 4096]).is_ok() {}
            // SAFETY: the call has no conditions.
            started.send(unsafe { libc::pthread_self() }).unwrap();
            // Many short waits, so that for some a signal is what ends them at their deadline.
            let short = std::iter::repeat_n(Duration::from_micros(60), 500);
            for timeout in short.chain([Duration::from_millis(30)]) {
                let begin = Instant::now();
                assert!(wait(poller, Some(timeout)).is_empty());
                assert!(begin.elapsed() >= timeout);
            }
            add(poller, &near, 1, READABLE);
            endless.store(true, Ordering::Relaxed);
            assert!(wait(poller, None)[&1].is_readable());
            through.store(true, Ordering::Relaxed);
        });
        let target = has_started.recv().unwrap();
        let mut shots_left = 1_000;
        while !through.load(Ordering::Relaxed) && !waiting.is_finished() {
            // SAFETY: `waiting` keeps the thread from being joined, so its name stays valid.
            unsafe { libc::pthread_kill(target, libc::SIGUSR2) };
            thread::yield_now();
            // The wait without a timeout has its share of them before it is ended.
            if endless.load(Ordering::Relaxed) {
                shots_left -= 1;
                if shots_left == 0 {
                    far.write_all(b"x").unwrap();
                }
            }
        }
    });
    assert!(SIGNALS.load(Ordering::Relaxed) > 0);
}

fn another_thread_ends_the_wait(poller: &mut dyn Poller) {
    // Goal: a wait without a timeout ends when another thread causes something. Method: two
    // threads that answer each other a thousand times, this one by way of the poller.
    let (near, far) = pair();
    far.set_nonblocking(false).unwrap();
    add(poller, &near, 1, READABLE);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0];
            for _ in 0..1_000 {
                (&far).write_all(b"x").unwrap();
                (&far).read_exact(&mut byte).unwrap();
            }
        });
        for _ in 0..1_000 {
            assert!(wait(poller, None)[&1].is_readable());
            assert_eq!((&near).read(&mut [0; 8]).unwrap(), 1);
            (&near).write_all(b"y").unwrap();
        }
    });
}

fn closes_its_own_descriptor_on_exec(_poller: &mut dyn Poller) {
    // Goal: pollers do not leak into programs that are started. Method: all registries of this
    // process are asked for their flags, on the system that shows them.
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        println!("skipped: this system does not show the descriptors of a process");
        return;
    };
    for entry in descriptors.flatten() {
        let is_registry = fs::read_link(entry.path())
            .is_ok_and(|name| name.to_string_lossy().contains("eventpoll"));
        let number: RawFd = entry.file_name().to_string_lossy().parse().unwrap();
        // SAFETY: the command only reads a flag.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        assert!(!is_registry || flags < 0 || flags & libc::FD_CLOEXEC != 0);
    }
}
