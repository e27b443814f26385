//! Waiting for bare descriptors with `runtime::io`, from green threads and from plain OS threads.

use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use runtime::net::TcpStream;
use runtime::{io, thread};
use tests::watchdog::Watchdog;

const SOON: Duration = Duration::from_millis(20);

// Goal: a wait ends with readiness or with its time, and is not early. Method: one body over a
// pair of sockets, on a plain OS thread and on a green one.
#[test]
fn waits_end_with_readiness_or_with_time() {
    let _watchdog = Watchdog::new(Duration::from_secs(30));
    let body = || {
        let (here, mut there) = UnixStream::pair().unwrap();
        let began = Instant::now();
        assert!(!io::wait_readable(&here, Some(SOON)).unwrap());
        assert!(began.elapsed() >= SOON);
        assert!(io::wait_writable(&here, None).unwrap());
        there.write_all(b"x").unwrap();
        assert!(io::wait_readable(&here, None).unwrap());
        assert!(io::wait_readable(&here, Some(Duration::ZERO)).unwrap());
        drop(there);
        (&here).read_exact(&mut [0]).unwrap();
        assert!(
            io::wait_readable(&here, None).unwrap(),
            "an end is readable"
        );
    };
    body();
    runtime::run(body);
}

// Goal: while one green thread waits for a bare descriptor, the others run, and many may wait for
// the same one. Method: three wait, a fourth writes; all three must be woken.
#[test]
fn several_green_threads_wait_for_one_descriptor() {
    let _watchdog = Watchdog::new(Duration::from_secs(30));
    runtime::run(|| {
        let (here, mut there) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let here = &here;
            let waiting: Vec<_> = (0..3)
                .map(|_| scope.spawn(move || io::wait_readable(here, None).unwrap()))
                .collect();
            thread::yield_now();
            assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
            there.write_all(b"x").unwrap();
            assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap()));
        });
    });
}

// Goal: a bare wait on a socket of ours neither ends nor deafens its registration. Method: one
// green thread is parked in `read`, another waits for the same descriptor; then the first reads on.
#[test]
fn a_bare_wait_and_a_read_share_a_descriptor() {
    let _watchdog = Watchdog::new(Duration::from_secs(30));
    runtime::run(|| {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let mut theirs = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = TcpStream::from(listener.accept().unwrap().0);
        thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut both = [0; 2];
                (&ours).read_exact(&mut both).unwrap();
                both
            });
            let waiting = scope.spawn(|| io::wait_readable(ours.as_fd(), None).unwrap());
            thread::yield_now();
            theirs.write_all(b"a").unwrap();
            assert!(waiting.join().unwrap());
            theirs.write_all(b"b").unwrap();
            assert_eq!(&reading.join().unwrap(), b"ab");
        });
    });
}

// Goal: a killed wait leaves nothing behind that would be woken. Method: kill one of two waiters
// of a descriptor, make it ready, and see the other served.
#[test]
fn a_killed_wait_leaves_the_others_waiting() {
    let _watchdog = Watchdog::new(Duration::from_secs(30));
    runtime::run(|| {
        let (here, mut there) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            let killed = scope.spawn(|| io::wait_readable(&here, None));
            let served = scope.spawn(|| io::wait_readable(&here, None).unwrap());
            thread::yield_now();
            killed.kill();
            assert!(killed.join().unwrap_err().is::<thread::Killed>());
            assert!(!served.is_finished());
            there.write_all(b"x").unwrap();
            assert!(served.join().unwrap());
        });
    });
}
