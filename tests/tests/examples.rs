//! Every example of the runtime is run, as whoever reads it would.
//!
//! Those that are servers are told a free port, talked to and stopped; the others have to end by
//! themselves, with 0.
//! Deliberately not here: how long an example may be (see `house_rules`).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::watchdog::Watchdog;
use tests::{binaries, sources};

/// An example that runs; it is ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nobody to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the example; answers it and the first line it prints.
fn start(name: &str) -> (Running, BufReader<impl Read + use<>>, String) {
    let mut child = Command::new(binaries::example(name))
        .arg("127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let output = child.stdout.take().expect("its output is a pipe");
    let running = Running(child);
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line).expect("an example prints text");
    (running, output, line)
}

/// Says something in two pieces, and expects it back.
fn is_echoed(address: &str) {
    let mut stream = TcpStream::connect(address).expect("the example listens");
    for piece in ["hello, ", "example\n"] {
        stream.write_all(piece.as_bytes()).expect("it reads");
        let mut reply = vec![0; piece.len()];
        stream.read_exact(&mut reply).expect("it answers");
        assert_eq!(reply, piece.as_bytes());
    }
}

#[test]
fn every_example_does_what_it_says() {
    // Goal: no example rots. Method: runs each; what says that it listens has to echo to one
    // client after another, and whatever else has to end well.
    let _watchdog = Watchdog::new(Duration::from_secs(300));
    let examples = sources::below("runtime/examples");
    assert!(examples.len() >= 5, "there are at least five examples");
    for source in examples {
        let (_, file) = source.path.rsplit_once('/').expect("below a directory");
        let name = file.trim_end_matches(".rs");
        let (mut running, mut output, line) = start(name);
        if let Some(address) = line.trim_end().strip_prefix("listening on ") {
            is_echoed(address);
            is_echoed(address);
            let ended = running.0.try_wait().expect("a child can be asked");
            assert!(ended.is_none(), "{name} ended after two clients");
        } else {
            let mut rest = String::new();
            output
                .read_to_string(&mut rest)
                .expect("an example prints text");
            let status = running.0.wait().expect("a child can be waited for");
            assert!(status.success(), "{name}: {status}\n{line}{rest}");
        }
    }
}
