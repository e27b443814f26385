//! Example 2: a selector, which remembers something for every descriptor: here, what to call.
//!
//! Example 1 had a token for each thing to wait for; now each client brings its own callback.
//! Run it, and talk to it from several terminals: `nc 127.0.0.1 8080`.

use runtime::poller::Interest;
use runtime::selector::{Key, Ready, Selector};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;

/// What the selector keeps for a descriptor: a function to call when it is ready.
#[derive(Clone)]
struct Callback(Rc<Function>);
type Function = dyn Fn(&mut Selector<Callback>, Key) -> io::Result<()>;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.unwrap_or("127.0.0.1:8080".into()))?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);

    let mut selector = Selector::new()?;
    let fd = listener.as_raw_fd();
    let welcome = Callback(Rc::new(move |selector, _key| accept(&listener, selector)));
    selector.register(&fd, Interest::READABLE, welcome)?;

    let mut ready = Ready::new();
    loop {
        selector.select(&mut ready, None)?;
        for (key, _readiness) in ready.iter() {
            // A callback may unregister others, so each key is looked up when its turn comes. And
            // it gets the selector for itself: the registry is not borrowed while it runs.
            if let Some(Callback(call)) = selector.data(key).cloned() {
                call(&mut selector, key)?;
            }
        }
    }
}

fn accept(listener: &TcpListener, selector: &mut Selector<Callback>) -> io::Result<()> {
    let Ok((stream, _peer)) = listener.accept() else {
        return Ok(());
    };
    let fd = stream.as_raw_fd();
    let callback = Callback(Rc::new(move |selector, key| echo(&stream, selector, key)));
    selector
        .register(&fd, Interest::READABLE, callback)
        .map(drop)
}

fn echo(mut stream: &TcpStream, selector: &mut Selector<Callback>, key: Key) -> io::Result<()> {
    let mut buffer = [0; 1024];
    let length = stream.read(&mut buffer).unwrap_or(0);
    if length == 0 || stream.write_all(&buffer[..length]).is_err() {
        selector.unregister_key(key)?; // With its callback the stream goes too, and is closed.
    }
    Ok(())
}
