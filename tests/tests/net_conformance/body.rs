//! What sockets promise, written once: the surrounding module says whose `net` and `thread`.
//!
//! Nothing here knows whether it runs over std or over the runtime. Steps are ordered by bytes on
//! the sockets and by joins, never by time. Deliberately not here: anything std does not promise.

#![allow(
    clippy::useless_conversion,
    reason = "over std both types of a conversion are the same"
)]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "references, too, name addresses"
)]

use std::io::{self, BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::net::{self, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use super::thread;

const LOOPBACKS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

/// A time-out that is meant to pass.
const SHORT: Duration = Duration::from_millis(10);

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen();
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// An address that refuses connections as long as the descriptor is kept: a socket has it but
/// does not listen, so that no other test can get the port meanwhile.
fn deserted(loopback: &str) -> (OwnedFd, SocketAddr) {
    let (v4, v6, length);
    let (family, place): (i32, *const libc::sockaddr) = match loopback.parse().unwrap() {
        SocketAddr::V4(_) => {
            // SAFETY: zeros are an address: no port, and no IP yet.
            let mut any: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            any.sin_family = libc::AF_INET as libc::sa_family_t;
            any.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
            (v4, length) = (any, size_of_val(&any));
            (libc::AF_INET, (&raw const v4).cast())
        }
        SocketAddr::V6(_) => {
            // SAFETY: zeros are an address: no port, and no IP yet.
            let mut any: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            any.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            any.sin6_addr.s6_addr[15] = 1;
            (v6, length) = (any, size_of_val(&any));
            (libc::AF_INET6, (&raw const v6).cast())
        }
    };
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM, 0) };
    assert!(fd >= 0);
    // SAFETY: the descriptor was made just now and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the kernel reads `length` bytes of an address that outlives the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), place, length as libc::socklen_t) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    let bound = TcpListener::from(fd.try_clone().unwrap());
    let address = bound.local_addr().unwrap();
    (OwnedFd::from(bound), address)
}

/// Makes an attempt that fails if another test gets a port that was free a moment ago; so often
/// in a row that does not happen.
fn unless_unlucky(mut attempt: impl FnMut() -> io::Result<()>) {
    let results: Vec<_> = (0..10)
        .map(|_| attempt())
        .take_while(|r| r.is_err())
        .collect();
    assert!(results.len() < 10, "{results:?}");
}

/// Bytes of which no two stretches are alike, so that loss and disorder show.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[track_caller]
fn assert_kind<T: std::fmt::Debug>(result: io::Result<T>, kind: ErrorKind) -> io::Error {
    let error = result.expect_err("an error was expected");
    assert_eq!(error.kind(), kind, "{error:?}");
    error
}

fn set_option<T>(fd: BorrowedFd<'_>, level: i32, name: i32, value: T) {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads the value's size from a value that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn flag(fd: BorrowedFd<'_>, command: i32, flag: i32) -> bool {
    // SAFETY: the command takes no argument.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), command) };
    assert!(flags >= 0, "{}", io::Error::last_os_error());
    flags & flag != 0
}

fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    flag(fd, libc::F_GETFL, libc::O_NONBLOCK)
}

fn is_closed_on_exec(fd: BorrowedFd<'_>) -> bool {
    flag(fd, libc::F_GETFD, libc::FD_CLOEXEC)
}

/// Makes closing `stream` a reset instead of an orderly end.
fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(stream.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, linger);
}

/// Writes until an error comes: how many bytes went in before it. A full socket may find some more
/// room for a while, so the first refusal is not the last word.
fn until_error(mut write: impl FnMut() -> io::Result<usize>) -> (usize, io::Error) {
    let mut total = 0;
    loop {
        match write() {
            Ok(count) => total += count,
            Err(error) => return (total, error),
        }
    }
}

/// Fills `stream`, whose peer does not read, until no byte more goes in; how many did.
fn fill(mut stream: &TcpStream) -> usize {
    stream.set_nonblocking(true).unwrap();
    let chunk = [7; 65536];
    let mut total = 0;
    loop {
        match stream.write(&chunk) {
            Ok(count) => total += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    stream.set_nonblocking(false).unwrap();
    total
}

pub(crate) fn addresses_match_at_both_ends() {
    // Goal: who is who. Method: compare the four addresses, over IPv4 and IPv6.
    for loopback in LOOPBACKS {
        let listener = TcpListener::bind(loopback).unwrap();
        let address = listener.local_addr().unwrap();
        assert_ne!(address.port(), 0);
        let client = TcpStream::connect(address).unwrap();
        let (server, from) = listener.accept().unwrap();
        assert_eq!(client.peer_addr().unwrap(), address);
        assert_eq!(server.local_addr().unwrap(), address);
        assert_eq!(client.local_addr().unwrap(), from);
        assert_eq!(server.peer_addr().unwrap(), from);
        assert_eq!(client.local_addr().unwrap().ip(), address.ip());
    }
}

pub(crate) fn bytes_go_both_ways() {
    // Goal: an exchange, over IPv4 and IPv6. Method: an echoing peer, asked three times.
    for loopback in LOOPBACKS {
        let listener = TcpListener::bind(loopback).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 5];
            while stream.read_exact(&mut bytes).is_ok() {
                stream.write_all(&bytes).unwrap();
            }
        });
        let mut client = TcpStream::connect(address).unwrap();
        for word in [b"eins.", b"zwei.", b"drei."] {
            client.write_all(word).unwrap();
            client.flush().unwrap();
            let mut answer = [0; 5];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, word);
        }
        drop(client);
        server.join().unwrap();
    }
}

pub(crate) fn references_read_and_write() {
    // Goal: `Read` and `Write` for `&TcpStream`. Method: use shared handles only.
    let (client, server) = pair();
    (&client).write_all(b"shared").unwrap();
    let mut bytes = [0; 6];
    (&server).read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"shared");
    (&server).flush().unwrap();
    let buffers = [IoSlice::new(b"vec"), IoSlice::new(b"tor")];
    assert_eq!((&server).write_vectored(&buffers).unwrap(), 6);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    assert_eq!((&client).read_vectored(&mut buffers).unwrap(), 6);
    assert_eq!(&bytes, b"vector");
}

pub(crate) fn the_end_is_read_again_and_again() {
    // Goal: the end of the stream stays. Method: read, peek and read vectored behind it.
    let (mut client, mut server) = pair();
    client.write_all(b"x").unwrap();
    drop(client);
    let mut bytes = [0; 8];
    assert_eq!(server.read(&mut bytes).unwrap(), 1);
    for _ in 0..3 {
        assert_eq!(server.read(&mut bytes).unwrap(), 0);
        assert_eq!(server.peek(&mut bytes).unwrap(), 0);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        assert_eq!(server.read_vectored(&mut buffers).unwrap(), 0);
    }
}

pub(crate) fn bytes_before_the_end_all_arrive() {
    // Goal: an end right behind bytes hides none of them and is not waited for. Method: a reader
    // that already waits when both come, with a buffer that is larger than what comes.
    for length in [1, 100, 1000, 4096] {
        let (mut client, mut server) = pair();
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            server.read_to_end(&mut bytes).unwrap();
            bytes
        });
        thread::yield_now();
        client.write_all(&pattern(length)).unwrap();
        drop(client);
        assert_eq!(reader.join().unwrap(), pattern(length));
    }
}

pub(crate) fn the_provided_methods_work() {
    // Goal: std's readers and writers on top. Method: several of them on one stream.
    let (mut client, server) = pair();
    let writer = thread::spawn(move || {
        writeln!(client, "line {}", 1).unwrap();
        client.write_all(b"line 2\n\n0123456789").unwrap();
        io::copy(&mut &pattern(100_000)[..], &mut client).unwrap();
        client.write_all("äöü".as_bytes()).unwrap();
    });
    let mut server = BufReader::with_capacity(16, server);
    let mut line = String::new();
    server.read_line(&mut line).unwrap();
    assert_eq!(line, "line 1\n");
    let rest: Vec<String> = server
        .by_ref()
        .lines()
        .take(2)
        .map(|l| l.unwrap())
        .collect();
    assert_eq!(rest, ["line 2", ""]);
    let mut digits = Vec::new();
    server.by_ref().take(10).read_to_end(&mut digits).unwrap();
    assert_eq!(digits, b"0123456789");
    let mut large = vec![0; 100_000];
    server.read_exact(&mut large).unwrap();
    assert!(large == pattern(100_000));
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "äöü");
    writer.join().unwrap();
    let mut one = [0];
    assert_kind(server.read_exact(&mut one), ErrorKind::UnexpectedEof);
}

pub(crate) fn vectors_keep_their_order() {
    // Goal: several buffers in one call. Method: empty ones among them, each way.
    let (mut client, mut server) = pair();
    let buffers = [&b""[..], b"ab", b"", b"cde", b"f"].map(IoSlice::new);
    assert_eq!(client.write_vectored(&buffers).unwrap(), 6);
    drop(client);
    let (mut one, mut two, mut none, mut ten) = ([0; 1], [0; 2], [0; 0], [0; 10]);
    let mut buffers = [
        IoSliceMut::new(&mut one),
        IoSliceMut::new(&mut none),
        IoSliceMut::new(&mut two),
        IoSliceMut::new(&mut ten),
    ];
    assert_eq!(server.read_vectored(&mut buffers).unwrap(), 6);
    assert_eq!((&one, &two, &ten[..4]), (b"a", b"bc", &b"def\0"[..]));
}

pub(crate) fn more_buffers_than_a_call_takes() {
    // Goal: a long vector is cut, not refused, and a call waits until what it took is sent.
    // Method: 3000 buffers of 1000 bytes to a reader that only starts afterwards or meanwhile.
    let (mut client, mut server) = pair();
    let bytes = pattern(3_000_000);
    let reader = thread::spawn(move || {
        let mut chunks = vec![[0; 1000]; 3000];
        let mut buffers: Vec<IoSliceMut<'_>> = chunks
            .iter_mut()
            .map(|chunk| IoSliceMut::new(chunk))
            .collect();
        let mut buffers = &mut buffers[..];
        while !buffers.is_empty() {
            let count = server.read_vectored(buffers).unwrap();
            assert_ne!(count, 0);
            IoSliceMut::advance_slices(&mut buffers, count);
        }
        chunks.concat()
    });
    let mut buffers: Vec<IoSlice<'_>> = bytes.chunks(1000).map(IoSlice::new).collect();
    let mut buffers = &mut buffers[..];
    while !buffers.is_empty() {
        let count = client.write_vectored(buffers).unwrap();
        assert_eq!(count, buffers.len().min(1024) * 1000);
        IoSlice::advance_slices(&mut buffers, count);
    }
    assert!(reader.join().unwrap() == bytes);
}

pub(crate) fn a_blocking_write_takes_everything() {
    // Goal: as a blocking `send` does, one write hands over its whole buffer, however large.
    // Method: four megabytes in one call, to a reader of small pieces.
    let (mut client, mut server) = pair();
    let bytes = pattern(4 << 20);
    let expected = bytes.clone();
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        let mut piece = [0; 1999];
        loop {
            match server.read(&mut piece).unwrap() {
                0 => return received == expected,
                count => received.extend_from_slice(&piece[..count]),
            }
            thread::yield_now();
        }
    });
    assert_eq!(client.write(&bytes).unwrap(), bytes.len());
    drop(client);
    assert!(reader.join().unwrap());
}

pub(crate) fn nothing_is_read_into_nothing() {
    // Goal: transfers of no bytes. Method: both ways, with bytes there to be had; they stay.
    let (mut client, mut server) = pair();
    assert_eq!(client.write(&[]).unwrap(), 0);
    assert_eq!(client.write_vectored(&[]).unwrap(), 0);
    assert_eq!(client.write_vectored(&[IoSlice::new(&[])]).unwrap(), 0);
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    assert_eq!(server.peek(&mut byte).unwrap(), 1);
    assert_eq!(server.read(&mut []).unwrap(), 0);
    assert_eq!(server.peek(&mut []).unwrap(), 0);
    assert_eq!(server.read_vectored(&mut []).unwrap(), 0);
    assert_eq!(server.read(&mut byte).unwrap(), 1);
    assert_eq!(&byte, b"x");
}

pub(crate) fn peeked_bytes_stay() {
    // Goal: peek waits like a read and takes nothing. Method: peek first, twice, then read.
    let (mut client, mut server) = pair();
    let writer = thread::spawn(move || {
        client.write_all(b"peek").unwrap();
        client
    });
    let mut bytes = [0; 10];
    assert!(server.peek(&mut bytes).unwrap() > 0);
    let client = writer.join().unwrap();
    assert_eq!(server.peek(&mut bytes[..2]).unwrap(), 2);
    assert_eq!(&bytes[..2], b"pe");
    let mut all = [0; 4];
    server.read_exact(&mut all).unwrap();
    assert_eq!(&all, b"peek");
    drop(client);
    assert_eq!(server.peek(&mut bytes).unwrap(), 0);
}

pub(crate) fn half_a_connection_goes_on() {
    // Goal: the end of one direction leaves the other. Method: ask, end, and be answered.
    let (mut client, mut server) = pair();
    let answering = thread::spawn(move || {
        let mut question = String::new();
        server.read_to_string(&mut question).unwrap();
        server
            .write_all(question.to_uppercase().as_bytes())
            .unwrap();
    });
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_kind(client.write(b"more"), ErrorKind::BrokenPipe);
    let buffers = [IoSlice::new(b"more")];
    assert_kind(client.write_vectored(&buffers), ErrorKind::BrokenPipe);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "QUESTION");
    answering.join().unwrap();
}

pub(crate) fn shutting_both_down_ends_both() {
    // Goal: Shutdown::Both and Read, here and at the peer. Method: use what has ended.
    let (mut client, mut server) = pair();
    server.shutdown(Shutdown::Read).unwrap();
    assert_eq!(server.read(&mut [0; 4]).unwrap(), 0);
    client.shutdown(Shutdown::Both).unwrap();
    assert_eq!(client.read(&mut [0; 4]).unwrap(), 0);
    assert_kind(client.write(b"x"), ErrorKind::BrokenPipe);
    assert_eq!(server.read(&mut [0; 4]).unwrap(), 0);
    drop(server);
    let (listener, _) = listen();
    // A listener's descriptor behind a stream's type: connected to nobody.
    let unconnected = TcpStream::from(OwnedFd::from(listener));
    assert_kind(unconnected.peer_addr(), ErrorKind::NotConnected);
}

pub(crate) fn a_socket_without_a_peer_says_so() {
    // Goal: errors of a socket that never connected. Method: make one by hand.
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert!(fd >= 0);
    // SAFETY: the descriptor was made just now and is given away here.
    let mut stream = unsafe { TcpStream::from_raw_fd(fd) };
    assert_kind(stream.peer_addr(), ErrorKind::NotConnected);
    assert_kind(stream.read(&mut [0]), ErrorKind::NotConnected);
    assert_kind(stream.peek(&mut [0]), ErrorKind::NotConnected);
    assert_kind(stream.write(&[0]), ErrorKind::BrokenPipe);
    assert!(stream.take_error().unwrap().is_none());
    // Last, because a shutdown takes effect even though it fails.
    assert_kind(stream.shutdown(Shutdown::Both), ErrorKind::NotConnected);
}

pub(crate) fn a_shutdown_wakes_who_waits() {
    // Goal: a reader and a writer that wait learn of a shutdown. Method: they wait in threads of
    // their own; the shutdown comes through another handle.
    let (client, _server) = pair();
    let mut waiting = client.try_clone().unwrap();
    let reader = thread::spawn(move || waiting.read(&mut [0; 4]).unwrap());
    thread::yield_now();
    client.shutdown(Shutdown::Read).unwrap();
    assert_eq!(reader.join().unwrap(), 0);

    let (client, _server) = pair();
    fill(&client);
    let mut waiting = client.try_clone().unwrap();
    let writer = thread::spawn(move || waiting.write_all(&[0; 1 << 20]));
    thread::yield_now();
    client.shutdown(Shutdown::Write).unwrap();
    assert_kind(writer.join().unwrap(), ErrorKind::BrokenPipe);
}

pub(crate) fn a_reset_is_told_once() {
    // Goal: a reset is an error of the read, then the end; writing is a broken pipe and no
    // signal. Method: closing with SO_LINGER 0 sends the reset; a reader may wait for it or not.
    for waits in [false, true] {
        let (client, mut server) = pair();
        reset_on_close(&client);
        if waits {
            let reader = thread::spawn(move || {
                let result = server.read(&mut [0; 4]);
                (server, result)
            });
            thread::yield_now();
            drop(client);
            let (back, result) = reader.join().unwrap();
            server = back;
            assert_kind(result, ErrorKind::ConnectionReset);
        } else {
            drop(client);
            assert_kind(server.read(&mut [0; 4]), ErrorKind::ConnectionReset);
        }
        assert_eq!(server.read(&mut [0; 4]).unwrap(), 0);
        for _ in 0..3 {
            assert_kind(server.write(&[0; 4]), ErrorKind::BrokenPipe);
        }
        assert_kind(server.peer_addr(), ErrorKind::NotConnected);
    }
}

pub(crate) fn a_reset_wakes_a_writer() {
    // Goal: who waits for room learns of a reset. Method: a full socket, then the reset.
    let (client, mut server) = pair();
    fill(&server);
    reset_on_close(&client);
    let writer = thread::spawn(move || server.write_all(&[0; 1 << 20]));
    thread::yield_now();
    drop(client);
    let error = writer.join().unwrap().unwrap_err();
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

pub(crate) fn a_waiting_error_can_be_taken() {
    // Goal: take_error takes. Method: a reset that nobody has read, then ask twice.
    let (client, server) = pair();
    assert!(client.take_error().unwrap().is_none());
    reset_on_close(&client);
    drop(client);
    // Only a call that waits can tell that the reset is here; a peek would take the error.
    let mut entry = libc::pollfd {
        fd: server.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the kernel writes one entry, which outlives the call.
    assert_eq!(unsafe { libc::poll(&raw mut entry, 1, -1) }, 1);
    let error = server.take_error().unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(server.take_error().unwrap().is_none());
    let (listener, _) = listen();
    assert!(listener.take_error().unwrap().is_none());
}

pub(crate) fn nobody_there_is_a_refusal() {
    // Goal: connect to where nobody listens. Method: a port that is taken by a socket that does
    // not listen, both protocols.
    for loopback in LOOPBACKS {
        let (_fd, address) = deserted(loopback);
        assert_kind(TcpStream::connect(address), ErrorKind::ConnectionRefused);
        let result = TcpStream::connect_timeout(&address, Duration::from_secs(30));
        assert_kind(result, ErrorKind::ConnectionRefused);
    }
}

pub(crate) fn addresses_can_be_taken_or_not_ours() {
    // Goal: errors of bind. Method: a port in use, an address reserved for documents.
    let (listener, address) = listen();
    assert_kind(TcpListener::bind(address), ErrorKind::AddrInUse);
    drop(listener);
    let result = TcpListener::bind("192.0.2.1:0");
    assert_kind(result, ErrorKind::AddrNotAvailable);
}

pub(crate) fn an_address_can_be_listened_on_again_at_once() {
    // Goal: SO_REUSEADDR. Method: the listening side ends a connection first, which leaves its
    // port in TIME_WAIT, and is opened again.
    unless_unlucky(|| {
        let (listener, address) = listen();
        let mut client = TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop((client, listener));
        TcpListener::bind(address).map(drop)
    });
}

pub(crate) fn what_is_no_address_is_invalid() {
    // Goal: errors of what never was an address. Method: one of each form.
    let texts = [
        "",
        "127.0.0.1",
        "localhost",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "localhost:x",
    ];
    for text in texts {
        let expected = std::net::ToSocketAddrs::to_socket_addrs(text).unwrap_err();
        for error in [
            assert_kind(text.to_socket_addrs(), ErrorKind::InvalidInput),
            assert_kind(TcpStream::connect(text), ErrorKind::InvalidInput),
            assert_kind(TcpListener::bind(text.to_owned()), ErrorKind::InvalidInput),
        ] {
            assert_eq!(error.to_string(), expected.to_string());
        }
    }
    let none: &[SocketAddr] = &[];
    assert_kind(TcpStream::connect(none), ErrorKind::InvalidInput);
    assert_kind(TcpListener::bind(none), ErrorKind::InvalidInput);
}

pub(crate) fn names_are_looked_up() {
    // Goal: names as well as numbers, in every form. Method: localhost, and a name that RFC 6761
    // says does not exist; the words of the error are std's.
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(listener.local_addr().unwrap().ip().is_loopback());
    TcpStream::connect(("localhost", port)).unwrap();
    TcpStream::connect(("localhost".to_owned(), port)).unwrap();
    TcpStream::connect(format!("localhost:{port}")).unwrap();
    TcpStream::connect(&format!("localhost:{port}")).unwrap();
    let ours: Vec<SocketAddr> = "localhost:80".to_socket_addrs().unwrap().collect();
    let stds: Vec<SocketAddr> = std::net::ToSocketAddrs::to_socket_addrs("localhost:80")
        .unwrap()
        .collect();
    assert_eq!(ours, stds);
    let name = ("nobody.invalid", 80);
    let error = TcpStream::connect(name).unwrap_err();
    let expected = std::net::ToSocketAddrs::to_socket_addrs(&name).unwrap_err();
    assert_eq!(error.to_string(), expected.to_string());
    assert_eq!(error.kind(), expected.kind());
}

pub(crate) fn numbers_are_addresses_in_every_form() {
    // Goal: each type that names addresses. Method: the same port through all of them.
    let (listener, address) = listen();
    let SocketAddr::V4(v4) = address else {
        panic!("127.0.0.1 is of IPv4")
    };
    let port = address.port();
    let connect = |result: io::Result<TcpStream>| {
        assert_eq!(result.unwrap().peer_addr().unwrap(), address);
        listener.accept().unwrap();
    };
    connect(TcpStream::connect(address));
    connect(TcpStream::connect(&&address));
    connect(TcpStream::connect(v4));
    connect(TcpStream::connect((*v4.ip(), port)));
    connect(TcpStream::connect((address.ip(), port)));
    connect(TcpStream::connect(("127.0.0.1", port)));
    connect(TcpStream::connect(("127.0.0.1".to_owned(), port)));
    connect(TcpStream::connect(address.to_string()));
    connect(TcpStream::connect(address.to_string().as_str()));
    connect(TcpStream::connect(&[address][..]));
    let v6 = TcpListener::bind((net::Ipv6Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V6(address) = v6.local_addr().unwrap() else {
        panic!("::1 is of IPv6")
    };
    TcpStream::connect(address).unwrap();
    TcpStream::connect(("::1", address.port())).unwrap();
    assert!(TcpStream::connect(("[::1]", address.port())).is_err());
}

pub(crate) fn each_address_is_tried() {
    // Goal: of several addresses the first that works; if none does, the last error. Method:
    // lists with deserted and foreign addresses.
    let (listener, address) = listen();
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let (_fd, deserted) = deserted(LOOPBACKS[0]);
    let stream = TcpStream::connect(&[deserted, address, deserted][..]).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    listener.accept().unwrap();
    let result = TcpStream::connect(&[foreign, deserted][..]);
    assert_kind(result, ErrorKind::ConnectionRefused);
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let second = TcpListener::bind(&[foreign, address, free][..]).unwrap();
    assert!(second.local_addr().unwrap().ip().is_loopback());
    let result = TcpListener::bind(&[foreign, address][..]);
    assert_kind(result, ErrorKind::AddrInUse);
    let result = TcpListener::bind(&[address, foreign][..]);
    assert_kind(result, ErrorKind::AddrNotAvailable);
}

pub(crate) fn connecting_can_time_out() {
    // Goal: connect_timeout when nobody answers. Method: a listener whose queue is full lets
    // further attempts wait. Also: zero is refused, and a time-out that is not needed is harmless.
    let (listener, address) = listen();
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut queued = Vec::new();
    let error = loop {
        match TcpStream::connect_timeout(&address, SHORT * 5) {
            Ok(stream) => queued.push(stream),
            Err(error) => break error,
        }
        assert!(queued.len() < 100, "the queue must fill up");
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert_eq!(error.to_string(), "connection timed out");
    drop(queued);

    let (listener, address) = listen();
    let result = TcpStream::connect_timeout(&address, Duration::ZERO);
    assert_kind(result, ErrorKind::InvalidInput);
    for timeout in [Duration::from_secs(30), Duration::from_secs(1 << 40)] {
        let mut stream = TcpStream::connect_timeout(&address, timeout).unwrap();
        assert!(!is_nonblocking_as_seen(&stream));
        // The time-out was that of connecting alone.
        assert_eq!(stream.read_timeout().unwrap(), None);
        stream.write_all(b"x").unwrap();
    }
    drop(listener);
}

/// The user's mode: reading it off the descriptor is a detour by a clone, because while a socket
/// is of its type the flag may be the library's.
fn is_nonblocking_as_seen(stream: &TcpStream) -> bool {
    let fd = OwnedFd::from(stream.try_clone().unwrap());
    let nonblocking = is_nonblocking(fd.as_fd());
    drop(fd);
    nonblocking
}

pub(crate) fn reads_time_out() {
    // Goal: the read time-out of every kind of read, and its end. Method: nobody writes; then
    // somebody does.
    let (mut client, mut server) = pair();
    assert_eq!(server.read_timeout().unwrap(), None);
    server.set_read_timeout(Some(SHORT)).unwrap();
    assert!(server.read_timeout().unwrap().unwrap() >= SHORT);
    assert_eq!(server.write_timeout().unwrap(), None);
    let mut bytes = [0; 4];
    for _ in 0..2 {
        let error = assert_kind(server.read(&mut bytes), ErrorKind::WouldBlock);
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        assert_kind(server.peek(&mut bytes), ErrorKind::WouldBlock);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        assert_kind(server.read_vectored(&mut buffers), ErrorKind::WouldBlock);
    }
    client.write_all(b"late").unwrap();
    server.set_read_timeout(None).unwrap();
    assert_eq!(server.read_timeout().unwrap(), None);
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"late");
    server
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    client.write_all(b"soon").unwrap();
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"soon");
}

pub(crate) fn writes_time_out() {
    // Goal: the write time-out. Method: nobody reads; a write that got somewhere says how far,
    // the next is an error; and once there is room writing works again.
    let (client, mut server) = pair();
    server.set_write_timeout(Some(SHORT)).unwrap();
    assert_eq!(server.read_timeout().unwrap(), None);
    assert!(server.write_timeout().unwrap().is_some());
    let large = vec![1; 16 << 20];
    let mut sent = server.write(&large).unwrap();
    assert!(0 < sent && sent < large.len());
    let (more, error) = until_error(|| server.write(&large));
    sent += more;
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    let buffers = [IoSlice::new(&large)];
    let (more, error) = until_error(|| server.write_vectored(&buffers));
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    sent += more;
    let reader = thread::spawn(move || io::copy(&mut &client, &mut io::sink()).unwrap());
    server.set_write_timeout(None).unwrap();
    assert_eq!(server.write_timeout().unwrap(), None);
    server.write_all(b"the end").unwrap();
    drop(server);
    assert_eq!(reader.join().unwrap(), sent as u64 + 7);
}

pub(crate) fn odd_timeouts() {
    // Goal: the extremes of a time-out. Method: nothing, next to nothing, everything.
    let (mut client, mut server) = pair();
    for result in [
        server.set_read_timeout(Some(Duration::ZERO)),
        server.set_write_timeout(Some(Duration::ZERO)),
    ] {
        assert_kind(result, ErrorKind::InvalidInput);
    }
    server
        .set_read_timeout(Some(Duration::from_nanos(1)))
        .unwrap();
    assert!(server.read_timeout().unwrap().is_some());
    assert_kind(server.read(&mut [0]), ErrorKind::WouldBlock);
    let result = server.set_read_timeout(Some(Duration::MAX));
    assert!(result.is_ok() || cfg!(not(target_os = "linux")));
    client.write_all(b"x").unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 1);
}

pub(crate) fn clones_share_bytes_and_modes() {
    // Goal: a clone is the same socket. Method: set at one, see at the other, in both orders.
    let (mut client, mut server) = pair();
    let mut clone = server.try_clone().unwrap();
    assert_ne!(server.as_raw_fd(), clone.as_raw_fd());
    assert_eq!(server.peer_addr().unwrap(), clone.peer_addr().unwrap());
    assert!(is_closed_on_exec(clone.as_fd()));
    server.set_read_timeout(Some(SHORT)).unwrap();
    assert!(clone.read_timeout().unwrap().is_some());
    assert_kind(clone.read(&mut [0]), ErrorKind::WouldBlock);
    clone.set_read_timeout(None).unwrap();
    assert_eq!(server.read_timeout().unwrap(), None);
    clone.set_nonblocking(true).unwrap();
    assert_kind(server.read(&mut [0]), ErrorKind::WouldBlock);
    // A clone of a clone, made in a mode, has it too.
    let mut third = clone.try_clone().unwrap();
    assert_kind(third.read(&mut [0]), ErrorKind::WouldBlock);
    server.set_nonblocking(false).unwrap();
    client.write_all(b"abc").unwrap();
    for stream in [&mut server, &mut clone, &mut third] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 1);
    }
    // The connection ends with its last handle.
    drop((server, clone));
    third.write_all(b"still").unwrap();
    drop(third);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still");
}

pub(crate) fn a_clone_can_wait_and_another_write() {
    // Goal: a waiting handle does not keep the other from being used. Method: the peer answers
    // only what the second handle sends while the first waits.
    let (client, mut server) = pair();
    let mut reading = client.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = [0; 4];
        reading.read_exact(&mut bytes).unwrap();
        bytes
    });
    thread::yield_now();
    (&client).write_all(b"ping").unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).unwrap();
    server.write_all(b"pong").unwrap();
    assert_eq!(&reader.join().unwrap(), b"pong");
}

pub(crate) fn nonblocking_streams_never_wait() {
    // Goal: the mode of streams. Method: every call with nothing to read or no room; then back.
    let (mut client, mut server) = pair();
    server.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4];
    let error = assert_kind(server.read(&mut bytes), ErrorKind::WouldBlock);
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    assert_kind(server.peek(&mut bytes), ErrorKind::WouldBlock);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    assert_kind(server.read_vectored(&mut buffers), ErrorKind::WouldBlock);
    // In this mode time-outs mean nothing.
    server
        .set_read_timeout(Some(Duration::from_secs(3600)))
        .unwrap();
    assert_kind(server.read(&mut bytes), ErrorKind::WouldBlock);
    // As much as there is room for, and then no more.
    let large = vec![1; 16 << 20];
    let mut sent = server.write(&large).unwrap();
    assert!(0 < sent && sent < large.len());
    sent += fill(&server);
    server.set_nonblocking(true).unwrap();
    let (more, error) = until_error(|| server.write(&large));
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    sent += more;
    let buffers = [IoSlice::new(&large)];
    let (more, error) = until_error(|| server.write_vectored(&buffers));
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    sent += more;
    client.write_all(b"data").unwrap();
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(None).unwrap();
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"data");
    drop(server);
    assert_eq!(io::copy(&mut client, &mut io::sink()).unwrap(), sent as u64);
}

pub(crate) fn nonblocking_listeners_never_wait() {
    // Goal: the mode of listeners. Method: accept with an empty queue, from both handles; the
    // connections that it gives block.
    let (listener, address) = listen();
    listener.set_nonblocking(true).unwrap();
    let clone = listener.try_clone().unwrap();
    let error = assert_kind(clone.accept().map(|_| ()), ErrorKind::WouldBlock);
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    let first = listener.incoming().next().unwrap();
    assert_kind(first.map(|_| ()), ErrorKind::WouldBlock);
    let client = TcpStream::connect(address).unwrap();
    // The connection is in the queue once both sides agree, which connect does not say.
    let mut server = loop {
        match clone.accept() {
            Ok((stream, _)) => break stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        thread::yield_now();
    };
    assert_eq!(
        is_nonblocking_as_seen(&server),
        cfg!(target_vendor = "apple")
    );
    server.set_nonblocking(false).unwrap();
    let writer = thread::spawn(move || (&client).write_all(b"x").unwrap());
    assert_eq!(server.read(&mut [0]).unwrap(), 1);
    writer.join().unwrap();
    clone.set_nonblocking(false).unwrap();
    let connecting = thread::spawn(move || TcpStream::connect(address).unwrap());
    listener.accept().unwrap();
    connecting.join().unwrap();
}

pub(crate) fn a_slow_reader_gets_every_byte() {
    // Goal: a stream of megabytes through full buffers. Method: the writer writes as fast as it
    // can; the reader takes odd pieces and gives way after each.
    let (mut client, mut server) = pair();
    let bytes = pattern(8 << 20);
    let writer = thread::spawn(move || {
        let mut rest = &bytes[..];
        let mut length = 1;
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(length.min(rest.len()));
            client.write_all(piece).unwrap();
            rest = others;
            length = length * 7 % 100_003;
        }
        bytes
    });
    let mut received = Vec::new();
    let mut piece = vec![0; 65536];
    let mut length = 1;
    loop {
        match server.read(&mut piece[..length]).unwrap() {
            0 => break,
            count => received.extend_from_slice(&piece[..count]),
        }
        length = length * 5 % 65521;
        thread::yield_now();
    }
    assert!(received == writer.join().unwrap());
}

pub(crate) fn both_directions_at_once() {
    // Goal: a reader and a writer on one socket, at both ends. Method: each end sends two
    // megabytes while it receives two; writing first and reading then would never end.
    let (client, server) = pair();
    let ends: Vec<_> = [client, server]
        .into_iter()
        .map(|stream| {
            let stream = Arc::new(stream);
            let writing = Arc::clone(&stream);
            let writer = thread::spawn(move || {
                (&*writing).write_all(&pattern(2 << 20)).unwrap();
                writing.shutdown(Shutdown::Write).unwrap();
            });
            let reader = thread::spawn(move || {
                let mut bytes = Vec::new();
                (&*stream).read_to_end(&mut bytes).unwrap();
                assert!(bytes == pattern(2 << 20));
            });
            (writer, reader)
        })
        .collect();
    for (writer, reader) in ends {
        writer.join().unwrap();
        reader.join().unwrap();
    }
}

pub(crate) fn several_readers_share_a_stream() {
    // Goal: no byte is given twice or lost, and the end reaches every reader. Method: four
    // readers, on one handle and on clones; their counts add up.
    let (mut client, server) = pair();
    let server = Arc::new(server);
    let readers: Vec<_> = (0..4)
        .map(|number| {
            let shared = Arc::clone(&server);
            let clone = server.try_clone().unwrap();
            thread::spawn(move || {
                let mut stream = if number % 2 == 0 { &*shared } else { &clone };
                let mut sum = 0;
                let mut bytes = [0; 100];
                loop {
                    match stream.read(&mut bytes).unwrap() {
                        0 => return sum,
                        count => sum += bytes[..count].iter().map(|b| u64::from(*b)).sum::<u64>(),
                    }
                    thread::yield_now();
                }
            })
        })
        .collect();
    let bytes = pattern(300_000);
    for piece in bytes.chunks(1000) {
        client.write_all(piece).unwrap();
        thread::yield_now();
    }
    drop(client);
    let sum: u64 = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .sum();
    assert_eq!(sum, bytes.iter().map(|byte| u64::from(*byte)).sum());
}

pub(crate) fn several_acceptors_share_a_listener() {
    // Goal: each connection goes to exactly one acceptor, and none is left. Method: five
    // acceptors, on one handle and on clones, each of which takes the same number and no more.
    const ACCEPTORS: usize = 5;
    const EACH: usize = 8;
    let (listener, address) = listen();
    let listener = Arc::new(listener);
    let acceptors: Vec<_> = (0..ACCEPTORS)
        .map(|number| {
            let shared = Arc::clone(&listener);
            let clone = listener.try_clone().unwrap();
            thread::spawn(move || {
                let listener = if number % 2 == 0 { &*shared } else { &clone };
                for stream in listener.incoming().take(EACH) {
                    let mut stream = stream.unwrap();
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    stream.write_all(&byte).unwrap();
                }
            })
        })
        .collect();
    thread::yield_now();
    let clients: Vec<_> = (0..ACCEPTORS * EACH)
        .map(|number| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&[number as u8]).unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                assert_eq!(byte, [number as u8]);
            })
        })
        .collect();
    for thread in clients.into_iter().chain(acceptors) {
        thread.join().unwrap();
    }
}

pub(crate) fn connections_come_one_after_the_other() {
    // Goal: `incoming`, and connections made before anybody accepts. Method: ten in the queue.
    let (listener, address) = listen();
    let clients: Vec<TcpStream> = (0..10)
        .map(|number| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&[number]).unwrap();
            stream
        })
        .collect();
    let numbers: Vec<u8> = listener
        .incoming()
        .take(clients.len())
        .map(|stream| {
            let mut byte = [0];
            stream.unwrap().read_exact(&mut byte).unwrap();
            byte[0]
        })
        .collect();
    assert_eq!(numbers, (0..10).collect::<Vec<u8>>());
}

pub(crate) fn many_connections_at_once() {
    // Goal: many sockets wait at the same time, and each gets its own bytes. Method: a hundred
    // connections, of which every one is asked for three rounds, in changing order.
    const COUNT: usize = 100;
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let serving: Vec<_> = listener
            .incoming()
            .take(COUNT)
            .map(|stream| {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut bytes = [0; 64];
                    loop {
                        match stream.read(&mut bytes).unwrap() {
                            0 => return,
                            count => stream.write_all(&bytes[..count]).unwrap(),
                        }
                    }
                })
            })
            .collect();
        for thread in serving {
            thread.join().unwrap();
        }
    });
    let mut clients: Vec<TcpStream> = (0..COUNT)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for round in 0..3 {
        for index in 0..COUNT {
            let number = index * 37 % COUNT;
            write!(clients[number], "{number:05} {round:05}").unwrap();
        }
        for index in 0..COUNT {
            let number = index * 61 % COUNT;
            let mut answer = [0; 11];
            clients[number].read_exact(&mut answer).unwrap();
            assert_eq!(answer, format!("{number:05} {round:05}").as_bytes());
        }
    }
    drop(clients);
    server.join().unwrap();
}

pub(crate) fn many_short_messages() {
    // Goal: thousands of waits on one socket. Method: ping-pong with growing messages, read into
    // a buffer that is larger than they are.
    let (mut client, mut server) = pair();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let echo = thread::spawn(move || {
        let mut bytes = [0; 4096];
        loop {
            match server.read(&mut bytes).unwrap() {
                0 => return,
                count => server.write_all(&bytes[..count]).unwrap(),
            }
        }
    });
    let message = pattern(200);
    let mut answer = [0; 200];
    for round in 0..5000 {
        let length = 1 + round % 200;
        client.write_all(&message[..length]).unwrap();
        client.read_exact(&mut answer[..length]).unwrap();
        assert_eq!(answer[..length], message[..length]);
    }
    drop(client);
    echo.join().unwrap();
}

pub(crate) fn urgent_bytes_do_not_stop_the_stream() {
    // Goal: a read ends before an urgent byte although more has arrived behind it; a reader that
    // takes the short count for "empty" would wait for ever. Method: bytes on both sides of one,
    // sent while the reader waits, answered only when all have come.
    let (client, mut server) = pair();
    let reader = thread::spawn(move || {
        let mut bytes = [0; 100];
        let mut received = Vec::new();
        while received.len() < 6 {
            let count = server.read(&mut bytes).unwrap();
            assert_ne!(count, 0);
            received.extend_from_slice(&bytes[..count]);
        }
        server.write_all(&received).unwrap();
    });
    thread::yield_now();
    let send = |bytes: &[u8], flags| {
        // SAFETY: the kernel reads the bytes, which outlive the call.
        let sent = unsafe {
            libc::send(
                client.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                flags,
            )
        };
        assert_eq!(sent, bytes.len() as isize);
    };
    send(b"abc", 0);
    send(b"!", libc::MSG_OOB);
    send(b"def", 0);
    let mut answer = [0; 6];
    (&client).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"abcdef");
    reader.join().unwrap();
}

pub(crate) fn options_are_the_sockets() {
    // Goal: nodelay and ttl. Method: set and ask, at both kinds of socket and at a clone.
    let (client, _server) = pair();
    assert!(!client.nodelay().unwrap());
    client.set_nodelay(true).unwrap();
    assert!(client.try_clone().unwrap().nodelay().unwrap());
    client.set_nodelay(false).unwrap();
    assert!(!client.nodelay().unwrap());
    assert_ne!(client.ttl().unwrap(), 0);
    client.set_ttl(42).unwrap();
    assert_eq!(client.ttl().unwrap(), 42);
    assert_kind(client.set_ttl(0), ErrorKind::InvalidInput);
    let (listener, _) = listen();
    listener.set_ttl(43).unwrap();
    assert_eq!(listener.ttl().unwrap(), 43);
}

pub(crate) fn descriptors_are_closed_on_exec() {
    // Goal: no child inherits a socket. Method: the flag, however a socket was made.
    let (listener, address) = listen();
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert!(is_closed_on_exec(listener.try_clone().unwrap().as_fd()));
    for fd in [listener.as_fd(), client.as_fd(), server.as_fd()] {
        assert!(is_closed_on_exec(fd));
    }
}

pub(crate) fn a_dropped_socket_is_closed() {
    // Goal: dropping closes at once. Method: the peer of a stream reads its end, and a
    // listener's address refuses.
    unless_unlucky(|| {
        let (listener, address) = listen();
        let mut client = TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(listener);
        match TcpStream::connect(address) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                Ok(())
            }
            Ok(_) => Err(io::Error::other("somebody still listens")),
        }
    });
}

pub(crate) fn debug_shows_both_ends() {
    // Goal: the `Debug` texts are std's. Method: write them out.
    let (client, server) = pair();
    let expected = format!(
        "TcpStream {{ addr: {}, peer: {}, fd: {} }}",
        client.local_addr().unwrap(),
        server.local_addr().unwrap(),
        client.as_raw_fd()
    );
    assert_eq!(format!("{client:?}"), expected);
    let (listener, address) = listen();
    let fd = listener.as_raw_fd();
    let expected = format!("TcpListener {{ addr: {address}, fd: {fd} }}");
    assert_eq!(format!("{listener:?}"), expected);
    let expected = format!("Incoming {{ listener: {expected} }}");
    assert_eq!(format!("{:?}", listener.incoming()), expected);
}

pub(crate) fn streams_convert_with_their_modes() {
    // Goal: std's types, owned and raw descriptors, there and back; nothing is lost on the way.
    // Method: set modes on one side of each conversion and look on the other.
    let (mut client, server) = pair();
    let number = server.as_raw_fd();
    assert_eq!(server.as_fd().as_raw_fd(), number);
    let std_server = std::net::TcpStream::from(server);
    assert_eq!(std_server.as_raw_fd(), number);
    assert!(!is_nonblocking(std_server.as_fd()));
    std_server.set_read_timeout(Some(SHORT)).unwrap();
    let mut server = TcpStream::from(std_server);
    assert_kind(server.read(&mut [0]), ErrorKind::WouldBlock);
    server.set_read_timeout(None).unwrap();
    server.set_write_timeout(Some(SHORT * 2)).unwrap();
    server.set_nonblocking(true).unwrap();
    let fd = OwnedFd::from(server);
    assert!(is_nonblocking(fd.as_fd()));
    let mut server = TcpStream::from(fd);
    assert_kind(server.read(&mut [0]), ErrorKind::WouldBlock);
    assert!(server.write_timeout().unwrap().is_some());
    let number = server.into_raw_fd();
    // SAFETY: the descriptor was given away by `into_raw_fd` just now.
    let mut std_server = unsafe { std::net::TcpStream::from_raw_fd(number) };
    assert_kind(std_server.read(&mut [0]), ErrorKind::WouldBlock);
    assert!(std_server.write_timeout().unwrap().is_some());
    std_server.set_nonblocking(false).unwrap();
    // SAFETY: the descriptor was given away by `into_raw_fd` just now.
    let mut server = unsafe { TcpStream::from_raw_fd(std_server.into_raw_fd()) };
    let writer = thread::spawn(move || client.write_all(b"x").unwrap());
    assert_eq!(server.read(&mut [0]).unwrap(), 1);
    writer.join().unwrap();
}

pub(crate) fn a_stream_converts_after_it_has_waited() {
    // Goal: a stream that was watched leaves without a trace and can come back. Method: wait on
    // it, convert it both ways, wait on it again, several times over.
    let (mut client, mut server) = pair();
    for _ in 0..5 {
        let writer = thread::spawn(move || {
            client.write_all(b"x").unwrap();
            client
        });
        assert_eq!(server.read(&mut [0; 9]).unwrap(), 1);
        client = writer.join().unwrap();
        let mut std_server = std::net::TcpStream::from(server);
        client.write_all(b"y").unwrap();
        assert_eq!(std_server.read(&mut [0; 9]).unwrap(), 1);
        server = TcpStream::from(std_server);
    }
}

pub(crate) fn listeners_convert_with_their_modes() {
    // Goal: as for streams. Method: the mode through every conversion, and a connection after it.
    let (listener, address) = listen();
    let std_listener = std::net::TcpListener::from(listener);
    assert!(!is_nonblocking(std_listener.as_fd()));
    let client = TcpStream::connect(address).unwrap();
    std_listener.accept().unwrap();
    drop(client);
    std_listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from(std_listener);
    assert_kind(listener.accept().map(|_| ()), ErrorKind::WouldBlock);
    let fd = OwnedFd::from(listener);
    assert!(is_nonblocking(fd.as_fd()));
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(false).unwrap();
    let number = listener.into_raw_fd();
    // SAFETY: the descriptor was given away by `into_raw_fd` just now.
    let listener = unsafe { TcpListener::from_raw_fd(number) };
    let connecting = thread::spawn(move || TcpStream::connect(address).unwrap());
    listener.accept().unwrap();
    connecting.join().unwrap();
    assert!(!is_nonblocking(OwnedFd::from(listener).as_fd()));
}

pub(crate) fn a_listener_leaves_its_clones_working() {
    // Goal: one handle of several is converted; all of them still accept and keep one mode.
    // Method: connections for the handle that stayed, made before and after it starts to wait.
    let (listener, address) = listen();
    let staying = listener.try_clone().unwrap();
    let leaving = std::net::TcpListener::from(listener);
    assert!(!is_nonblocking(leaving.as_fd()));
    let connecting = thread::spawn(move || TcpStream::connect(address).unwrap());
    staying.accept().unwrap();
    connecting.join().unwrap();
    staying.set_nonblocking(true).unwrap();
    assert!(is_nonblocking(leaving.as_fd()));
    assert_kind(staying.accept().map(|_| ()), ErrorKind::WouldBlock);
    assert_kind(leaving.accept().map(|_| ()), ErrorKind::WouldBlock);
    drop(leaving);
    staying.set_nonblocking(false).unwrap();
    assert!(!is_nonblocking(OwnedFd::from(staying).as_fd()));
}

pub(crate) fn wrong_descriptors_are_errors_not_accidents() {
    // Goal: a descriptor of another kind behind these types. Method: a pipe; each call says what
    // std's says.
    let (reader, _writer) = io::pipe().unwrap();
    let mut stream = TcpStream::from(OwnedFd::from(reader.try_clone().unwrap()));
    let listener = TcpListener::from(OwnedFd::from(reader));
    let code = |error: io::Error| error.raw_os_error();
    assert_eq!(
        code(stream.read(&mut [0]).unwrap_err()),
        Some(libc::ENOTSOCK)
    );
    assert_eq!(code(stream.write(&[0]).unwrap_err()), Some(libc::ENOTSOCK));
    assert_eq!(code(stream.local_addr().unwrap_err()), Some(libc::ENOTSOCK));
    assert_eq!(code(stream.nodelay().unwrap_err()), Some(libc::ENOTSOCK));
    assert_eq!(code(listener.accept().unwrap_err()), Some(libc::ENOTSOCK));
    assert_eq!(
        code(listener.take_error().unwrap_err()),
        Some(libc::ENOTSOCK)
    );
    // A socket, but of another family.
    let (unix, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut stream = TcpStream::from(OwnedFd::from(unix));
    assert_kind(stream.local_addr(), ErrorKind::InvalidInput);
    stream.set_read_timeout(Some(SHORT)).unwrap();
    assert_kind(stream.read(&mut [0]), ErrorKind::WouldBlock);
    assert!(stream.nodelay().is_err());
}

pub(crate) fn the_types_cross_threads() {
    // Goal: the same marker traits as std's. Method: the compiler.
    fn check<T: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    check::<TcpStream>();
    check::<TcpListener>();
    check::<net::Incoming<'static>>();
    let (mut client, server) = pair();
    // Into another OS thread, whatever `thread` is here, and back.
    let server = std::thread::spawn(move || server).join().unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!((&server).read(&mut [0]).unwrap(), 1);
}

pub(crate) fn panics_close_what_they_pass() {
    // Goal: unwinding drops sockets as usual. Method: a thread that dies with one.
    let (mut client, server) = pair();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let dying = thread::spawn(move || {
        let _server = server;
        counted.fetch_add(1, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(dying.join().is_err());
    assert_eq!(count.load(Ordering::Relaxed), 1);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}
