//! The models of the server, and what each cannot do by its nature.
//!
//! Test support for `models.rs`. Whatever is not in here, every model must be able to do.
//!
//! Deliberately not here: what is expected of a model (see `body`).

use crate::process::{Server, command};
use std::process::Command;

/// Clients of the test that has the most of them.
pub(crate) const MANY: usize = 400;

/// A model and its limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// How many clients it serves at once, [`MANY`] at most; the others wait for them to leave.
    pub(crate) at_once: usize,
    /// A client may have to wait though the limit is not reached: the kernel has put it into the
    /// queue of a process that has its share.
    pub(crate) has_queues: bool,
    /// It works with several processes.
    pub(crate) has_processes: bool,
    /// Each connection is a descriptor of the process that accepts, so that they can run out.
    pub(crate) runs_out_of_descriptors: bool,
    /// It sleeps while it has nothing to do.
    pub(crate) sleeps: bool,
}

/// A model without limits.
const FREE: Model = Model {
    name: "",
    at_once: MANY,
    has_queues: false,
    has_processes: false,
    runs_out_of_descriptors: true,
    sleeps: true,
};

/// The model of this name.
pub(crate) const fn model(name: &'static str) -> Model {
    match name.as_bytes() {
        b"blocking" => Model {
            name,
            at_once: 1,
            runs_out_of_descriptors: false,
            ..FREE
        },
        b"thread-pool" => Model {
            name,
            at_once: 64,
            ..FREE
        },
        b"fork" => Model {
            name,
            has_processes: true,
            runs_out_of_descriptors: false,
            ..FREE
        },
        b"prefork" => Model {
            name,
            at_once: 16,
            has_queues: true,
            has_processes: true,
            runs_out_of_descriptors: false,
            ..FREE
        },
        b"prefork-green" => Model {
            name,
            has_queues: true,
            has_processes: true,
            ..FREE
        },
        b"nonblocking" => Model {
            name,
            sleeps: false,
            ..FREE
        },
        _ => Model { name, ..FREE },
    }
}

impl Model {
    /// Whether a client is served while another one stays.
    pub(crate) const fn serves_beside_another(self) -> bool {
        self.at_once == MANY || (self.at_once > 1 && !self.has_queues)
    }

    /// A command that runs the server in this model.
    pub(crate) fn command(self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.args(["--model", self.name]);
        command
    }

    /// A server of this model.
    pub(crate) fn start(self, arguments: &[&str]) -> Server {
        Server::spawn(self.command(arguments))
    }

    /// Whether this system has the model, which for one of them depends on what it allows; says so
    /// if it has not.
    pub(crate) fn is_here(self) -> bool {
        // An address that cannot be had: a model that is here gets as far as that.
        let probe = self.command(&["--listen", "203.0.113.1:0"]).output();
        let said = String::from_utf8(probe.expect("it starts").stderr).expect("it is text");
        let is_here = said.contains("no such address");
        if !is_here {
            println!("skipped: {}", said.trim());
            assert!(self.name == "aio" && said.contains("io_uring"), "{said}");
        }
        is_here
    }
}
