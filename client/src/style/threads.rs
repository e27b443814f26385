//! An OS thread for each connection, with std's blocking sockets: the textbook's client.
//!
//! Application, above L4. Rests on pthread_create(3), EAGAIN. Right when there are few connections,
//! or when the load needs more cores than one: the kernel spreads the threads. Wrong for thousands:
//! each thread is a task for the kernel to schedule, and each reply a switch between two of them.
//!
//! Deliberately not here: what a connection does (`connection`).

use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::Join;
use crate::connection;
use crate::failure::{Failure, Phase, words_of};
use crate::load::Load;

/// What a connection does is shallow; its buffers are not on the stack. Address space, not memory.
const STACK_BYTES: usize = 256 * 1024;

/// Starts the connections, from an OS thread of its own: looking a name up may take a while.
pub(crate) fn start(load: &Arc<Load>) -> Join {
    let theirs = Arc::clone(load);
    let starter = Builder::new().name("starter".to_owned()).spawn(move || {
        if theirs.resolve() {
            start_connections(&theirs)
        } else {
            Vec::new()
        }
    });
    match starter {
        Ok(starter) => Box::new(move || starter.join()?.into_iter().try_for_each(JoinHandle::join)),
        Err(error) => {
            load.fail_all(no_thread(&error, "all connections"));
            Box::new(|| Ok(()))
        }
    }
}

fn start_connections(load: &Arc<Load>) -> Vec<JoinHandle<()>> {
    let mut handles = Vec::new();
    for number in 0..load.slots.len() as u32 {
        let name = format!("connection {number}");
        let theirs = Arc::clone(load);
        let builder = Builder::new().name(name.clone()).stack_size(STACK_BYTES);
        match builder.spawn(move || connection::run::<TcpStream>(&theirs, number)) {
            Ok(handle) => handles.push(handle),
            // The other connections go on without this one.
            Err(error) => load.fail_start(number, no_thread(&error, &name)),
        }
    }
    handles
}

pub(super) fn no_thread(error: &std::io::Error, whose: &str) -> Failure {
    let cause = format!("no OS thread: {}", words_of(error));
    let detail = format!(
        "{whose}: {cause}: raise the limit of threads (`ulimit -u`, kernel.threads-max, \
         vm.max_map_count, a container's pids.max), ask for fewer --connections, or use \
         --style green, which needs no OS threads"
    );
    Failure::new(Phase::Prepare, cause, detail)
}
