//! What the runtime's sockets promise beyond std's: who waits where, and what may interrupt it.
//!
//! The comparison with std is in `net_conformance.rs`. Everything here runs on every poller.
//! Deliberately not here: the server and the client as programs.

#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use runtime::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use runtime::poller::Kind;
use runtime::thread;
use tests::child::in_child;
use tests::watchdog::Watchdog;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs `main` as a green thread on every poller, with so many workers.
fn on_every_poller(workers: usize, main: fn()) {
    let _watchdog = Watchdog::new(LIMIT);
    for kind in Kind::available() {
        println!("on {kind}");
        let builder = runtime::Builder::new().poller(*kind).workers(workers);
        builder.run(main).unwrap();
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen();
    let client = TcpStream::connect(address).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Writes until a green thread that shares the worker would have to wait.
fn fill(mut stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[7; 65536]).is_ok() {}
    stream.set_nonblocking(false).unwrap();
}

#[test]
fn only_the_caller_waits() {
    // Goal: each kind of wait lets the other green threads run. Method: one that counts rounds
    // must have run before the wait ends, because only then it ends the wait.
    on_every_poller(1, || {
        let rounds = Rc::new(Cell::new(0));
        let after_rounds = |count: usize, end: Box<dyn FnOnce()>| {
            let rounds = Rc::clone(&rounds);
            rounds.set(0);
            thread::spawn(move || {
                while rounds.get() < count {
                    rounds.set(rounds.get() + 1);
                    thread::yield_now();
                }
                end();
            })
        };
        let (listener, address) = listen();
        let connecting = after_rounds(10, Box::new(move || drop(TcpStream::connect(address))));
        listener.accept().unwrap();
        assert_eq!(rounds.get(), 10);
        connecting.join().unwrap();

        let (mut client, mut server) = pair();
        let writing = after_rounds(20, Box::new(move || client.write_all(b"x").unwrap()));
        assert_eq!(server.read(&mut [0]).unwrap(), 1);
        assert_eq!(rounds.get(), 20);
        writing.join().unwrap();

        let (mut client, mut server) = pair();
        fill(&server);
        let reading = after_rounds(
            30,
            Box::new(move || assert!(io::copy(&mut client, &mut io::sink()).unwrap() > 0)),
        );
        server.write_all(&[1; 100_000]).unwrap();
        assert_eq!(rounds.get(), 30);
        drop(server);
        reading.join().unwrap();
    });
}

#[test]
fn timeouts_let_others_run() {
    // Goal: a read that times out, and one that is in time, beside each other. Method: two waits
    // with very different limits on one worker; the long one is ended by bytes.
    on_every_poller(1, || {
        let (mut client, mut server) = pair();
        let (_silent, mut other) = pair();
        let patient = thread::spawn(move || {
            server.set_read_timeout(Some(LIMIT)).unwrap();
            server.read(&mut [0]).unwrap()
        });
        other
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let error = other.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        assert_eq!(patient.join().unwrap(), 1);
    });
}

#[test]
fn a_wait_that_is_cut_short_leaves_a_good_socket() {
    // Goal: a time-out around a call, and a kill, unwind from every kind of wait; the socket that
    // is left works. Method: cut, then complete the same exchange.
    on_every_poller(1, || {
        let short = Duration::from_millis(5);
        let (listener, address) = listen();
        assert!(runtime::timeout(short, || listener.accept()).is_err());
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert!(runtime::timeout(short, || server.read(&mut [0])).is_err());
        fill(&server);
        assert!(runtime::timeout(short, || server.write(&[0; 100])).is_err());

        let server = Rc::new(server);
        let shared = Rc::clone(&server);
        let waiting = thread::spawn(move || (&*shared).read(&mut [0]).unwrap());
        thread::yield_now();
        waiting.kill();
        assert!(waiting.join().is_err());
        client.write_all(b"x").unwrap();
        assert_eq!((&*server).read(&mut [0; 9]).unwrap(), 1);
        server.shutdown(Shutdown::Write).unwrap();
        assert!(io::copy(&mut client, &mut io::sink()).unwrap() > 0);
    });
}

#[test]
fn a_connect_that_is_cut_short_closes_its_socket() {
    // Goal: connect unwinds cleanly. Method: a listener with a full queue, in a child because
    // descriptors are counted.
    in_child("a_connect_that_is_cut_short_closes_its_socket", || {
        on_every_poller(1, || {
            let (listener, address) = listen();
            // SAFETY: the call takes no pointers.
            assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
            let short = Duration::from_millis(50);
            let mut queued = Vec::new();
            loop {
                let before = tests::child::descriptors();
                match runtime::timeout(short, || TcpStream::connect(address)) {
                    Ok(stream) => queued.push(stream.unwrap()),
                    Err(_) => {
                        assert_eq!(tests::child::descriptors(), before);
                        break;
                    }
                }
                assert!(queued.len() < 100, "the queue must fill up");
            }
        });
    });
}

#[test]
fn sockets_are_shared_by_workers() {
    // Goal: one socket used from several workers and a plain OS thread, in turns and at the same
    // time, then dropped where it is not registered. Method: acceptors on three workers for one
    // listener; each stream is read on another worker than the one that accepted it.
    on_every_poller(3, || {
        const EACH: usize = 20;
        let (listener, address) = listen();
        let listener = Arc::new(listener);
        let acceptors: Vec<_> = (0..3)
            .map(|worker| {
                let listener = Arc::clone(&listener);
                thread::spawn_on(worker, move || {
                    for stream in listener.incoming().take(EACH) {
                        let stream = Arc::new(stream.unwrap());
                        let other = Arc::clone(&stream);
                        let echo = move |mut stream: &TcpStream| {
                            let mut byte = [0];
                            stream.read_exact(&mut byte).unwrap();
                            stream.write_all(&byte).unwrap();
                        };
                        echo(&stream);
                        let away = thread::spawn_on((worker + 1) % 3, move || echo(&other));
                        away.join().unwrap();
                        let byte = std::thread::spawn(move || {
                            let mut byte = [0];
                            (&*stream).read_exact(&mut byte).unwrap();
                            byte[0]
                        });
                        while !byte.is_finished() {
                            thread::yield_now();
                        }
                        assert_eq!(byte.join().unwrap(), 3);
                    }
                })
            })
            .collect();
        let clients: Vec<_> = (0..3 * EACH)
            .map(|index| {
                thread::spawn_on(index % 3, move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    for number in [1, 2] {
                        stream.write_all(&[number]).unwrap();
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        assert_eq!(byte, [number]);
                    }
                    stream.write_all(&[3]).unwrap();
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                })
            })
            .collect();
        for thread in acceptors.into_iter().chain(clients) {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_number_is_reused_without_confusion() {
    // Goal: a socket that gets its predecessor's number gets none of its events. Method: wait on
    // each of a thousand sockets that follow one another under the same few numbers, while a
    // clone keeps every third of the predecessors open.
    on_every_poller(1, || {
        let kept = RefCell::new(Vec::new());
        for round in 0..1000 {
            let (mut client, mut server) = pair();
            let reader = thread::spawn(move || {
                let mut byte = [0];
                assert_eq!(server.read(&mut byte).unwrap(), 1);
                (server, byte[0])
            });
            thread::yield_now();
            client.write_all(&[round as u8]).unwrap();
            let (server, byte) = reader.join().unwrap();
            assert_eq!(byte, round as u8);
            if round % 3 == 0 {
                kept.borrow_mut().push(server.try_clone().unwrap());
            }
            if kept.borrow().len() > 20 {
                kept.borrow_mut().clear();
            }
        }
    });
}

#[test]
fn numbers_are_not_looked_up_elsewhere() {
    // Goal: only names go to another OS thread. Method: count the OS threads of a child.
    let name = "numbers_are_not_looked_up_elsewhere";
    if !cfg!(target_os = "linux") {
        println!("skipped: this system does not list a process's threads");
        return;
    }
    in_child(name, || {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let _watchdog = Watchdog::new(LIMIT);
        runtime::run(|| {
            let before = threads();
            let (listener, address) = listen();
            TcpStream::connect(address).unwrap();
            TcpStream::connect(("127.0.0.1", address.port())).unwrap();
            TcpStream::connect(address.to_string()).unwrap();
            TcpListener::bind("[::1]:0").unwrap();
            TcpStream::connect("no address").unwrap_err();
            assert_eq!(threads(), before);
            TcpStream::connect(("localhost", address.port())).unwrap();
            assert_eq!(threads(), before + 1);
            drop(listener);
        });
    });
}

#[test]
fn a_broken_pipe_is_no_signal() {
    // Goal: SIGPIPE never kills, whatever its action. Method: a child with the default action
    // writes in every way to a peer that is gone.
    in_child("a_broken_pipe_is_no_signal", || {
        // SAFETY: nothing in this process relies on the action of SIGPIPE.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let attempt = || {
            let (client, mut server) = pair();
            client.shutdown(Shutdown::Both).unwrap();
            drop(client);
            while server.write(&[0; 1000]).is_ok() {}
            let buffers = [io::IoSlice::new(b"x")];
            let error = server.write_vectored(&buffers).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        };
        attempt();
        runtime::run(attempt);
    });
}

#[test]
fn signals_interrupt_nothing() {
    // Goal: a handler that does not restart system calls is not noticed by any wait. Method: a
    // plain OS thread and a run, both showered with a signal while they exchange bytes.
    extern "C" fn count(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::Relaxed);
    }
    static SIGNALS: AtomicUsize = AtomicUsize::new(0);
    in_child("signals_interrupt_nothing", || {
        let _watchdog = Watchdog::new(LIMIT);
        // SAFETY: zeros are a valid action: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count as *const () as libc::sighandler_t;
        // SAFETY: the handler only adds to an atomic.
        let result =
            unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
        assert_eq!(result, 0);
        // SAFETY: the call has no preconditions.
        let target = unsafe { libc::pthread_self() } as usize;
        let done = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&done);
        let shower = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                // SAFETY: the target waits for this thread before it ends.
                unsafe { libc::pthread_kill(target as libc::pthread_t, libc::SIGUSR1) };
                std::thread::yield_now();
            }
        });
        // The peer answers only after more signals have come, so that each wait meets some.
        let exchange = |listener: TcpListener, address: SocketAddr| {
            let peer = std::thread::spawn(move || {
                for _ in 0..50 {
                    let (mut stream, _) = listener.accept().unwrap();
                    let until = SIGNALS.load(Ordering::Relaxed) + 3;
                    while SIGNALS.load(Ordering::Relaxed) < until {
                        std::thread::yield_now();
                    }
                    stream.write_all(b"x").unwrap();
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                }
            });
            for _ in 0..50 {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                assert_eq!(stream.read(&mut [0]).unwrap(), 1);
            }
            peer.join().unwrap();
        };
        let (listener, address) = listen();
        exchange(listener, address);
        for kind in Kind::available() {
            let (listener, address) = listen();
            let run = || exchange(listener, address);
            runtime::Builder::new().poller(*kind).run(run).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        shower.join().unwrap();
    });
}

#[test]
fn without_descriptors_accept_fails_and_recovers() {
    // Goal: EMFILE leaves the connection in the queue. Method: a child with few descriptors.
    in_child("without_descriptors_accept_fails_and_recovers", || {
        on_every_poller(1, || {
            let (listener, address) = listen();
            let mut client = TcpStream::connect(address).unwrap();
            let mut hoard = Vec::new();
            let limit = libc::rlimit {
                rlim_cur: 64,
                rlim_max: 4096,
            };
            // SAFETY: the kernel reads a limit that outlives the call.
            let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
            while let Ok(fd) = listener.as_fd().try_clone_to_owned() {
                hoard.push(fd);
            }
            for _ in 0..3 {
                let error = listener.accept().unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            }
            let error = TcpStream::connect(address).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            hoard.clear();
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(b"x").unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 1);
        });
    });
}

#[test]
fn unwinding_code_may_use_sockets() {
    // Goal: I/O in a destructor while a panic unwinds waits without switching to another green
    // thread. Method: a guard that says good-bye and waits for the answer from an OS thread.
    struct Goodbye(TcpStream);
    impl Drop for Goodbye {
        fn drop(&mut self) {
            self.0.write_all(b"bye").unwrap();
            let mut answer = [0; 2];
            self.0.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"ok");
        }
    }
    on_every_poller(1, || {
        let (client, mut server) = pair();
        let peer = std::thread::spawn(move || {
            let mut bytes = [0; 3];
            server.read_exact(&mut bytes).unwrap();
            server.write_all(b"ok").unwrap();
        });
        let dying = thread::spawn(move || {
            let _goodbye = Goodbye(client);
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(dying.join().is_err());
        peer.join().unwrap();
    });
}
