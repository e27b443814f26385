//! The command line: what can be asked of the server, and with what words a mistake is refused.
//!
//! Deliberately not here: what the options do. Each is explained where it is honoured, except for
//! what a user must know, which `--help` tells.

use clap::Parser;
use runtime::poller::Kind;
use std::num::NonZeroUsize;
use std::time::Duration;

/// 16 MiB: more would only be memory that waits.
const BUFFER_BYTES_MAX: u64 = 16 << 20;

/// More OS threads than any machine has processors.
const WORKERS_MAX: usize = 1024;

/// Sends back every byte it is sent. Each connection has a green thread of its own.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "\
SIGINT or SIGTERM stop the server gracefully: it stops accepting, answers what it has been sent,
says goodbye to the idle, prints a summary and exits with 0. A second signal ends it at once.

RUST_LOG=info tells of every connection, RUST_LOG=trace of every step of the scheduler and the
reactor."
)]
pub(crate) struct Options {
    // Not a documentation comment, in which rustdoc takes the brackets for links.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    #[arg(
        help = "Where to listen: 127.0.0.1:8080, [::1]:8080 or localhost:8080; 0.0.0.0 and [::] \
                  mean every address of this machine, and port 0 any free port"
    )]
    pub(crate) listen: String,

    /// Answer in upper case (ASCII letters only)
    #[arg(long)]
    pub(crate) upper: bool,

    /// Hold at most N connections; while there are so many, new ones wait in the listen queue until
    /// one ends
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// End a connection on which nothing could be read, or nothing written, for so long
    /// [default: never]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) idle_timeout: Option<Duration>,

    /// Allow connections so much time to finish when the server is stopped, then cut them off
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(crate) drain_timeout: Duration,

    /// Serve on N OS threads, each with a share of the connections
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN, value_parser = workers)]
    pub(crate) workers: NonZeroUsize,

    /// The memory in which a connection holds what it has read and not yet answered
    #[arg(long, value_name = "BYTES", default_value_t = 8192,
          value_parser = clap::value_parser!(u64).range(1..=BUFFER_BYTES_MAX))]
    pub(crate) buffer: u64,

    /// How the kernel is asked which sockets are ready: epoll, kqueue, poll or select [default: the
    /// one RUNTIME_POLLER names, or else the best there is]
    #[arg(long, value_name = "NAME")]
    pub(crate) poller: Option<Kind>,
}

/// Refuses what cannot be an address before anything is opened. Names are looked up later.
fn address(text: &str) -> Result<String, String> {
    let example = "write HOST:PORT, as in 127.0.0.1:8080 or [::1]:8080";
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("the port is missing; {example}"));
    };
    if port.parse::<u16>().is_err() {
        return Err(format!("a port is a number from 0 to 65535; {example}"));
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err(format!(
            "the host is missing or an IPv6 address without brackets; {example}"
        ));
    }
    Ok(text.to_owned())
}

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(count) if count.get() <= WORKERS_MAX => Ok(count),
        _ => Err(format!("must be a number from 1 to {WORKERS_MAX}")),
    }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => {
            Err("must be more than nothing; leave the option out for never".into())
        }
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_what_the_help_says() {
        // Goal: no arguments mean the documented server. Method: parses none and looks.
        let options = Options::try_parse_from(["server"]).unwrap();
        assert_eq!(options.listen, "127.0.0.1:8080");
        assert_eq!(options.drain_timeout, Duration::from_secs(5));
        assert_eq!((options.buffer, options.upper), (8192, false));
        assert!(options.idle_timeout.is_none() && options.max_connections.is_none());
    }

    #[test]
    fn mistakes_are_refused() {
        // Goal: nothing that cannot work gets past the command line. Method: one bad value each.
        let mistakes: [&[&str]; 10] = [
            &["--listen", "127.0.0.1"],
            &["--listen", "127.0.0.1:port"],
            &["--listen", "127.0.0.1:65536"],
            &["--listen", "::1:80"],
            &["--listen", ":80"],
            &["--max-connections", "0"],
            &["--workers", "0"],
            &["--idle-timeout", "0s"],
            &["--buffer", "0"],
            &["--poller", "slect"],
        ];
        for arguments in mistakes {
            let all = ["server"].iter().chain(arguments);
            assert!(
                Options::try_parse_from(all).is_err(),
                "{arguments:?} was accepted"
            );
        }
    }

    #[test]
    fn every_form_of_address_is_accepted() {
        // Goal: addresses of both families and names pass. Method: parses one of each.
        for text in [
            "0.0.0.0:0",
            "[::1]:8080",
            "[fe80::1%lo]:80",
            "localhost:8080",
        ] {
            assert_eq!(address(text).as_deref(), Ok(text));
        }
    }
}
