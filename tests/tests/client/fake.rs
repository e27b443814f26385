//! Servers that answer wrongly, or not at all: std's sockets, an OS thread for each connection.
//!
//! Test support for `tests/client*.rs`. Nothing of the product is in here, so that a mistake of the
//! product cannot hide itself.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// A line that a client sent, as the server understands it.
pub(crate) struct Request {
    pub(crate) connection: u32,
    pub(crate) n: u64,
    /// With its end.
    pub(crate) line: Vec<u8>,
}

/// Serves each connection with `serve` on an OS thread; answers the address.
///
/// The threads end with their connections, and the listener with the test's process.
pub(crate) fn serve(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Answers each line with what `answer` makes of it, and ends when the client does.
pub(crate) fn answer(answer: impl Fn(Request) -> Vec<u8> + Send + Sync + 'static) -> String {
    serve(move |stream| {
        for_each_line(&stream, |request, mut stream| {
            stream.write_all(&answer(request)).is_ok()
        });
    })
}

/// An echo that makes something else of message 5 of connection 3.
pub(crate) fn wrong_once(change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> String {
    answer(
        move |Request {
                  connection,
                  n,
                  line,
              }| match (connection, n) {
            (3, 5) => change(line),
            _ => line,
        },
    )
}

/// Calls `act` with every line until it answers false or the client ends.
pub(crate) fn for_each_line(stream: &TcpStream, mut act: impl FnMut(Request, &TcpStream) -> bool) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let mut words = text.split_whitespace();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(connection), Some(n)) = (number(), number()) else {
            return;
        };
        let request = Request {
            connection: u32::try_from(connection).unwrap(),
            n,
            line,
        };
        if !act(request, stream) {
            return;
        }
    }
}

/// Ends the connection with a reset: closing with unsent time zero.
pub(crate) fn reset(stream: TcpStream) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option's value is a local of the size that is given, and the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_LINGER: {}", std::io::Error::last_os_error());
    drop(stream);
}

/// A listener that accepts nothing and lets hardly anybody wait; keep it alive.
pub(crate) fn full_listener() -> (TcpListener, String) {
    use std::os::fd::AsRawFd;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: the descriptor is open; listen(2) on a listening socket only changes the backlog.
    let result = unsafe { libc::listen(listener.as_raw_fd(), 0) };
    assert_eq!(result, 0, "listen: {}", std::io::Error::last_os_error());
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// An address at which nobody listens: it was free a moment ago.
pub(crate) fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

/// Sends `last` when the client has half-closed, and then ends.
pub(crate) fn end_with(stream: &TcpStream, last: &[u8]) {
    let mut writer = stream;
    let _ = writer.write_all(last);
    let _ = stream.shutdown(Shutdown::Write);
}
