#!/usr/bin/env bash
# Builds both programs and shows them to somebody who has just cloned the project.

source "$(dirname "$0")/common.sh"
need_cargo

say "building (release)"
cargo build --release --package server --package client
exec tests/scripts/echo_run.sh "$(target_directory)/release" --duration 5s
