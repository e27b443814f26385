//! Runs `client` as a process under a deadline and reads its report.
//!
//! Test support for `tests/client*.rs`.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// Longer than any of these runs takes on a busy machine; only a hang gets here.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How a run of `client` ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The report; `Null` if none was written.
    pub(crate) json: Value,
}

/// A file name that no other test uses.
pub(crate) fn scratch_file(purpose: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("client-test-{}-{number}-{purpose}", std::process::id());
    std::env::temp_dir().join(name)
}

/// `client --connect address words...`, to its end, with its report checked for balance.
pub(crate) fn client(address: &str, words: &[&str]) -> Ended {
    let json = scratch_file("report.json");
    let mut command = Command::new(tests::binaries::client());
    command
        .args(["--connect", address, "--quiet"])
        .args(words)
        .arg("--json")
        .arg(&json);
    let mut ended = finish(spawn(&mut command));
    if let Ok(text) = std::fs::read_to_string(&json) {
        std::fs::remove_file(&json).unwrap();
        ended.json = serde_json::from_str(&text).unwrap();
        ended.check_balance();
    }
    ended
}

/// `client` under the shell after `setup`, which may change its limits.
pub(crate) fn client_after(setup: &str, words: &[&str]) -> Ended {
    let mut command = Command::new("sh");
    let script = format!("{setup}; exec \"$0\" \"$@\"");
    let client: OsString = tests::binaries::client().into();
    command.arg("-c").arg(script).arg(client).args(words);
    finish(spawn(&mut command))
}

/// Starts `command` with its output kept.
pub(crate) fn spawn(command: &mut Command) -> Child {
    command.env_remove("RUST_LOG");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for the end, or kills at the deadline and fails.
pub(crate) fn finish(child: Child) -> Ended {
    let process = child.id();
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || tx.send(child.wait_with_output()));
    let Ok(output) = rx.recv_timeout(DEADLINE) else {
        signal(process, libc::SIGKILL);
        let output = rx.recv().unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        panic!(
            "client did not end: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let output = output.unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        json: Value::Null,
    }
}

/// Sends `number` to a child that has not been waited for.
pub(crate) fn signal(process: u32, number: i32) {
    // SAFETY: kill(2) takes numbers only; the child has not been reaped, so the number is still its
    // own.
    let result = unsafe { libc::kill(process as libc::pid_t, number) };
    assert_eq!(result, 0, "kill: {}", std::io::Error::last_os_error());
}

/// Reads from `from` until `text` has come, under the deadline.
pub(crate) fn read_until(mut from: impl Read + Send + 'static, text: &'static str) -> String {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(text) {
            match from.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => seen.extend_from_slice(&piece[..count]),
            }
        }
        // The pipe is closed after this: nobody writes to it any more in the tests that use this.
        tx.send(String::from_utf8_lossy(&seen).into_owned())
    });
    let seen = rx
        .recv_timeout(DEADLINE)
        .expect("the text comes before the deadline");
    assert!(
        seen.contains(text),
        "the stream ended without {text:?}: {seen}"
    );
    seen
}

impl Ended {
    /// The number at `path` ("messages/sent").
    pub(crate) fn number(&self, path: &str) -> u64 {
        let value = self.json.pointer(&format!("/{path}"));
        let number = value.and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no number {path} in {:#}\n{}", self.json, self.stderr))
    }

    /// The failures as (phase, cause, connections, messages).
    pub(crate) fn failures(&self) -> Vec<(&str, &str, u64, u64)> {
        let kinds = self.json["failures"]
            .as_array()
            .expect("a report lists failures");
        fn text<'a>(kind: &'a Value, key: &str) -> &'a str {
            kind[key].as_str().expect("a text")
        }
        kinds
            .iter()
            .map(|kind| {
                (
                    text(kind, "phase"),
                    text(kind, "cause"),
                    kind["connections"].as_u64().unwrap(),
                    kind["messages"].as_u64().unwrap(),
                )
            })
            .collect()
    }

    /// What the report says about the first failure of the only kind.
    pub(crate) fn first_failure(&self) -> &str {
        self.json["failures"][0]["first"]
            .as_str()
            .expect("a failure is described")
    }

    /// Of twenty connections with ten messages each, one failed at its message 5, in this way; the
    /// others were not disturbed, and the report says so.
    pub(crate) fn assert_one_failed(&self, phase: &str, cause: &str) {
        let said = format!("{:#}\n{}{}", self.json, self.stdout, self.stderr);
        assert_eq!(self.code, Some(1), "{said}");
        assert_eq!(self.failures(), [(phase, cause, 1, 1)], "{said}");
        assert_eq!(self.number("messages/answered"), 19 * 10 + 5, "{said}");
        assert_eq!(self.number("connections/closed"), 19, "{said}");
        assert!(self.stdout.contains(cause), "{said}");
    }

    /// Every report balances, however the run went.
    fn check_balance(&self) {
        let number = |path| self.number(path);
        assert_eq!(
            number("messages/sent"),
            number("messages/answered") + number("messages/failed") + number("messages/in_flight"),
            "{:#}",
            self.json
        );
        let (connected, failed) = (
            number("connections/connected"),
            number("connections/failed"),
        );
        let connecting = number("connections/connecting");
        assert_eq!(
            number("connections/asked"),
            connected + failed + connecting,
            "{:#}",
            self.json
        );
        let (closed, broken) = (number("connections/closed"), number("connections/broken"));
        assert_eq!(
            connected,
            closed + broken + number("connections/open"),
            "{:#}",
            self.json
        );
        let by_kind = self.failures();
        let connections: u64 = by_kind
            .iter()
            .map(|(_, _, connections, _)| connections)
            .sum();
        let messages: u64 = by_kind.iter().map(|(_, _, _, messages)| messages).sum();
        assert_eq!(
            (connections, messages),
            (failed + broken, number("messages/failed"))
        );
    }
}
