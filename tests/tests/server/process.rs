//! A server as a child process, what the kernel tells of it, and a watchdog over the test.
//!
//! Test support for `server.rs` and `models.rs`. A server may consist of several processes: what is
//! asked of the kernel is asked of all of them. Man pages: proc(5), prctl(2), kill(2).
//!
//! Deliberately not here: clients, and what is expected of the server.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a test waits for something that must come about.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the test process, and its children with it, when a test hangs.
pub(crate) struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    /// Barks after `seconds`, unless it is dropped before.
    pub(crate) fn start(seconds: u64) -> Watchdog {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let (alive, dropped) = mpsc::channel::<()>();
        thread::spawn(move || {
            let deadline = Duration::from_secs(seconds);
            if dropped.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name} hangs: its {seconds} s are over");
                std::process::abort();
            }
        });
        Watchdog { _alive: alive }
    }
}

/// Looks again and again until `condition` holds.
///
/// # Panics
///
/// When it does not come about.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < PATIENCE,
            "it never came about that {what}"
        );
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// A command that runs the server, on a free port unless `arguments` say otherwise.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = bare_command(tests::binaries::server(), arguments);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
}

/// A command for a child that cannot outlive the thread that starts it.
pub(crate) fn bare_command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("RUST_LOG");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let end_with_parent = || {
        // SAFETY: prctl with these arguments only sets an attribute of the calling process.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call, which is async-signal-safe.
    unsafe { command.pre_exec(end_with_parent) };
    command
}

/// Lets the child have no more than `count` descriptors, and no way to raise that.
pub(crate) fn limit_descriptors(command: &mut Command, count: u64) {
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: count,
    };
    let set = move || {
        // SAFETY: `limit` is a valid structure of its own.
        match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure makes one system call, which is async-signal-safe.
    unsafe { command.pre_exec(set) };
}

/// Lets this process have as many descriptors as it may.
pub(crate) fn raise_own_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid structure to write to.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    assert_eq!(got, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid structure to read from.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(set, 0);
}

/// What a server left behind.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    /// What it printed after its address.
    pub(crate) output: String,
    pub(crate) log: String,
}

impl Outcome {
    /// The number before `word` in the summary, and 0 for an error that is not listed there.
    pub(crate) fn count(&self, word: &str) -> u64 {
        let line = self.output.replace(['\n', ':'], ", ");
        let part = line
            .split(", ")
            .find_map(|part| part.trim().strip_suffix(word));
        part.and_then(|number| number.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Whether no connection met an error.
    pub(crate) fn is_free_of_errors(&self) -> bool {
        self.output.contains("errors: none")
    }
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    output: BufReader<ChildStdout>,
    log: Arc<Mutex<String>>,
    logger: Option<JoinHandle<()>>,
    descriptors_idle: usize,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Server {
        Server::spawn(command(arguments))
    }

    /// Starts it and waits for its address.
    pub(crate) fn spawn(mut command: Command) -> Server {
        let mut child = command.spawn().expect("the server starts");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let written = log.clone();
        let logger = thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|count| count > 0) {
                written.lock().expect("no reader panics").push_str(&line);
                line.clear();
            }
        });
        let mut line = String::new();
        output.read_line(&mut line).expect("the output is text");
        let Some(address) = line.trim_end().strip_prefix("listening on ") else {
            let _ = child.wait();
            let _ = logger.join();
            panic!(
                "no address, but {line:?} and {:?}",
                log.lock().expect("nobody panics")
            );
        };
        let address = address.parse().expect("an address follows");
        let logger = Some(logger);
        let mut server = Server {
            address,
            child,
            output,
            log,
            logger,
            descriptors_idle: 0,
        };
        server.descriptors_idle = server.descriptors_at_rest();
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its own process and all that descend from it, zombies included.
    pub(crate) fn family(&self) -> Vec<Process> {
        let mut family = vec![Process(self.pid())];
        let mut next = 0;
        while let Some(process) = family.get(next) {
            family.extend(process.children());
            next += 1;
        }
        family
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// Waits until the log has `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        eventually(&format!("the log has {text:?}"), || {
            self.log().contains(text)
        });
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.family().iter().map(Process::descriptors).sum()
    }

    /// How many descriptors it has when it has started: it tells its address before it opens what
    /// its model waits with, and sleeps for the first time after. One model never sleeps: it has
    /// started when it has run for longer than starting takes.
    fn descriptors_at_rest(&self) -> usize {
        const TICKS_MIN: u64 = 10;
        let mut count = usize::MAX;
        eventually("the server waits for its first client", || {
            let before = std::mem::replace(&mut count, self.descriptors());
            let is_at_rest = self.family().iter().all(Process::is_asleep)
                || Process(self.pid()).processor_ticks() >= TICKS_MIN;
            is_at_rest && before == count
        });
        count
    }

    /// Waits until the server has no more descriptors than when it had no connection yet, and no
    /// process that has ended and was not waited for.
    pub(crate) fn wait_for_no_connection(&self) {
        let idle = self.descriptors_idle;
        eventually("every descriptor is closed", || self.descriptors() == idle);
        eventually("no zombie is left", || {
            self.family().iter().all(|process| process.state() != 'Z')
        });
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        self.of_family("status", "VmRSS:")
    }

    /// What it has written to memory; pages that its processes share are counted once.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.of_family("smaps_rollup", "Pss_Anon:")
    }

    /// The sum of a number that each process has in a file of the kernel's.
    fn of_family(&self, file: &str, key: &str) -> u64 {
        let numbers = self.family().into_iter().map(|process| {
            let text = process.read(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next());
            // Zombies have none.
            number.map_or(0, |number| number.parse().expect("a number of KiB"))
        });
        numbers.sum()
    }

    /// The processor time it has had, in clock ticks: a hundred a second.
    pub(crate) fn processor_ticks(&self) -> u64 {
        let family = self.family();
        family.iter().map(Process::processor_ticks).sum()
    }

    /// What it is doing: R runs, S sleeps, T is suspended.
    pub(crate) fn state(&self) -> char {
        Process(self.pid()).state()
    }

    pub(crate) fn signal(&self, signal: i32) {
        Process(self.pid()).signal(signal);
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Outcome {
        let mut output = String::new();
        self.output
            .read_to_string(&mut output)
            .expect("the output is text");
        let status = self.child.wait().expect("it is our child");
        self.logger
            .take()
            .expect("joined only here")
            .join()
            .expect("it does not panic");
        Outcome {
            status,
            output,
            log: self.log(),
        }
    }

    /// Stops it gracefully, after all connections have ended and are closed.
    pub(crate) fn stop(self) -> Outcome {
        self.wait_for_no_connection();
        self.signal(libc::SIGTERM);
        let outcome = self.wait();
        assert_eq!(
            outcome.status.code(),
            Some(0),
            "{}{}",
            outcome.output,
            outcome.log
        );
        assert!(
            outcome.output.starts_with("stopped by SIGTERM\n"),
            "{}",
            outcome.output
        );
        outcome
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has been waited for already, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process of a server, which may have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    fn children(&self) -> Vec<Process> {
        let tasks = std::fs::read_dir(self.path("task"));
        let of_task = |task: std::io::Result<std::fs::DirEntry>| {
            let children = std::fs::read_to_string(task.ok()?.path().join("children")).ok()?;
            let pids = children.split_whitespace();
            let pids = pids.map(|pid| Process(pid.parse().expect("a list of numbers")));
            Some(pids.collect::<Vec<Process>>())
        };
        let lists = tasks.into_iter().flatten().filter_map(of_task);
        lists.flatten().collect()
    }

    /// A process that has ended has none any more, as far as anybody can tell.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(self.path("fd")).map_or(0, Iterator::count)
    }

    fn processor_ticks(&self) -> u64 {
        // utime and stime are fields 14 and 15 of the whole line.
        let Some(fields) = self.stat() else {
            return 0;
        };
        let times = fields.split(' ').skip(11).take(2);
        times
            .map(|time| time.parse::<u64>().expect("a number"))
            .sum()
    }

    /// R runs, S sleeps, T is suspended, Z is a zombie, X is gone.
    pub(crate) fn state(&self) -> char {
        let stat = self.stat();
        stat.and_then(|stat| stat.chars().next()).unwrap_or('X')
    }

    /// Whether each of its threads sleeps.
    fn is_asleep(&self) -> bool {
        let tasks = std::fs::read_dir(self.path("task"));
        let sleeps = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            Some(fields_of(&stat).starts_with('S'))
        };
        // One that has just ended has not come to rest.
        tasks.is_ok_and(|tasks| tasks.into_iter().all(|task| sleeps(task) == Some(true)))
    }

    fn stat(&self) -> Option<String> {
        Some(fields_of(&self.read("stat")?).to_owned())
    }

    /// To be called for processes that nobody has waited for yet, so that the number is theirs.
    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0).expect("a pid fits");
        // SAFETY: kill touches no memory.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn read(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.path(file)).ok()
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.0)
    }
}

/// The fields of a `stat` from the third on: the second is the name, which may hold anything.
fn fields_of(stat: &str) -> &str {
    let (_, fields) = stat.rsplit_once(") ").expect("a name in brackets");
    fields
}
