//! System calls a message, counted by strace while the load runs.
//!
//! Outside the layers. strace(1) attaches to the running server once all connections are open, so
//! that only the steady state is counted. It slows the server down very much, which makes batches
//! large: what is amortised over a batch shows as its smallest share.
//! Deliberately not here: times. They mean nothing under strace.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::child::Failure;
use crate::echo::{self, Subject};
use crate::load::Load;
use crate::plan::{Places, alternate, chosen};
use crate::report::{Better, Report, Row};
use crate::{Options, Part, Peer};

/// Counts for all servers and adds their lines; without strace a note says so.
pub(crate) fn run(options: &Options, places: Places, report: &mut Report) -> io::Result<()> {
    let version = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .status();
    if version.is_err() {
        report.note("system calls were not counted: there is no strace".to_owned());
        return Ok(());
    }
    let server = echo::server_program(options)?;
    let peers = chosen(options, &[Peer::Epoll, Peer::Tokio, Peer::May]);
    let length = Duration::from_millis(if options.quick { 200 } else { 1_000 });
    let mut details = Vec::new();
    let all = alternate("system calls", &peers, 1, |peer| {
        let subject = Subject::start(peer, &server, places.measured)?;
        let mut load = Load::connect(subject.address, options.connections, options.size)?;
        load.run(length / 5)?;
        let (requests, summary) = count(&subject, &mut load, length)?;
        let calls = parse(&summary);
        let total: u64 = calls.iter().map(|(_, count)| count).sum();
        details.push(describe(peer, &calls, requests));
        Ok(vec![total as f64 / requests as f64])
    });
    let row = Row {
        part: Part::Syscalls,
        what: format!(
            "system calls of the echo server, {} connections",
            options.connections
        ),
        unit: "calls a message",
        better: Better::Less,
        column: 0,
        goals: &[],
    };
    report.add(&row, &all);
    for detail in details {
        report.note(detail);
    }
    Ok(())
}

/// Runs the load with strace attached; the requests and what strace wrote.
fn count(subject: &Subject, load: &mut Load, length: Duration) -> Result<(u64, String), Failure> {
    let file = std::env::temp_dir().join(format!("bench-strace-{}", subject.id()));
    let result = count_into(&file, subject, load, length);
    let summary = fs::read_to_string(&file);
    let _ = fs::remove_file(&file);
    Ok((result?, summary?))
}

fn count_into(
    file: &Path,
    subject: &Subject,
    load: &mut Load,
    length: Duration,
) -> Result<u64, Failure> {
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-c",
            "-U",
            "calls,name",
            "-p",
            &subject.id().to_string(),
            "-o",
        ])
        .arg(file)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let result = attached(&mut strace).and_then(|()| Ok(load.run(length)?.requests));
    let id = i32::try_from(strace.id()).map_err(io::Error::other)?;
    // SAFETY: signals the child that was started above and has not been reaped yet. On SIGINT
    // strace detaches and writes its summary.
    unsafe { libc::kill(id, libc::SIGINT) };
    strace.wait()?;
    result
}

/// Waits until strace says that it has attached to the whole process.
fn attached(strace: &mut Child) -> Result<(), Failure> {
    let messages = strace
        .stderr
        .as_mut()
        .ok_or_else(|| Failure("no pipe".to_owned()))?;
    let mut line = String::new();
    BufReader::new(messages).read_line(&mut line)?;
    if line.contains("attached") {
        return Ok(());
    }
    Err(Failure(format!("strace cannot attach: {}", line.trim())))
}

/// The lines `count name` of strace's summary, most frequent first.
fn parse(summary: &str) -> Vec<(String, u64)> {
    let mut calls: Vec<(String, u64)> = summary
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let count = words.next()?.parse().ok()?;
            let name = words.next()?;
            (name != "total").then(|| (name.to_owned(), count))
        })
        .collect();
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    calls
}

fn describe(peer: Peer, calls: &[(String, u64)], requests: u64) -> String {
    let each: Vec<String> = calls
        .iter()
        .take(5)
        .map(|(name, count)| format!("{name} {:.4}", *count as f64 / requests as f64))
        .collect();
    format!("calls a message, {}: {}", peer.label(), each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Goal: header, rule and total of strace's summary are no calls. Method: a sample of it.
    #[test]
    fn a_summary_is_parsed() {
        let summary = "    calls syscall\n--------- ------\n  12 recvfrom\n 34 sendto\n 46 total\n";
        assert_eq!(
            parse(summary),
            [("sendto".to_owned(), 34), ("recvfrom".to_owned(), 12)]
        );
    }
}
