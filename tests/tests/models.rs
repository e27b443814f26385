//! One body of expectations over every model of the server.
//!
//! A client must not be able to tell one model from another, except by how long it waits. So each
//! property is one function (`models/body.rs`), and a macro makes a test of it for every model;
//! what a model cannot do by its nature is in a table (`models/table.rs`) and nowhere else.
//!
//! Man pages: proc(5), tcp(7). Deliberately not here: what concerns one model only (`server.rs`),
//! and speed.

#![cfg(target_os = "linux")]

#[path = "models/body.rs"]
#[expect(
    clippy::unwrap_used,
    reason = "they are tests, though clippy cannot see it"
)]
mod body;
#[path = "server/client.rs"]
#[expect(dead_code, reason = "server.rs uses the rest")]
mod client;
#[path = "server/process.rs"]
#[expect(dead_code, reason = "server.rs uses the rest")]
mod process;
#[path = "models/table.rs"]
mod table;

/// A module for each model, with a test for each property.
macro_rules! models {
    ($($module:ident: $name:literal,)*) => {
        /// The models that are held to all this.
        const NAMES: &[&str] = &[$($name),*];

        $(
        mod $module {
            use crate::{body, process::Watchdog, table};

            models!(@ $name:
                echoes_odd_sizes_to_slow_readers,
                serves_many_clients,
                survives_resets,
                urgent_data_stays_out_of_the_stream,
                a_half_closed_peer_gets_every_answer_in_upper_case,
                a_deaf_peer_costs_one_buffer_and_is_cut_off,
                stops_under_load_without_a_torn_answer,
                a_stop_takes_in_who_waits_in_the_queue,
                the_idle_time_out_ends_the_silent_and_the_deaf,
                who_has_spoken_in_time_is_not_idle,
                the_connection_limit_lets_others_wait,
                survives_having_no_descriptor_left,
                impatience_leaves_no_process_behind,
            );
        }
        )*
    };
    (@ $name:literal: $($property:ident,)*) => {$(
        #[test]
        fn $property() {
            // Goal and method: see the function of this name in models/body.rs.
            let _watchdog = Watchdog::start(120);
            let model = table::model($name);
            if model.is_here() {
                body::$property(model);
            }
        }
    )*};
}

models! {
    blocking: "blocking",
    threads: "threads",
    thread_pool: "thread-pool",
    fork: "fork",
    prefork: "prefork",
    prefork_green: "prefork-green",
    nonblocking: "nonblocking",
    select: "select",
    poll: "poll",
    epoll: "epoll",
    selector: "selector",
    signal: "signal",
    aio: "aio",
    green: "green",
    green_workers: "green-workers",
}

#[test]
fn no_model_is_left_out() {
    // Goal: a new model is tested, and told in the guide. Method: asks for one that Linux does not
    // have, and is told which there are.
    let _watchdog = process::Watchdog::start(60);
    let output = table::model("kqueue").command(&[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let (_, names) = said.split_once(", but ").expect("a list of models");
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/README.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let names: Vec<&str> = names.trim().split(", ").collect();
    for name in &names {
        assert!(NAMES.contains(name), "{name} is not tested");
        let file = format!("| `{}.rs` |", name.replace('-', "_"));
        assert!(guide.contains(&file), "the guide does not tell of {file}");
    }
    assert_eq!(names.len(), NAMES.len(), "{names:?}");
}
