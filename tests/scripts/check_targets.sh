#!/usr/bin/env bash
# Type-checks the workspace, tests included, for the systems that are not this one.
#
# rustup has no standard library for OpenBSD, and a checkout of one is needed for each of the others.
# Debian packages a compiler together with the library's sources, which can be checked for any
# target; RUSTC_BOOTSTRAP lets that stable compiler build its own library. Nothing is linked or
# run: what is seen is that every call, type and constant exists there.

source "$(dirname "$0")/common.sh"
targets=(x86_64-unknown-freebsd x86_64-unknown-netbsd x86_64-unknown-openbsd aarch64-apple-darwin)

need_packages rustc-web cargo-web rust-web-src gcc libc6-dev
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
# A directory of its own, because another compiler would invalidate everything in the usual one.
export CARGO_TARGET_DIR=$PWD/target/check-targets

for target in "${targets[@]}"; do
    say "checking for $target"
    /usr/bin/cargo check --quiet -Zbuild-std=std,panic_abort --target "$target" \
        --workspace --all-targets
done
say "checked for ${targets[*]}"
