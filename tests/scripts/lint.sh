#!/usr/bin/env bash
# rustfmt and clippy over the workspace, and over the benchmarks' crate, which is outside of it.
# What no tool checks of the house rules, tests/tests/house_rules.rs does.

source "$(dirname "$0")/common.sh"
need_cargo
for tool in fmt clippy; do
    cargo "$tool" --version >/dev/null 2>&1 || die "cargo $tool is missing; install it:" \
        "    rustup:  rustup component add rustfmt clippy" \
        "    Debian:  apt-get install rustfmt-web rust-web-clippy"
done

for manifest in Cargo.toml tests/peers/Cargo.toml; do
    [ -f "$manifest" ] || continue
    cargo fmt --manifest-path "$manifest" --all --check
    cargo clippy --quiet --manifest-path "$manifest" --workspace --all-targets -- -D warnings
done
