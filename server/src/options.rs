//! The command line: what can be asked of the server, and with what words a mistake is refused.
//!
//! Deliberately not here: what the options do. Each is explained where it is honoured, except for
//! what a user must know, which `--help` tells.

use crate::fd_room;
use crate::models::Model;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use log::warn;
use runtime::poller::Kind;
use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

/// 16 MiB: more would only be memory that waits.
const BUFFER_BYTES_MAX: u64 = 16 << 20;

/// More OS threads than any machine has processors.
const WORKERS_MAX: usize = 1024;

/// Sends back every byte it is sent, to many clients at once, in any of sixteen I/O models.
#[derive(Clone, Debug, Parser)]
#[command(
    version,
    after_help = "\
SIGINT or SIGTERM stop the server gracefully: it stops accepting, answers what it has been sent,
closes the idle connections, prints a summary and exits with 0. A second signal ends it at once.

Exit codes:
  0         it was stopped
  1         it could not start, or had to give up; the reason is on standard error
  2         the command line is wrong
  130, 143  a second SIGINT or SIGTERM ended it

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

    /// How connections are served [default: green]
    #[arg(long, value_name = "NAME")]
    model: Option<Model>,

    /// Answer in upper case (ASCII letters only)
    #[arg(long)]
    pub(crate) upper: bool,

    /// Hold at most N connections; while there are so many, new ones wait in the listen queue until
    /// one ends
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// End a connection on which nothing could be read, or nothing written, for this long
    /// [default: never]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) idle_timeout: Option<Duration>,

    /// Give connections this long to finish when the server is stopped, then cut them off
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub(crate) drain_timeout: Duration,

    /// How many threads or processes serve, in models with a fixed number of them [default: 64 for
    /// thread-pool, 16 for prefork, one for each processor for prefork-green and green-workers].
    /// Without --model, more than one worker means green-workers
    #[arg(long, value_name = "N", value_parser = workers)]
    workers: Option<NonZeroUsize>,

    /// The memory in which a connection holds what it has read and not yet answered
    #[arg(long, value_name = "BYTES", default_value_t = 8192,
          value_parser = clap::value_parser!(u64).range(1..=BUFFER_BYTES_MAX))]
    buffer: u64,

    /// How green threads and the selector ask the kernel which sockets are ready: epoll, kqueue,
    /// poll or select [default: the one RUNTIME_POLLER names, or else the best there is]
    #[arg(long, value_name = "NAME", value_parser = poller)]
    poller: Option<Kind>,
}

impl Options {
    /// Reads the command line, and ends the process if it is wrong or asks for help only.
    pub(crate) fn read() -> Options {
        Options::of(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// Parses `arguments`, the program's name first.
    fn of<I: IntoIterator<Item: Into<OsString> + Clone>>(
        arguments: I,
    ) -> Result<Options, clap::Error> {
        let options = Options::try_parse_from(arguments)?;
        let refuse =
            |words: String| Err(Options::command().error(ErrorKind::ArgumentConflict, words));
        let model = options.model();
        let is_told = options.model.is_some() && options.workers.is_some();
        if is_told && model.workers().is_none() {
            let able = Model::names(|model| model.workers().is_some());
            return refuse(format!(
                "--model {model} has no number of workers to choose; --workers is for {able}"
            ));
        }
        if options.poller.is_some() && !model.has_poller() {
            let able = Model::names(Model::has_poller);
            return refuse(format!(
                "--model {model} has its own way to wait; --poller is for {able}"
            ));
        }
        Ok(options)
    }

    /// The model that was asked for, or implied.
    pub(crate) fn model(&self) -> Model {
        match (self.model, self.workers) {
            (Some(model), _) => model,
            (None, Some(count)) if count.get() > 1 => Model::GreenWorkers,
            (None, _) => Model::Green,
        }
    }

    /// The poller of the models that stand on one.
    ///
    /// # Errors
    ///
    /// If nobody asked for one here, and `RUNTIME_POLLER` names none that this system has.
    pub(crate) fn poller(&self) -> io::Result<Kind> {
        self.poller.map_or_else(Kind::from_environment, Ok)
    }

    /// How many workers the model is to have.
    pub(crate) fn workers(&self) -> NonZeroUsize {
        let count = self.workers.or_else(|| self.model().workers());
        count.unwrap_or(NonZeroUsize::MIN)
    }

    /// Lowers the number of connections to what select can watch in this process, with so many
    /// workers.
    pub(crate) fn bound_for_select(&mut self, workers: NonZeroUsize) {
        let room = fd_room::connections_max(workers);
        if self.max_connections.is_none_or(|count| count > room) {
            warn!("select watches small descriptors only: at most {room} connections");
            self.max_connections = Some(room);
        }
    }

    /// The most that a connection may hold of what it has read and not yet answered.
    pub(crate) fn buffer_bytes(&self) -> usize {
        usize::try_from(self.buffer).expect("the parser bounds it")
    }
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

fn poller(text: &str) -> Result<Kind, String> {
    let kind: Kind = text.parse().map_err(|error: io::Error| error.to_string())?;
    let available = Kind::available();
    if available.contains(&kind) {
        return Ok(kind);
    }
    let names: Vec<&str> = available.iter().map(|kind| kind.name()).collect();
    Err(format!(
        "this system has no {kind}, but {}",
        names.join(", ")
    ))
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
        let options = Options::of(["server"]).unwrap();
        assert_eq!(
            (options.model(), options.workers().get()),
            (Model::Green, 1)
        );
        assert_eq!(options.listen, "127.0.0.1:8080");
        assert_eq!(options.drain_timeout, Duration::from_secs(5));
        assert_eq!((options.buffer, options.upper), (8192, false));
        assert!(options.idle_timeout.is_none() && options.max_connections.is_none());
    }

    #[test]
    fn mistakes_are_refused() {
        // Goal: nothing that cannot work gets past the command line. Method: one bad value each.
        let all_pollers = [Kind::Epoll, Kind::Kqueue];
        let missing = all_pollers
            .iter()
            .find(|kind| !Kind::available().contains(kind));
        let mistakes: [&[&str]; 15] = [
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
            &["--poller", missing.expect("no system has both").name()],
            &["--model", "gren"],
            &["--model", "green", "--workers", "2"],
            &["--model", "threads", "--workers", "1"],
            &["--model", "threads", "--poller", "poll"],
        ];
        for arguments in mistakes {
            let all = ["server"].iter().chain(arguments);
            assert!(Options::of(all).is_err(), "{arguments:?} was accepted");
        }
    }

    #[test]
    fn workers_are_those_of_the_model() {
        // Goal: --workers alone goes on meaning green-workers, and each model has a number of its
        // own. Method: parses both forms.
        let of = |arguments: &[&str]| {
            let options = Options::of(["server"].iter().chain(arguments)).unwrap();
            (options.model(), options.workers().get())
        };
        assert_eq!(of(&["--workers", "3"]), (Model::GreenWorkers, 3));
        assert_eq!(of(&["--workers", "1"]), (Model::Green, 1));
        assert_eq!(of(&["--model", "thread-pool"]), (Model::ThreadPool, 64));
        assert_eq!(
            of(&["--model", "prefork", "--workers", "2"]),
            (Model::Prefork, 2)
        );
        assert_eq!(of(&["--model", "threads"]), (Model::Threads, 1));
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
