//! `bench`: compares the runtime with its peers and prints one table of ratios.
//!
//! Outside the layers and outside the product's workspace, so that no peer enters its lock file.
//! This file: the command line, and the roles that the program plays as its own child.
//! Deliberately not here: any measurement. See `echo`, `system_calls` and `micro`.

mod child;
mod echo;
mod epoll;
mod load;
mod machine;
mod micro;
mod plan;
mod report;
mod servers;
mod system_calls;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Who is measured.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Peer {
    Ours,
    Epoll,
    Tokio,
    May,
    Threads,
    Smol,
    Monoio,
    Corosensei,
}

impl Peer {
    /// How the table calls it.
    fn label(self) -> &'static str {
        match self {
            Peer::Ours => "ours",
            Peer::Epoll => "epoll loop by hand",
            Peer::Tokio => "tokio current_thread",
            Peer::May => "may, 1 worker",
            Peer::Threads => "std threads",
            Peer::Smol => "smol, 1 thread",
            Peer::Monoio => "monoio (io_uring)",
            Peer::Corosensei => "corosensei",
        }
    }

    /// How the command line calls it.
    fn word(self) -> String {
        let value = self
            .to_possible_value()
            .expect("no peer is hidden from the command line");
        value.get_name().to_owned()
    }
}

/// What is measured.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    Echo,
    Syscalls,
    Switch,
    Yield,
    Spawn,
    Channel,
    Memory,
}

impl Part {
    /// How the command line calls it.
    fn word(self) -> String {
        let value = self
            .to_possible_value()
            .expect("no part is hidden from the command line");
        value.get_name().to_owned()
    }
}

/// Compares the runtime with its peers and prints one table of ratios (ours divided by the peer's).
#[derive(Parser, Debug)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Options {
    /// Measure these parts only.
    #[arg(long, value_delimiter = ',', value_name = "PART,..")]
    only: Vec<Part>,
    /// Compare with these peers only.
    #[arg(long, value_delimiter = ',', value_name = "PEER,..")]
    peers: Vec<Peer>,
    /// A short run that shows that everything works; its numbers mean little.
    #[arg(long)]
    quick: bool,
    /// Alternating rounds; the table shows their medians.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..1000))]
    rounds: Option<u32>,
    /// Connections of the echo part.
    #[arg(long, default_value_t = 400)]
    connections: usize,
    /// Bytes of a message of the echo part.
    #[arg(long, default_value_t = 64, value_parser = message_bytes)]
    size: usize,
    /// Also write all samples to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this echo server instead of building the workspace's.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the program does instead when it is its own child.
#[derive(Subcommand, Debug)]
enum Role {
    /// One role of a child process: the program starts itself in it.
    #[command(hide = true, subcommand)]
    Child(ChildRole),
}

#[derive(Subcommand, Debug)]
enum ChildRole {
    /// Echoes at an address until it is killed.
    Serve { peer: Peer, address: SocketAddr },
    /// Puts 400 connections on a server, for whoever wants to profile one, and prints requests/s.
    Load { address: SocketAddr, length_ms: u64 },
    /// Prints ns per operation, or bytes each.
    Measure {
        part: Part,
        peer: Peer,
        parameter: u64,
        length_ms: u64,
    },
}

/// A message has room for its connection and number, and fits an empty socket buffer.
fn message_bytes(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| "not a number".to_owned())?;
    if (32..=load::MESSAGE_BYTES_MAX).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!(
        "a message has 32 to {} bytes",
        load::MESSAGE_BYTES_MAX
    ))
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.role {
        Some(Role::Child(role)) => play(role),
        None => plan::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(role: &ChildRole) -> io::Result<()> {
    let (part, peer, parameter, length) = match *role {
        ChildRole::Serve { peer, address } => return servers::serve(peer, address),
        ChildRole::Load { address, length_ms } => {
            let mut load = load::Load::connect(address, 400, 64)?;
            let stretch = load.run(Duration::from_millis(length_ms))?;
            println!(
                "{}",
                stretch.requests as f64 / stretch.elapsed.as_secs_f64()
            );
            return Ok(());
        }
        ChildRole::Measure {
            part,
            peer,
            parameter,
            length_ms,
        } => (part, peer, parameter, Duration::from_millis(length_ms)),
    };
    // Enough for each of many green threads to yield a thousand times.
    let count_min = if part == Part::Yield {
        1_000 * parameter
    } else {
        1_000
    };
    let per_operation_ns = match part {
        Part::Switch => micro::settle(length, count_min, |count| micro::switch::run(peer, count)),
        Part::Yield => micro::settle(length, count_min, |count| {
            micro::yielding::run(peer, parameter, count)
        }),
        Part::Spawn => micro::settle(length, count_min, |count| {
            micro::spawning::run(peer, parameter, count)
        }),
        Part::Channel => micro::settle(length, count_min, |count| micro::channel::run(peer, count)),
        Part::Memory => match micro::memory::run(peer, parameter)? {},
        Part::Echo | Part::Syscalls => Err(io::Error::other("measured from outside")),
    }?;
    println!("{per_operation_ns}");
    Ok(())
}
