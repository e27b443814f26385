//! One test body over std's sockets and over the runtime's.
//!
//! `net_conformance/body.rs` is compiled three times, each time with another `net` and `thread`;
//! std's own answers are what the others have to match. Over the runtime it runs in plain OS
//! threads and, on every poller there is, in green threads. At the end are tests of ours alone.
//! Deliberately not here: speed, and anything that needs a machine other than this one.

#![allow(clippy::duplicate_mod, reason = "the body is compiled several times")]
#![allow(
    clippy::unwrap_used,
    reason = "all of this is test code, the helpers too"
)]

#[path = "net_conformance/over_runtime.rs"]
mod over_runtime;
#[path = "net_conformance/over_runtime_blocking.rs"]
mod over_runtime_blocking;
#[path = "net_conformance/over_std.rs"]
mod over_std;

use std::time::Duration;

use runtime::poller::Kind;
use tests::child::{descriptors, in_child};
use tests::watchdog::Watchdog;

/// How long a test may take. Far more than any needs, even on a machine busy with other things.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a case as the main green thread of a run on `kind`.
fn green(kind: Kind, case: fn()) {
    if !Kind::available().contains(&kind) {
        println!("skipped: this system has no {kind}");
        return;
    }
    runtime::Builder::new().poller(kind).run(case).unwrap();
}

/// Calls a macro with every case of the body.
macro_rules! with_cases {
    ($define:ident, $($argument:tt)*) => {
        $define! {
            ($($argument)*)
            addresses_match_at_both_ends,
            bytes_go_both_ways,
            references_read_and_write,
            the_end_is_read_again_and_again,
            bytes_before_the_end_all_arrive,
            the_provided_methods_work,
            vectors_keep_their_order,
            more_buffers_than_a_call_takes,
            a_blocking_write_takes_everything,
            nothing_is_read_into_nothing,
            peeked_bytes_stay,
            half_a_connection_goes_on,
            shutting_both_down_ends_both,
            a_socket_without_a_peer_says_so,
            a_shutdown_wakes_who_waits,
            a_reset_is_told_once,
            a_reset_wakes_a_writer,
            a_waiting_error_can_be_taken,
            nobody_there_is_a_refusal,
            addresses_can_be_taken_or_not_ours,
            an_address_can_be_listened_on_again_at_once,
            what_is_no_address_is_invalid,
            names_are_looked_up,
            numbers_are_addresses_in_every_form,
            each_address_is_tried,
            connecting_can_time_out,
            reads_time_out,
            writes_time_out,
            odd_timeouts,
            clones_share_bytes_and_modes,
            a_clone_can_wait_and_another_write,
            nonblocking_streams_never_wait,
            nonblocking_listeners_never_wait,
            a_slow_reader_gets_every_byte,
            both_directions_at_once,
            several_readers_share_a_stream,
            several_acceptors_share_a_listener,
            connections_come_one_after_the_other,
            many_connections_at_once,
            many_short_messages,
            urgent_bytes_do_not_stop_the_stream,
            options_are_the_sockets,
            descriptors_are_closed_on_exec,
            a_dropped_socket_is_closed,
            debug_shows_both_ends,
            streams_convert_with_their_modes,
            a_stream_converts_after_it_has_waited,
            listeners_convert_with_their_modes,
            a_listener_leaves_its_clones_working,
            wrong_descriptors_are_errors_not_accidents,
            the_types_cross_threads,
            panics_close_what_they_pass
        }
    };
}

/// Defines a module of tests: each case of a body, handed to `run`.
macro_rules! tests {
    (($module:ident, $body:ident, $run:expr) $($case:ident),*) => {
        mod $module {
            use super::*;
            $(
                #[test]
                fn $case() {
                    let _watchdog = Watchdog::new(LIMIT);
                    let run: fn(fn()) = $run;
                    run($body::body::$case);
                }
            )*
        }
    };
}

with_cases!(tests, std_sockets, over_std, |case| case());
with_cases!(tests, in_os_threads, over_runtime_blocking, |case| case());
with_cases!(tests, on_epoll, over_runtime, |case| green(
    Kind::Epoll,
    case
));
with_cases!(tests, on_kqueue, over_runtime, |case| green(
    Kind::Kqueue,
    case
));
with_cases!(tests, on_poll, over_runtime, |case| green(Kind::Poll, case));
with_cases!(tests, on_select, over_runtime, |case| green(
    Kind::Select,
    case
));

/// Defines a function that answers a body's cases with their names.
macro_rules! list {
    (($name:ident, $body:ident) $($case:ident),*) => {
        fn $name() -> Vec<(&'static str, fn())> {
            vec![$((stringify!($case), $body::body::$case as fn())),*]
        }
    };
}

with_cases!(list, cases_in_os_threads, over_runtime_blocking);
with_cases!(list, cases_in_green_threads, over_runtime);

#[test]
fn no_descriptor_is_leaked() {
    // Goal: whatever a case does, it leaves no descriptor behind. Method: all cases one after the
    // other in a child, whose descriptors are counted after each; the very first is for what the
    // process opens once.
    in_child("no_descriptor_is_leaked", || {
        let _watchdog = Watchdog::new(LIMIT);
        let check = |flavour: &str, name: &str, run: &dyn Fn()| {
            let before = descriptors();
            run();
            let after = descriptors();
            assert_eq!(before, after, "{flavour}: {name} left descriptors open");
        };
        green(
            Kind::default_for_system(),
            over_runtime::body::names_are_looked_up,
        );
        for (name, case) in cases_in_os_threads() {
            check("in OS threads", name, &case);
        }
        for kind in Kind::available() {
            for (name, case) in cases_in_green_threads() {
                check(&kind.to_string(), name, &|| green(*kind, case));
            }
            check(&kind.to_string(), "all cases in one run", &|| {
                let run = || {
                    for (_, case) in cases_in_green_threads() {
                        case();
                    }
                };
                runtime::Builder::new().poller(*kind).run(run).unwrap();
            });
        }
    });
}
