//! Scenes that may end their process: this test binary again, whose death is then examined.
//!
//! Man pages: environ(7), wait(2). Not here: bodies that are to succeed (see `child`), the
//! programs under test (see `binaries`).

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Tells the child which scene to play.
const VARIABLE: &str = "TESTS_SCENE";

/// No scene takes longer than this, under emulation either.
const DEADLINE: Duration = Duration::from_secs(60);

/// How a scene has ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code or signal.
    pub status: ExitStatus,
    /// What it has printed.
    pub output: String,
    /// What it has printed to the standard error.
    pub complaint: String,
}

impl Ended {
    /// Asserts that it went through, and returns what it has printed.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.output
    }

    /// Asserts that this signal ended it, and returns what it has complained of.
    #[track_caller]
    pub fn died_by(self, signal: i32) -> String {
        assert_eq!(self.status.signal(), Some(signal), "{self:?}");
        self.complaint
    }
}

/// Plays `scene` in a child process. To be called once, from the test named `test`: in the child
/// the same test is run, and here plays the scene and exits.
pub fn play(test: &str, scene: impl FnOnce()) -> Ended {
    play_with(test, &[], scene)
}

/// As [`play`], with more environment variables for the child.
pub fn play_with(test: &str, variables: &[(&str, &str)], scene: impl FnOnce()) -> Ended {
    if std::env::var(VARIABLE).is_ok_and(|name| name == test) {
        scene();
        std::process::exit(0);
    }
    let mut command = crate::child::this_program();
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, test).envs(variables.iter().copied());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("a test must be able to run itself");
    let output = collect(child.stdout.take());
    let complaint = collect(child.stderr.take());
    let (ended, watchdog) = watch(child.id() as libc::pid_t);
    let status = child.wait().expect("a child must be waitable");
    drop(ended);
    assert!(
        !watchdog.join().expect("a watchdog must not panic"),
        "{test}: it took too long"
    );
    let joined = "a reader must not panic";
    Ended {
        status,
        output: output.join().expect(joined),
        complaint: complaint.join().expect(joined),
    }
}

/// Kills the child if the returned sender is not dropped in time; tells whether it did.
fn watch(child: libc::pid_t) -> (Sender<()>, JoinHandle<bool>) {
    let (ended, rx) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let too_long = rx.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout);
        if too_long {
            // SAFETY: kill reads no memory of ours. The child has hung for a minute.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        too_long
    });
    (ended, watchdog)
}

/// Reads a pipe to its end beside us, so that the child never blocks on a full one.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
