#!/usr/bin/env bash
# Runs the tests: unit tests, integration tests, and (without arguments) the documentation's examples.
#
#   tests/scripts/test.sh                     everything
#   tests/scripts/test.sh NAME=VALUE...       everything but the documentation, in that environment
#
# With cargo-nextest each test is a process, and one that hangs is ended; without it cargo's own
# runner does, and each test's own deadline.

source "$(dirname "$0")/common.sh"
need_cargo

if [ $# -gt 0 ]; then
    say "tests with $*"
    export "$@"
fi
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --all-targets --no-fail-fast
else
    cargo test --workspace --all-targets --no-fail-fast
fi
if [ $# -eq 0 ]; then
    cargo test --workspace --doc
fi
