#!/usr/bin/env bash
# Builds both programs and compares the server's models; the report lies in the target directory.
#
#   tests/scripts/compare.sh [OPTION...]     options of `client compare`

source "$(dirname "$0")/common.sh"
need_cargo

say "building (release)"
cargo build --release --package server --package client
target=$(target_directory)
time="three to four minutes"
[[ " $* " != *" --sweep "* ]] || time="some ten minutes"
say "comparing the models; it takes $time"
exec "$target/release/client" compare --html "$target/compare.html" "$@"
