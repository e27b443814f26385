//! One model under load, once: `client load` runs as a child of its own, so that nothing of what
//! compares disturbs it.
//!
//! Application, above L4. The server's CPU time and context switches are those of its whole life,
//! its children and all their threads included: the kernel tells them when the server has ended,
//! and reading /proc meanwhile would cost the run more than it tells.
//!
//! Deliberately not here: how a load is made (`load`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use runtime::poller;
use serde::Deserialize;

use crate::compare::process::{Process, Server, Signal, Trouble};
use crate::compare::results::Trial;
use crate::compare::system::Usage;

/// How long a reply may take beyond the load itself: models that serve one after the other let the
/// last wait for long, and that is no failure of theirs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who uses more than this of a processor cannot be said to wait for the other side.
const BUSY: f64 = 0.9;

/// What a load consists of.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Burden {
    pub(crate) connections: u32,
    pub(crate) size_bytes: u32,
    pub(crate) extent: Extent,
}

#[derive(Copy, Clone, Debug)]
pub(crate) enum Extent {
    Duration(Duration),
    /// So many messages on each connection.
    Messages(u32),
}

/// What compare needs of the report of `client load`.
#[derive(Debug, Deserialize)]
struct Report {
    connections: Connections,
    messages: Messages,
    window: Option<Window>,
    latency_ns: Option<Latency>,
    latency_curve_ns: Option<Vec<(f64, f64)>>,
    failures: Vec<Failure>,
    client: Option<Effort>,
}

#[derive(Debug, Deserialize)]
struct Connections {
    failed: u32,
    broken: u32,
}

#[derive(Debug, Deserialize)]
struct Messages {
    answered: u64,
}

#[derive(Debug, Deserialize)]
struct Window {
    elapsed_s: f64,
    requests_per_s: f64,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

#[derive(Debug, Deserialize)]
struct Failure {
    phase: String,
    cause: String,
    first: String,
}

#[derive(Debug, Deserialize)]
struct Effort {
    cpu_share: f64,
}

/// A load that has been put on a server.
#[derive(Debug)]
pub(crate) struct Loaded {
    report: Report,
}

/// Where the reports of the loads lie for a moment. It goes away with everything in it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    ///
    /// If there can be no directory for temporary files.
    pub(crate) fn new() -> Result<Scratch, String> {
        let path = std::env::temp_dir().join(format!("client-compare-{}", std::process::id()));
        // It must be new: what somebody else has prepared there is not to be written to.
        fs::create_dir(&path)
            .map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
        Ok(Scratch(path))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Loads `server`, and waits for the end of the load.
pub(crate) fn load(
    server: &mut Server,
    burden: Burden,
    processors: &[usize],
    scratch: &Scratch,
    signal: &Signal,
) -> Result<Loaded, Trouble> {
    let file = scratch.file("load.json");
    let mut command = Command::new(std::env::current_exe()?);
    let length = match burden.extent {
        Extent::Duration(duration) => {
            command
                .arg("load")
                .arg("--duration")
                .arg(format!("{}ns", duration.as_nanos()));
            duration
        }
        Extent::Messages(messages) => {
            command
                .arg("load")
                .arg("--messages")
                .arg(messages.to_string());
            Duration::ZERO
        }
    };
    let timeout = length + PATIENCE;
    command
        .args(["--quiet", "--connect", &server.address.to_string()])
        .args(["--connections", &burden.connections.to_string()])
        .args(["--size", &burden.size_bytes.to_string()])
        .args(["--timeout", &format!("{}ms", timeout.as_millis())])
        .arg("--json")
        .arg(&file)
        .env_remove("RUST_LOG")
        // It chooses what models stand on. What measures them is always the same.
        .env_remove(poller::ENVIRONMENT_VARIABLE);
    let mut process = Process::start(command, processors, signal)?;
    process.discard_output();
    let status = process.wait(length + 2 * PATIENCE);
    // A server that has died is the reason of all that the client has met.
    server.check()?;
    let status = status?;
    let text = fs::read(&file);
    let _ = fs::remove_file(&file);
    let Ok(text) = text else {
        let said = process.complaint();
        return Err(Trouble::Failed(format!(
            "the client told nothing ({status}): {said}"
        )));
    };
    let report = serde_json::from_slice(&text).map_err(|error| {
        Trouble::Failed(format!("the client's report is not understood: {error}"))
    })?;
    Ok(Loaded { report })
}

impl Loaded {
    pub(crate) fn answered(&self) -> u64 {
        self.report.messages.answered
    }

    /// What went wrong, if that was more than `unserved` connections that had to wait too long.
    pub(crate) fn check(&self, unserved: u32) -> Result<(), Trouble> {
        let report = &self.report;
        let wrong = report
            .failures
            .iter()
            .find(|failure| failure.phase == "verify");
        let lost = report.connections.failed + report.connections.broken;
        match wrong.or(report.failures.first()) {
            Some(failure) if wrong.is_some() || lost > unserved => {
                let Failure {
                    phase,
                    cause,
                    first,
                } = failure;
                Err(Trouble::Failed(format!(
                    "{lost} connections failed, the first in {phase}: {cause} ({first})"
                )))
            }
            _ => Ok(()),
        }
    }

    /// The numbers of this load, together with what the server has used for it.
    pub(crate) fn trial(&self, usage: Usage) -> Result<Trial, Trouble> {
        let report = &self.report;
        let (Some(window), Some(latency), Some(effort)) =
            (&report.window, &report.latency_ns, &report.client)
        else {
            return Err(Trouble::Failed("nothing was answered".to_owned()));
        };
        let answered = report.messages.answered.max(1) as f64;
        let server_cpu_share = usage.cpu.as_secs_f64() / window.elapsed_s.max(1e-9);
        let summary = || {
            vec![
                (0.5, latency.p50),
                (0.9, latency.p90),
                (0.99, latency.p99),
                (0.999, latency.p99_9),
            ]
        };
        Ok(Trial {
            requests_per_s: window.requests_per_s,
            p50_ns: latency.p50,
            p99_ns: latency.p99,
            p99_9_ns: latency.p99_9,
            max_ns: latency.max,
            curve: report.latency_curve_ns.clone().unwrap_or_else(summary),
            cpu_per_request_ns: usage.cpu.as_nanos() as f64 / answered,
            switches_per_request: usage.switches as f64 / answered,
            server_cpu_share,
            client_cpu_share: effort.cpu_share,
            refused: f64::from(report.connections.failed),
            // Where the server had no time left either, neither waited for the other.
            client_was_the_limit: effort.cpu_share >= BUSY && server_cpu_share < BUSY,
        })
    }
}

impl Process {
    /// Reads the printed report and forgets it: the same numbers come in a file.
    fn discard_output(&mut self) {
        drop(self.lines());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(failures: &str, broken: u32) -> Loaded {
        let text = format!(
            r#"{{"connections": {{"failed": 0, "broken": {broken}, "open": 0}},
                 "messages": {{"answered": 1000}},
                 "window": {{"elapsed_s": 2.0, "requests_per_s": 500.0}},
                 "latency_ns": {{"p50": 1, "p90": 2, "p99": 3, "p99_9": 4, "max": 5}},
                 "failures": [{failures}],
                 "client": {{"cpu_share": 0.95}}}}"#
        );
        let report = serde_json::from_str(&text).unwrap();
        Loaded { report }
    }

    #[test]
    fn the_numbers_of_a_load_are_divided_by_its_requests() {
        // Goal: CPU time and switches are for each request, and who was the limit is told by both.
        // Method: a report, with an idle server and a busy one.
        let usage = Usage {
            cpu: Duration::from_millis(5),
            switches: 20,
        };
        let trial = loaded("", 0).trial(usage).unwrap();
        assert_eq!(trial.cpu_per_request_ns, 5_000.0);
        assert_eq!(trial.switches_per_request, 0.02);
        assert_eq!(trial.curve.len(), 4);
        assert!(trial.client_was_the_limit);
        let busy = Usage {
            cpu: Duration::from_millis(1_999),
            ..usage
        };
        assert!(!loaded("", 0).trial(busy).unwrap().client_was_the_limit);
    }

    #[test]
    fn those_who_wait_are_no_failure_and_wrong_bytes_are() {
        // Goal: as many as cannot be served may fail, by time, and nobody by wrong bytes. Method:
        // reports with each.
        let slow = r#"{"phase": "receive", "cause": "timed out", "first": "connection 3"}"#;
        let wrong = r#"{"phase": "verify", "cause": "missing bytes", "first": "connection 3"}"#;
        assert!(loaded(slow, 3).check(3).is_ok());
        assert!(loaded(slow, 4).check(3).is_err());
        let both = format!("{slow},{wrong}");
        assert!(matches!(
            loaded(&both, 2).check(3),
            Err(Trouble::Failed(text)) if text.contains("missing bytes")
        ));
    }

    #[test]
    fn nothing_of_the_scratch_directory_is_left() {
        // Goal: temporary files go away. Method: makes one, and looks.
        let scratch = Scratch::new().unwrap();
        let file = scratch.file("load.json");
        fs::write(&file, "{}").unwrap();
        drop(scratch);
        assert!(!file.exists());
    }
}
