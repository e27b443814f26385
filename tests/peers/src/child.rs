//! Child processes: each is pinned to one processor, has a deadline, dies with its parent and is
//! killed by its own process id.
//!
//! Outside the layers. Rests on prctl(2) (`PR_SET_PDEATHSIG`), sched_setaffinity(2), wait(2).
//! Deliberately not here: what the children do. See `servers` and `micro`.

use std::fmt;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine;

/// Why a child gave no number.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure(error.to_string())
    }
}

/// A running child that is killed and reaped when this value goes away.
pub(crate) struct Running(Child);

impl Running {
    /// Starts `command` on `processor`; its output is to be collected by `finish`.
    pub(crate) fn start(mut command: Command, processor: usize) -> io::Result<Running> {
        let prepare = move || {
            // SAFETY: prctl with these arguments only sets a field of the calling process.
            let status = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            if status != 0 {
                return Err(io::Error::last_os_error());
            }
            machine::pin(processor)
        };
        // SAFETY: `prepare` makes two system calls, allocates nothing and takes no lock.
        unsafe { command.pre_exec(prepare) };
        command.stdin(Stdio::null());
        Ok(Running(command.spawn()?))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits for the end, at most until the deadline, and returns what was printed.
    fn finish(mut self, limit: Duration) -> Result<String, Failure> {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.0.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                return Err(Failure(format!("did not finish in {} s", limit.as_secs())));
            }
            // The parent has nothing else to wait for, and wakes on the other processor.
            thread::sleep(Duration::from_millis(2));
        };
        let mut printed = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            output.read_to_string(&mut printed)?;
        }
        if status.success() {
            return Ok(printed);
        }
        let mut complaint = String::new();
        if let Some(mut output) = self.0.stderr.take() {
            output.read_to_string(&mut complaint)?;
        }
        // A panic names its place on the first line and its reason on the second.
        let lines = complaint.lines().filter(|line| !line.trim().is_empty());
        let said: Vec<&str> = lines.take(2).collect();
        Err(Failure(format!("{status}: {}", said.join(" "))))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the child has been reaped already, and then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command that starts this very program in one of its child roles.
pub(crate) fn own_command(arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(arguments);
    Ok(command)
}

/// Runs a command to its end on `processor` and returns the numbers that it printed.
pub(crate) fn numbers(
    mut command: Command,
    processor: usize,
    limit: Duration,
) -> Result<Vec<f64>, Failure> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let printed = Running::start(command, processor)?.finish(limit)?;
    let numbers: Result<Vec<f64>, _> = printed.split_whitespace().map(str::parse).collect();
    numbers.map_err(|_| Failure(format!("printed {printed:?} instead of numbers")))
}

/// A local address on which nothing listens at the moment.
///
/// Another process may take it before the child does; the child then fails, and says so.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Waits until something accepts connections at `address`.
pub(crate) fn await_listener(
    running: &mut Running,
    address: SocketAddr,
    limit: Duration,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    loop {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        if let Some(status) = running.0.try_wait()? {
            return Err(Failure(format!(
                "the server ended before it listened: {status}"
            )));
        }
        if Instant::now() >= deadline {
            return Err(Failure(format!("no listener within {} s", limit.as_secs())));
        }
        thread::sleep(Duration::from_millis(2));
    }
}
