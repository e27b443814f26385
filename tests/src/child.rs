//! Runs a test's body in a process of its own.
//!
//! Test support. For what would disturb other tests of the same process, or be disturbed by them:
//! counting descriptors, signals, using up a resource, dying. Deliberately not here: programs of
//! the product (see `binaries`).

use std::process::{Command, Output, Stdio};

/// Set in the process that runs the body.
const CHILD: &str = "TESTS_CHILD";

/// This same test program, to be started once more: through `TESTS_RUNNER`, if that names the
/// emulator without which the system could not run it.
///
/// # Panics
///
/// If the program does not know where it lies.
pub fn this_program() -> Command {
    let executable = std::env::current_exe().expect("a running test has a path");
    let Some(runner) = std::env::var_os("TESTS_RUNNER") else {
        return Command::new(executable);
    };
    let mut command = Command::new(runner);
    command.arg(executable);
    command
}

/// In the parent: runs the test called `test` (its full path inside the executable) once more, in
/// a child where nothing else runs, and expects success. In that child: runs `body`.
///
/// # Panics
///
/// If the child fails; the panic carries what it printed.
pub fn in_child(test: &str, body: impl FnOnce()) {
    let Some(output) = end_of_child(test, &[], body) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{test} failed in its child, {}:\n{text}\n{errors}",
        output.status
    );
    // A name that fits no test runs nothing, and that succeeds too.
    assert!(text.contains("1 passed"), "{test} is not a test:\n{text}");
}

/// As [`in_child`], but for bodies whose end is what the test is about: in the parent, how the
/// child ended and what it printed, whatever that is; in the child, `None` after the body.
///
/// `variables` are set in the child's environment.
///
/// # Panics
///
/// If there can be no child.
pub fn end_of_child(test: &str, variables: &[(&str, &str)], body: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(CHILD).is_some_and(|name| name == test) {
        body();
        return None;
    }
    let output = this_program()
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("a test can run itself");
    Some(output)
}

/// How many descriptors this process has open.
///
/// # Panics
///
/// Where the system does not list them.
pub fn descriptors() -> usize {
    let listing = if cfg!(target_os = "linux") {
        "/proc/self/fd"
    } else {
        "/dev/fd"
    };
    std::fs::read_dir(listing).expect(listing).count()
}
