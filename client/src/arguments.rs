//! The command line of `client`.
//!
//! Application, above L4. Everything that can be told wrong from the words alone is refused here,
//! as a usage error (exit code 2), before a descriptor is opened.
//!
//! Deliberately not here: what only the machine can tell (descriptors, ports: `limits`) and what
//! only the network can tell (names, refusals: `load`).

use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::chat::{self, Chat};
use crate::compare::Compare;
use crate::find_max;
use crate::hostile;
use crate::limits::Needs;
use crate::merge::{self, Merge};
use crate::message;
use crate::pacing::Pace;
use crate::results::Results;
use crate::style::{self, Style};

/// What `--help` adds after the options.
const AFTER_HELP: &str = "\
Every reply is compared with what was sent, byte for byte. A connection that fails is closed and
counted, never opened again; the others go on.

Exit codes:
  0    everything sent was answered, right and in order, and every connection ended in order
  1    anything failed, or the run could not start; this comes before 3. With a gate on `failures`
       that gate decides instead how many of the measured connections may fail
  2    the command line is wrong
  3    a gate (--fail-if) was not met, or nothing was measured to tell; or --find-max found no rate
  130  Ctrl-C: the report so far is printed (a second Ctrl-C ends at once); 143: SIGTERM, the same

Metrics of --fail-if, each with < <= > or >= and a number with its unit:
  p50 p90 p99 p99.9 (any pN), min, mean, max       response time, from when a message was due
  service.p99 ...  connect.p99 ...  lag.p99 ...    service time, connecting, the client's own lag
  silence (longest time without any reply), rate (per second), failures (connections), fairness

Keys of --json (durations in the unit that ends the name):
  outcome       complete | interrupted | not_started
  runs          list of id, connect, started_unix_s: one, or all that were merged
  settings      what the run was asked to do
  connections   asked = connected + failed + connecting; connected = closed + broken + open
  connect       elapsed_s of all, latency_ns of each
  messages      sent = answered + failed + in_flight
  window        from when all are connected (and --warmup is over) to the end of sending: elapsed_s,
                answered, bytes, requests_per_s, bytes_per_s (of replies), longest_silence_ns
                (without any reply)
  schedule      null without --rate; intended_per_s, achieved_per_s, due, unsent, late (over 1 ms),
                lateness_ns
  latency_ns    count, min, mean, p50, p90, p99, p99_9, max
  service_ns    the same, from when a message was sent and not from when it was to be
  latency_curve_ns  pairs of quantile and time, as far as the samples tell
  fairness      connections (that came up), answered, least, most (answered on one), jain
  failures      list of phase, cause, connections, messages, first (the first one in words)
  hostile       list of kind, connections (at a time), connects, refused, acts (what the kind is
                there for), ended_by_server (or never answered), sent_bytes, received_bytes,
                failures (wrong or missing answers), first_refusal, first_failure; nothing of this
                is in any other key
  client        cpu_s, cpu_share (1 = one core), cpu_per_request_ns, lag_ns, limit (null, or why the
                client itself held the rate back)
  gates         list of fail_if, value, limit, unit, verdict (met | not_met | no_samples)
  find_max      null without --find-max; condition, unit, held_per_s, broken_per_s, broke_off (why
                the search could not go on, or null), probes (list of rate_per_s, answered_per_s,
                value, failures, held, note); the other keys are those of the best probe
  timeline      list of start_s, elapsed_s, answered, requests_per_s, latency_ns, service_ns: one
                for each second, and one for what came after the window

Columns of --csv: row (second | total), start_s, elapsed_s, answered, requests_per_s, then latency_
and service_ with min_ns, mean_ns, p50_ns, p90_ns, p99_ns, p99_9_ns, max_ns; in the last row also
failed_connections, longest_silence_ns, fairness, lag_p99_ns.";

/// The load client: many connections to an echo server, every reply checked, everything measured.
#[derive(Debug, Parser)]
#[command(name = "client", version, args_conflicts_with_subcommands = true)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    load: Load,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load a server, check every reply, report (this is what `client` alone does)
    #[command(after_help = AFTER_HELP)]
    Load(Load),
    /// Talk to a server line by line: q or the end of the input ends it, empty lines are skipped
    #[command(after_help = chat::AFTER_HELP)]
    Chat(Chat),
    /// Start the server in each of its models, load each alike, and show the numbers side by side
    Compare(Compare),
    /// Add up the logs (--hdr) of several runs, of several machines or of one
    #[command(after_help = merge::AFTER_HELP)]
    Merge(Merge),
}

/// What this process is to do; ends it with what is wrong, if the words do not make sense.
pub(crate) fn command() -> Command {
    let command = Arguments::parse().into_command();
    command.unwrap_or_else(|error| error.exit())
}

impl Arguments {
    /// What to do; `client` alone means `client load`.
    ///
    /// # Errors
    ///
    /// What contradicts itself is a usage error, as what clap itself refuses.
    fn into_command(self) -> Result<Command, clap::Error> {
        let command = self.command.unwrap_or(Command::Load(self.load));
        if let Command::Load(load) = &command
            && let Some(words) = load.contradiction()
        {
            return Err(Arguments::command().error(ErrorKind::ValueValidation, words));
        }
        Ok(command)
    }
}

/// The options of `client load`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// The server's address, as HOST:PORT; the host may be a name
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = address)]
    pub(crate) connect: String,

    /// How many connections
    // The message filler has 20 bits for the connection.
    #[arg(long, value_name = "N", default_value_t = 400)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,

    /// Pad each message to this many bytes; one that is longer by itself is sent as it is
    #[arg(long = "size", value_name = "BYTES", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64 * 1024 * 1024))]
    pub(crate) size_bytes: u32,

    /// For how long to send, once all are connected [default: 10s]
    #[arg(long, value_name = "TIME", conflicts_with = "messages", value_parser = duration)]
    pub(crate) duration: Option<Duration>,

    /// Instead of a duration: how many messages each connection sends
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,

    #[command(flatten)]
    pub(crate) pace: Pace,

    /// Expect the replies in upper case, as from `server --upper`
    #[arg(long)]
    pub(crate) upper: bool,

    /// A reply, or the end of a connection, that takes longer is a failure (looked for every 50 ms,
    /// and every 10 ms if this is short)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// A connection that takes longer to come up is a failure
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) connect_timeout: Duration,

    #[command(flatten)]
    pub(crate) results: Results,

    #[command(flatten)]
    pub(crate) search: find_max::Search,

    #[command(flatten)]
    pub(crate) style: style::Options,

    #[command(flatten)]
    pub(crate) hostile: hostile::Options,

    /// Show no progress while it runs
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// When a connection has sent enough.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All connections stop this long after they are all up.
    Duration(Duration),
    /// Each connection sends this many messages.
    Messages(u64),
}

impl Load {
    /// What is wrong with the words together, where each alone is right.
    fn contradiction(&self) -> Option<String> {
        let pace = self.pace.contradiction(self.size_bytes);
        pace.or_else(|| self.style.contradiction(self.connections))
            .or_else(|| self.hostile.contradiction(self.connections))
    }

    /// The connections that do as they should, and are measured.
    pub(crate) fn measured_connections(&self) -> u32 {
        self.connections
            .saturating_sub(self.hostile.count(self.connections))
    }

    /// Ports that connections which come and go leave behind.
    fn lingering_ports(&self) -> u32 {
        let length = match self.extent() {
            Extent::Duration(duration) => Some(duration),
            Extent::Messages(_) => None,
        };
        self.hostile.lingering_ports(self.connections, length)
    }

    /// What this asks of the machine.
    pub(crate) fn needs(&self) -> Needs {
        let message_bytes = u64::from(self.size_bytes).max(message::HEADER_BYTES_MAX as u64);
        let depth = u64::from(self.pace.depth);
        let in_flight = self.messages.map_or(depth, |messages| depth.min(messages));
        let in_flight_bytes = message_bytes * in_flight;
        let measured = u64::from(self.measured_connections());
        Needs {
            connections: self.connections,
            lingering_ports: self.lingering_ports(),
            // Those that misbehave are green threads in every style.
            poller: self.style.style == Style::Green || measured < u64::from(self.connections),
            threads: self.style.style.os_threads_each(in_flight_bytes) * measured,
            // Each message is made in one place and kept in another one, or there is room for the
            // next ones.
            memory_bytes: 2 * in_flight_bytes * measured,
        }
    }

    /// When a connection has sent enough.
    pub(crate) fn extent(&self) -> Extent {
        match (self.messages, self.duration) {
            (Some(messages), _) => Extent::Messages(messages),
            (None, duration) => Extent::Duration(duration.unwrap_or(Duration::from_secs(10))),
        }
    }
}

/// Nobody waits longer; and a few of these, added up, fit 64 bits of nanoseconds.
const YEARS_MAX: u64 = 100;
const LONGEST: Duration = Duration::from_secs(YEARS_MAX * 31_557_600);

/// A length of time in words, such as 10s.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error} (write it as 10s, 500ms or 2min)"))?;
    if duration.is_zero() {
        return Err("it must be longer than nothing".to_owned());
    }
    if duration > LONGEST {
        return Err(format!("it must be at most {YEARS_MAX} years"));
    }
    Ok(duration)
}

/// Only the form is checked: looking a name up is the run's first step.
pub(crate) fn address(text: &str) -> Result<String, String> {
    let form = "write it as HOST:PORT, for example 127.0.0.1:8080, [::1]:8080 or localhost:8080";
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("there is no port; {form}"));
    };
    match port.parse::<u16>() {
        Err(_) => return Err(format!("`{port}` is not a port; {form}")),
        Ok(0) => return Err("nothing can be reached at port 0".to_owned()),
        Ok(_) => {}
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err(format!("`{host}` is not a host; {form}"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Load, clap::Error> {
        let line = std::iter::once("client").chain(words.iter().copied());
        match Arguments::try_parse_from(line)?.into_command()? {
            Command::Load(load) => Ok(load),
            other => panic!("{words:?} is not about load: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        // Goal: clap finds no contradiction in the definition. Method: its own check.
        Arguments::command().debug_assert();
    }

    #[test]
    fn load_is_what_client_alone_does() {
        // Goal: `client` and `client load` take the same options and defaults. Method: parses both.
        for words in [vec![], vec!["load"]] {
            let load = parse(&words).unwrap();
            assert_eq!(load.connect, "127.0.0.1:8080");
            assert_eq!(
                (load.connections, load.size_bytes, load.upper),
                (400, 64, false)
            );
            assert_eq!(load.extent(), Extent::Duration(Duration::from_secs(10)));
        }
        for words in [
            vec!["--messages", "7", "--upper"],
            vec!["load", "--messages", "7", "--upper"],
        ] {
            let load = parse(&words).unwrap();
            assert_eq!(load.extent(), Extent::Messages(7));
            assert!(load.upper);
        }
        assert!(parse(&["--duration", "100years"]).is_ok());
        let load = parse(&["--duration", "1min 30s"]).unwrap();
        assert_eq!(load.extent(), Extent::Duration(Duration::from_secs(90)));
    }

    #[test]
    fn wrong_words_are_usage_errors() {
        // Goal: each senseless option is refused with exit code 2. Method: parses them one by one.
        for words in [
            vec!["--connections", "0"],
            vec!["--connections", "1000001"],
            vec!["--size", "0"],
            vec!["--messages", "0"],
            vec!["--messages", "3", "--duration", "3s"],
            vec!["--duration", "0s"],
            vec!["--duration", "10"],
            vec!["--duration", "101years"],
            vec!["--think", "1000years"],
            vec!["--warmup", "1000years"],
            vec!["--ramp", "1000years"],
            vec!["--timeout", "1000years"],
            vec!["--timeout", "soon"],
            vec!["--connect", "localhost"],
            vec!["--connect", "localhost:http"],
            vec!["--connect", "127.0.0.1:0"],
            vec!["--connect", ":80"],
            vec!["--connect", "::1"],
            vec!["--connect", "::1:80"],
            vec!["--depth", "0"],
            vec!["--depth", "60000", "--size", "60000"],
            vec!["--rate", "fast"],
            vec!["--rate", "0"],
            vec!["--rate", "5/s", "--think", "5ms"],
            vec!["--messages", "3", "--warmup", "1s"],
            vec!["--upper", "load"],
            vec!["--hostile", "reset"],
            vec!["--connections", "2", "--hostile", "reset=50,idle=49"],
            vec!["unknown"],
        ] {
            let error = parse(&words).expect_err(&format!("{words:?} was taken"));
            assert_eq!(error.exit_code(), 2, "{words:?}");
        }
        for address in ["localhost:80", "[::1]:80", "10.0.0.1:65535"] {
            assert_eq!(parse(&["--connect", address]).unwrap().connect, address);
        }
    }
}
