//! System calls for each request, counted by strace.
//!
//! Application, above L4. strace(1) starts the server and counts the calls of all its threads and
//! processes. It slows them down so much that nothing else can be measured with it; and since what
//! comes at the same time is handled together, calls that serve many requests count least.
//!
//! The server runs twice, with few messages on each connection and with many: the difference is
//! what the messages cost, without the server's beginning and end and those of the connections.
//!
//! Deliberately not here: systems without strace. Their tracers (dtruss, ktrace) print otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use crate::compare::process::{Server, Signal, Trouble};
use crate::compare::results::SystemCalls;
use crate::compare::trial::{self, Burden, Extent, Scratch};

/// Messages on each connection in the run that is taken off: enough for what is done only once on a
/// connection, like telling a poller of it, to be behind it.
const MESSAGES_FEW: u32 = 5;
const MESSAGES_MANY: u32 = 25;

/// How many of the calls are told by name.
const NAMES_MAX: usize = 6;

/// What calls were made, and how often.
type Calls = BTreeMap<String, u64>;

/// Whether strace is there and may trace; if not, why, with what to do about it.
pub(crate) fn obstacle() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some(
            "system calls were not counted: that takes strace, which is Linux's".to_owned(),
        );
    }
    let output = Command::new("strace")
        .args(["-c", "-f", "-o", "/dev/null", "true"])
        .stdin(Stdio::null())
        .output();
    match output {
        Err(error) => Some(format!(
            "system calls were not counted: strace cannot be started ({error}); install it \
             (Debian: apt-get install strace; Fedora: dnf install strace)"
        )),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            Some(format!(
                "system calls were not counted: strace may not trace here ({}); in a container, \
                 allow it (docker run --cap-add SYS_PTRACE)",
                said.lines().next().unwrap_or("it said nothing").trim()
            ))
        }
        Ok(_) => None,
    }
}

/// Counts the calls of the server that `server` starts, under this load.
pub(crate) fn count(
    server: &Command,
    mut burden: Burden,
    processors: (&[usize], &[usize]),
    scratch: &Scratch,
    signal: &Signal,
) -> Result<SystemCalls, Trouble> {
    let mut run = |messages| {
        burden.extent = Extent::Messages(messages);
        run_once(server, burden, processors, scratch, signal)
    };
    let (base, base_requests) = run(MESSAGES_FEW)?;
    let (all, all_requests) = run(MESSAGES_MANY)?;
    let requests = all_requests.saturating_sub(base_requests);
    if requests == 0 {
        return Err(Trouble::Failed(
            "nothing was answered under strace".to_owned(),
        ));
    }
    Ok(difference(&base, &all, requests))
}

fn run_once(
    server: &Command,
    burden: Burden,
    (server_processors, client_processors): (&[usize], &[usize]),
    scratch: &Scratch,
    signal: &Signal,
) -> Result<(Calls, u64), Trouble> {
    let file = scratch.file("strace");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o"]).arg(&file);
    command
        .arg("--")
        .arg(server.get_program())
        .args(server.get_args());
    command.env_remove("RUST_LOG");
    let mut server = Server::start_below(command, server_processors, signal)?;
    let loaded = trial::load(&mut server, burden, client_processors, scratch, signal)?;
    server.stop()?;
    let table = fs::read_to_string(&file)?;
    Ok((parse(&table), loaded.answered()))
}

/// The calls of strace's table, in which columns may be empty: only the first four are always
/// there, of which the last is the count, and the name, which stands at the end.
fn parse(table: &str) -> Calls {
    let mut calls = Calls::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(count), Some(name)) = (words.get(3), words.last()) else {
            continue;
        };
        // The lines of the header and of the sum have no number there, or no call's name.
        if let (Ok(count), true, false) = (count.parse::<u64>(), words.len() >= 5, *name == "total")
        {
            *calls.entry((*name).to_owned()).or_default() += count;
        }
    }
    calls
}

fn difference(base: &Calls, all: &Calls, requests: u64) -> SystemCalls {
    let per_request = |name: &String, count: &u64| {
        let before = base.get(name).copied().unwrap_or(0);
        (*count as f64 - before as f64) / requests as f64
    };
    let mut by_name: Vec<(String, f64)> = all
        .iter()
        .map(|(name, count)| (name.clone(), per_request(name, count)))
        .collect();
    by_name.sort_by(|one, other| other.1.total_cmp(&one.1));
    let sum = by_name.iter().map(|(_, each)| each).sum::<f64>();
    // Less than one in a thousand requests is noise of the beginning and the end.
    by_name.retain(|(_, each)| *each >= 0.001);
    by_name.truncate(NAMES_MAX);
    SystemCalls {
        per_request: sum.max(0.0),
        by_name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.11    0.000220          11        20           sendto
 30.56    0.000110           5        22         2 recvfrom
  0.00    0.000000           0         1           execve
------ ----------- ----------- --------- --------- ----------------
100.00    0.000360           8        43         2 total
";

    #[test]
    fn straces_table_is_read() {
        // Goal: counts with and without errors, and neither header nor sum. Method: a table.
        let calls = parse(TABLE);
        let expected = [("execve", 1), ("recvfrom", 22), ("sendto", 20)];
        assert_eq!(
            calls,
            expected
                .map(|(name, count)| (name.to_owned(), count))
                .into()
        );
        assert!(parse("strace: attach: ptrace(PTRACE_SEIZE, 1): no\n").is_empty());
    }

    #[test]
    fn what_the_messages_did_not_cause_is_taken_off() {
        // Goal: calls of the beginning vanish, those of messages are divided. Method: two tables.
        let base = parse(TABLE);
        let mut all = base.clone();
        *all.get_mut("sendto").unwrap() += 100;
        all.insert("futex".to_owned(), 50);
        let calls = difference(&base, &all, 100);
        assert_eq!(calls.per_request, 1.5);
        assert_eq!(
            calls.by_name,
            [("sendto".to_owned(), 1.0), ("futex".to_owned(), 0.5)]
        );
    }
}
