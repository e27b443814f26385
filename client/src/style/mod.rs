//! Who drives the connections: the styles in which a load client can be written.
//!
//! Application, above L4. A style starts whatever threads it needs and returns at once with a way
//! to wait for them. All styles keep the same books (`load`), which are therefore shared between OS
//! threads; what happens on a connection is in `connection`, and what is sent and compared in
//! `message` and `verify`.
//!
//! Deliberately not here: the supervisor (`load`), which no style has to know.

mod green;
mod select;
mod threads;

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::connection::SEND_ALONE_BYTES_MAX;
use crate::limits::CONNECTIONS_OF_SELECT_MAX;
use crate::load::Load;
use crate::message::Wording;

/// Waits for all threads of a style; the payload of the first panic, if there was one.
type Join = Box<dyn FnOnce() -> std::thread::Result<()>>;

/// The options about styles.
#[derive(Clone, Debug, Args)]
#[group(id = "style-options")]
pub(crate) struct Options {
    /// Who drives the connections
    #[arg(long, value_enum, value_name = "STYLE", default_value_t = Style::Green)]
    pub(crate) style: Style,
}

/// Who drives the connections.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Style {
    /// A green thread for each connection, all on one OS thread
    Green,
    /// An OS thread for each connection, with std's blocking sockets
    Threads,
    /// One loop around select(2), each message in three parts; as many connections as FD_SETSIZE
    /// has room for (992 on Linux)
    Select,
}

impl Options {
    /// What is wrong with the style for so many connections.
    pub(crate) fn contradiction(&self, connections: u32) -> Option<String> {
        (self.style == Style::Select && connections > CONNECTIONS_OF_SELECT_MAX).then(|| {
            format!(
                "select has room for descriptors below {} (FD_SETSIZE), which are \
                 {CONNECTIONS_OF_SELECT_MAX} connections and not {connections}: ask for \
                 --style green, or for fewer",
                libc::FD_SETSIZE
            )
        })
    }
}

impl Style {
    pub(crate) fn start(self, load: &Arc<Load>) -> Join {
        match self {
            Style::Green => green::start(load),
            Style::Threads => threads::start(load),
            Style::Select => select::start(load),
        }
    }

    /// What its messages say.
    pub(crate) fn wording(self) -> Wording {
        match self {
            Style::Green | Style::Threads => Wording::Nothing,
            Style::Select => Wording::InParts,
        }
    }

    /// How many OS threads each connection has for itself, with so many bytes in flight.
    pub(crate) fn os_threads_each(self, in_flight_bytes: u64) -> u64 {
        match self {
            Style::Green | Style::Select => 0,
            Style::Threads if in_flight_bytes > SEND_ALONE_BYTES_MAX as u64 => 2,
            Style::Threads => 1,
        }
    }

    /// How many cores it can keep busy.
    pub(crate) fn cores(self, connections: u32) -> u32 {
        match self {
            Style::Green | Style::Select => 1,
            Style::Threads => {
                let cores = std::thread::available_parallelism();
                cores.map_or(1, |cores| connections.min(cores.get() as u32))
            }
        }
    }
}
