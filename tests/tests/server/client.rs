//! Clients of the server under test: standard library sockets, and every way to treat a server
//! badly.
//!
//! Test support for `server.rs` and `models.rs`. Man pages: tcp(7) (SIOCOUTQ), socket(7)
//! (SO_LINGER, SO_RCVBUF).

use crate::process::PATIENCE;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Connects; nothing on the connection waits for ever.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("it is not zero");
    stream.set_nodelay(true).expect("it is a TCP socket");
    stream
}

/// `count` bytes that differ from connection to connection, in which no part repeats soon.
pub(crate) fn pattern(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Sends `message` and reads as much again, which must be the same.
pub(crate) fn exchange(mut stream: &TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the server takes it");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("the server answers");
    assert!(answer == message, "the answer differs from the message");
}

/// Sends `bytes` as fast as it can while it reads the answer in small pieces, to the very end.
pub(crate) fn exchange_slowly(stream: &TcpStream, bytes: &[u8]) -> Vec<u8> {
    shrink_receive_buffer(stream);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = stream;
            writer.write_all(bytes).expect("the server takes it");
            writer.shutdown(Shutdown::Write).expect("it is connected");
        });
        let mut reader = stream;
        let mut answer = Vec::with_capacity(bytes.len());
        let mut piece = [0; 4099];
        loop {
            // Sizes that fit no buffer of anybody.
            let size = 1 + (answer.len() * 7) % piece.len();
            match reader.read(&mut piece[..size]).expect("the server answers") {
                0 => return answer,
                count => answer.extend_from_slice(&piece[..count]),
            }
            thread::yield_now();
        }
    })
}

/// Exchanges until the server ends the connection, which must happen between answers.
pub(crate) fn exchange_until_the_end(
    mut stream: &TcpStream,
    message: &[u8],
    answers: &AtomicUsize,
) {
    let mut answer = vec![0; message.len()];
    loop {
        if let Err(error) = stream.write_all(message) {
            let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(kinds.contains(&error.kind()), "{error}");
            return;
        }
        let mut count = 0;
        while count < answer.len() {
            match stream.read(&mut answer[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) => panic!("no clean end, but: {error}"),
            }
        }
        if count == 0 {
            return;
        }
        assert!(
            answer == message,
            "{count} bytes of {} came back",
            message.len()
        );
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// What [`write_until_stuck`] repeats: `pattern(1, CHUNK_BYTES)`.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Writes until neither the kernel nor the server takes any more, and tells how much they took.
pub(crate) fn write_until_stuck(mut stream: &TcpStream) -> usize {
    // One pause may only mean that somebody has no processor at the moment.
    const PAUSES: u32 = 4;
    let chunk = pattern(1, CHUNK_BYTES);
    let (mut total, mut pauses) = (0, 0);
    let pause = Some(Duration::from_millis(300));
    stream.set_write_timeout(pause).expect("it is not zero");
    while pauses < PAUSES {
        match stream.write(&chunk[total % CHUNK_BYTES..]) {
            Ok(count) => (total, pauses) = (total + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => pauses += 1,
            Err(error) => panic!("after {total} bytes: {error}"),
        }
    }
    total
}

/// How many bytes that were written the peer's kernel has not acknowledged: the others have arrived
/// there.
pub(crate) fn unacknowledged(stream: &TcpStream) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: this request writes one int, to `count`, and the descriptor is open.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    assert_eq!(result, 0);
    usize::try_from(count).expect("a queue is not shorter than nothing")
}

/// Closes with a reset instead of an end.
pub(crate) fn reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(&stream, libc::SO_LINGER, &linger);
}

/// Small enough to fill up at once, large enough for whole segments.
pub(crate) fn shrink_receive_buffer(stream: &TcpStream) {
    let bytes: libc::c_int = 64 << 10;
    set_option(stream, libc::SO_RCVBUF, &bytes);
}

fn set_option<T>(stream: &TcpStream, name: libc::c_int, value: &T) {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: `value` points to `length` bytes that live through the call.
    let result =
        unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, name, value, length) };
    assert_eq!(result, 0);
}
