//! The echo comparison: one server at a time on one processor, the load on the other.
//!
//! Outside the layers. Measured is the processor time of the whole server process, kernel included,
//! divided by the requests that were answered in it: unlike requests per second it does not depend
//! on how fast the load is. Each measurement starts a fresh server, since where the loader happens
//! to put a process in memory is worth a few percent.
//! Deliberately not here: the servers. See `servers`; ours is the workspace's own `server`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::child::{self, Failure, Running};
use crate::load::Load;
use crate::plan::{Places, alternate, chosen};
use crate::report::{Better, Goal, Report, Row};
use crate::{Options, Part, Peer, machine};

/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Measures all servers and adds their lines.
pub(crate) fn run(options: &Options, places: Places, report: &mut Report) -> io::Result<()> {
    use Peer::{Epoll, May, Monoio, Smol, Threads, Tokio};
    let server = server_program(options)?;
    let peers = chosen(options, &[Epoll, Tokio, May, Threads, Smol, Monoio]);
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 9 });
    let length = Duration::from_millis(if options.quick { 100 } else { 700 });
    let what = format!(
        "echo, {} connections, {} bytes",
        options.connections, options.size
    );
    let all = alternate(&what, &peers, rounds, |peer| {
        let mut subject = Subject::start(peer, &server, places.measured)?;
        let mut load = Load::connect(subject.address, options.connections, options.size)?;
        // Warms up: stacks, buffers and the slow starts of all connections.
        load.run(length / 5)?;
        let before_ns = subject.processor_time_ns()?;
        let stretch = load.run(length)?;
        let used_ns = subject.processor_time_ns()? - before_ns;
        let seconds = stretch.elapsed.as_secs_f64();
        let requests = stretch.requests as f64;
        Ok(vec![
            used_ns as f64 / requests,
            requests / seconds,
            used_ns as f64 / seconds / 1e7,
        ])
    });
    let rows = [
        ("", "server's CPU ns a request", Better::Less),
        (", throughput", "requests/s", Better::More),
        (", the server's processor", "% busy", Better::Less),
    ];
    for (column, (suffix, unit, better)) in rows.into_iter().enumerate() {
        let goals: &[(Peer, Goal)] = if column == 0 {
            &[(Tokio, Goal::Ratio(1.0)), (May, Goal::Ratio(0.9))]
        } else {
            &[]
        };
        let what = format!("{what}{suffix}");
        report.add(
            &Row {
                part: Part::Echo,
                what,
                unit,
                better,
                column,
                goals,
            },
            &all,
        );
    }
    Ok(())
}

/// A running echo server.
pub(crate) struct Subject {
    running: Running,
    pub(crate) address: SocketAddr,
}

impl Subject {
    /// Starts a server and waits until it listens.
    pub(crate) fn start(peer: Peer, server: &Path, processor: usize) -> Result<Subject, Failure> {
        let address = child::free_address()?;
        let text = address.to_string();
        let mut command = if peer == Peer::Ours {
            let mut command = Command::new(server);
            command.args(["--listen", &text]).env_remove("RUST_LOG");
            command
        } else {
            child::own_command(&["serve", &peer.word(), &text])?
        };
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::start(command, processor)?;
        child::await_listener(&mut running, address, START_LIMIT)?;
        Ok(Subject { running, address })
    }

    /// The server's process id.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    fn processor_time_ns(&mut self) -> Result<u64, Failure> {
        Ok(machine::processor_time_ns(self.id())?)
    }
}

/// The workspace's server, built now unless the command line names another.
pub(crate) fn server_program(options: &Options) -> io::Result<PathBuf> {
    if let Some(path) = &options.server {
        return Ok(path.clone());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--package",
            "server",
            "--bin",
            "server",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(workspace)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other("the workspace's server does not build"));
    }
    // Cargo names the program itself, wherever the target directory may be.
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .ok_or_else(|| io::Error::other("cargo built the server but did not say where"))
}
