//! A server, or a client that loads it, as a child process: from its start to its end, which it
//! reaches whatever happens.
//!
//! Application, above L4. Man pages: wait(2), signal(7). Each child has a deadline; one that does
//! not end by itself is killed by its process id, and so is whatever it leaves behind.
//!
//! Deliberately not here: what is measured (`trial`, `audience`, `strace`).

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGKILL, SIGTERM};

use crate::compare::procfs;
use crate::compare::system::{self, Usage};

/// For how long a server may prepare before it tells its address.
const START_LIMIT: Duration = Duration::from_secs(10);
/// For how long a server may drain: twice what it allows itself.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether a child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What is kept of a child's complaints.
const COMPLAINT_BYTES_MAX: usize = 16 * 1024;
/// For how long a child may take to print all that it has to say, and how much that may be.
const OUTPUT_LIMIT: Duration = Duration::from_secs(10);
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// Why there is no number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server said that it has no such model here, or cannot have it.
    Lacking(String),
    /// Something went wrong.
    Failed(String),
    /// The user wants no more of it: this signal came.
    Interrupted(usize),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble::Failed(error.to_string())
    }
}

/// The number of the signal that came, or 0.
#[derive(Clone, Debug)]
pub(crate) struct Signal(pub(crate) Arc<AtomicUsize>);

impl Signal {
    /// # Errors
    ///
    /// If a signal has come.
    pub(crate) fn check(&self) -> Result<(), Trouble> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Trouble::Interrupted(signal)),
        }
    }

    /// Lets time pass.
    ///
    /// # Errors
    ///
    /// If a signal has come.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), Trouble> {
        thread::sleep(time);
        self.check()
    }
}

/// A child process that is ended, with all that descend from it, when this value goes away.
pub(crate) struct Process {
    child: Child,
    complaint: Arc<Mutex<Vec<u8>>>,
    signal: Signal,
    ended: bool,
    /// Whether nothing else of ours runs after its end, so that any process left then is an orphan.
    is_last: bool,
}

impl Process {
    /// Starts `command` on these processors; its standard output is a pipe.
    pub(crate) fn start(
        mut command: Command,
        processors: &[usize],
        signal: &Signal,
    ) -> Result<Process, Trouble> {
        system::confine(&mut command, processors);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy();
            Trouble::Failed(format!("{program} cannot be started: {error}"))
        })?;
        let complaint = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let complaint = Arc::clone(&complaint);
            thread::spawn(move || collect(stderr, &complaint));
        }
        Ok(Process {
            child,
            complaint,
            signal: signal.clone(),
            ended: false,
            is_last: false,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines of its standard output, as they come.
    pub(crate) fn lines(&mut self) -> Receiver<String> {
        let (tx, rx) = mpsc::channel();
        if let Some(stdout) = self.child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // Nobody may listen any more; the pipe is read on, or the child would wait.
                    let _ = tx.send(line);
                }
            });
        }
        rx
    }

    /// All that it prints on its standard output, until it ends that.
    ///
    /// # Errors
    ///
    /// If that takes too long or is too much, or a signal comes first.
    pub(crate) fn output(mut self) -> Result<String, Trouble> {
        let lines = self.lines();
        let deadline = Instant::now() + OUTPUT_LIMIT;
        let mut text = String::new();
        while Instant::now() < deadline && text.len() < OUTPUT_BYTES_MAX {
            self.signal.check()?;
            match lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => text.extend([line.as_str(), "\n"]),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(text),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
        let limit = OUTPUT_LIMIT.as_secs();
        Err(Trouble::Failed(format!(
            "the server's --help has no end within {limit} s and {OUTPUT_BYTES_MAX} bytes: is it \
             the server of this client?"
        )))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If it does not end in time, or a signal comes first; it goes on then.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus, Trouble> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let limit = limit.as_secs();
                return Err(Trouble::Failed(format!("it did not end within {limit} s")));
            }
            self.signal.pause(LOOK_EVERY)?;
        }
    }

    /// The last line that it has written to its standard error.
    pub(crate) fn complaint(&self) -> String {
        // Text is whole even if a reader panicked beside it.
        let complaint = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&complaint);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.unwrap_or("it said nothing").trim();
        // Who speaks is known.
        last.strip_prefix("server: ").unwrap_or(last).to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            // Those that descend from it are found while it is there to descend from.
            for process in procfs::family(self.id()).into_iter().rev() {
                // Whoever has ended meanwhile needs no signal.
                let _ = system::send_signal(process, SIGKILL);
            }
            let _ = self.child.wait();
        }
        if self.is_last {
            end_orphans();
        }
    }
}

/// Keeps the beginning of what a child complains of; the rest is read, and forgotten.
fn collect(mut from: impl Read, complaint: &Mutex<Vec<u8>>) {
    let mut piece = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let mut complaint = complaint.lock().unwrap_or_else(PoisonError::into_inner);
        let room = COMPLAINT_BYTES_MAX.saturating_sub(complaint.len());
        complaint.extend_from_slice(&piece[..count.min(room)]);
    }
}

/// Ends the processes that have lost their parent and came to this one; how many still lived.
#[cfg(target_os = "linux")]
fn end_orphans() -> usize {
    if !system::adopts_orphans() {
        return 0;
    }
    let own = std::process::id();
    let orphans: Vec<u32> = procfs::family(own)
        .into_iter()
        .filter(|process| *process != own)
        .collect();
    orphans
        .iter()
        .filter(|process| {
            let was_alive = system::send_signal(**process, SIGKILL).is_ok();
            system::reap(**process);
            was_alive
        })
        .count()
}

#[cfg(not(target_os = "linux"))]
fn end_orphans() -> usize {
    0
}

/// A server that listens.
pub(crate) struct Server {
    process: Process,
    /// The server itself, which is not `process` if something (strace) runs it.
    id: u32,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    ///
    /// `Lacking` if it ends by itself with an error of its own instead.
    pub(crate) fn start(
        command: Command,
        processors: &[usize],
        signal: &Signal,
    ) -> Result<Server, Trouble> {
        let mut process = Process::start(command, processors, signal)?;
        process.is_last = true;
        let lines = process.lines();
        let deadline = Instant::now() + START_LIMIT;
        let line = loop {
            signal.check()?;
            match lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => break line,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(without_address(process)),
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let limit = START_LIMIT.as_secs();
                    let text = format!("the server did not listen within {limit} s");
                    return Err(Trouble::Failed(text));
                }
            }
        };
        let address = line.strip_prefix("listening on ").map(str::parse);
        let Some(Ok(address)) = address else {
            let text = format!("the server said {line:?} instead of its address");
            return Err(Trouble::Failed(text));
        };
        let id = process.id();
        Ok(Server {
            process,
            id,
            address,
        })
    }

    /// As [`Server::start`], for a command that runs the server as its only child.
    pub(crate) fn start_below(
        command: Command,
        processors: &[usize],
        signal: &Signal,
    ) -> Result<Server, Trouble> {
        let mut server = Server::start(command, processors, signal)?;
        server.id = procfs::family(server.id)
            .get(1)
            .copied()
            .ok_or_else(|| Trouble::Failed("the server is not to be found".to_owned()))?;
        Ok(server)
    }

    /// The server and all its children.
    pub(crate) fn family(&self) -> Vec<u32> {
        procfs::family(self.id)
    }

    /// Why the server is no longer there, if it is not.
    pub(crate) fn check(&mut self) -> Result<(), Trouble> {
        match self.process.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                self.process.ended = true;
                let said = self.process.complaint();
                let text = format!("the server ended under the load ({status}): {said}");
                Err(Trouble::Failed(text))
            }
        }
    }

    /// Asks it to stop, waits for its end, and tells what it has used from its beginning on.
    ///
    /// # Errors
    ///
    /// If it ends with an error, or not at all, or leaves somebody behind.
    pub(crate) fn stop(mut self) -> Result<Usage, Trouble> {
        self.check()?;
        // Only the server's share is added between here and its end.
        let before = system::usage_of_ended_children();
        system::send_signal(self.id, SIGTERM)?;
        let status = match self.process.wait(STOP_LIMIT) {
            Err(Trouble::Failed(text)) => {
                return Err(Trouble::Failed(format!("asked to stop, {text}")));
            }
            result => result?,
        };
        let usage = system::usage_of_ended_children().since(before);
        if !status.success() {
            let said = self.process.complaint();
            let text = format!("asked to stop, the server ended with {status}: {said}");
            return Err(Trouble::Failed(text));
        }
        match end_orphans() {
            0 => Ok(usage),
            count => Err(Trouble::Failed(format!(
                "the server left {count} processes behind, which were killed"
            ))),
        }
    }
}

/// Why a server has closed its output without telling an address.
fn without_address(mut process: Process) -> Trouble {
    let status = match process.wait(START_LIMIT) {
        Ok(status) => status,
        Err(trouble) => return trouble,
    };
    // The reader of the complaint may be a moment behind the end.
    let deadline = Instant::now() + Duration::from_millis(200);
    while Arc::strong_count(&process.complaint) > 1 && Instant::now() < deadline {
        thread::yield_now();
    }
    let said = process.complaint();
    match status.code() {
        // It looked, and decided that it cannot be.
        Some(code) if code != 0 => Trouble::Lacking(said),
        _ => Trouble::Failed(format!(
            "the server ended before it listened ({status}): {said}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn silent() -> Signal {
        Signal(Arc::default())
    }

    fn start(script: &str) -> Result<Server, Trouble> {
        Server::start(shell(script), &[], &silent())
    }

    #[test]
    fn a_server_that_says_no_lacks_the_model() {
        // Goal: a refusal is told from a failure, with the server's words. Method: shells that end
        // in each way before they tell an address.
        let refused = start("echo starting >&2; echo 'no such model here' >&2; exit 1").err();
        assert_eq!(
            refused,
            Some(Trouble::Lacking("no such model here".to_owned()))
        );
        let killed = start("kill -9 $$").err();
        assert!(matches!(killed, Some(Trouble::Failed(text)) if text.contains("signal")));
        let other = start("echo hello; read line").err();
        assert!(matches!(other, Some(Trouble::Failed(text)) if text.contains("hello")));
    }

    #[test]
    fn a_server_that_dies_is_told() {
        // Goal: an end under the load, and one with an error, are failures. Method: shells that
        // pretend to listen.
        let mut server = start("echo listening on 127.0.0.1:1; echo broken >&2; exit 3").unwrap();
        while server.check().is_ok() {
            thread::yield_now();
        }
        let script =
            "trap 'exit 5' TERM; echo listening on 127.0.0.1:1; while :; do sleep 0.01; done";
        let ended = start(script).unwrap().stop();
        assert!(matches!(ended, Err(Trouble::Failed(text)) if text.contains("status: 5")));
    }

    #[test]
    fn an_interruption_comes_through() {
        // Goal: a signal ends each wait. Method: a signal that has come already.
        let signal = Signal(Arc::new(AtomicUsize::new(2)));
        let result = Server::start(shell("read line"), &[], &signal);
        assert_eq!(result.err(), Some(Trouble::Interrupted(2)));
    }
}
