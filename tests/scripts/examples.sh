#!/usr/bin/env bash
# Runs every example of the runtime. Each shows something and ends by itself, with 0.

source "$(dirname "$0")/common.sh"
need_cargo

cargo build --quiet --package runtime --examples
directory=$(target_directory)/debug/examples
for source in runtime/examples/*.rs; do
    [ -f "$source" ] || continue
    name=$(basename "$source" .rs)
    say "example $name"
    bounded 60 "$directory/$name"
done
