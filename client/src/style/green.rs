//! A green thread for each connection: written as if each call blocked, run by one OS thread.
//!
//! Application on L4. Right when there are many connections: a green thread costs a stack of a few
//! pages and no OS thread, and switching between them no system call. Wrong when one core is not
//! enough for the load: all of them share it.
//!
//! Deliberately not here: what a connection does (`connection`).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::Join;
use crate::connection;
use crate::failure::{Failure, Phase};
use crate::load::Load;
use crate::net::TcpStream;
use crate::thread::{self, JoinHandle};

type Handles = Rc<RefCell<Vec<JoinHandle<()>>>>;

/// Starts the connections, from a green thread of its own: looking a name up may take a while.
pub(crate) fn start(load: &Arc<Load>) -> Join {
    let handles = Handles::default();
    let starter = {
        let (load, handles) = (Arc::clone(load), Rc::clone(&handles));
        thread::spawn(move || {
            if load.resolve() {
                start_connections(&load, &handles);
            }
        })
    };
    Box::new(move || {
        starter.join()?;
        handles.take().into_iter().try_for_each(JoinHandle::join)
    })
}

fn start_connections(load: &Arc<Load>, handles: &Handles) {
    for number in 0..load.slots.len() as u32 {
        let name = format!("connection {number}");
        let theirs = Arc::clone(load);
        let spawned = thread::Builder::new()
            .name(name.clone())
            .spawn(move || connection::run::<TcpStream>(&theirs, number));
        match spawned {
            Ok(handle) => handles.borrow_mut().push(handle),
            // No memory for a stack; the other connections go on without this one.
            Err(error) => load.fail_start(number, Failure::system(Phase::Connect, &error, name)),
        }
    }
}
