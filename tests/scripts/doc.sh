#!/usr/bin/env bash
# The documentation, in which a broken link is an error. First as users of the crates see it; then
# with the private items, because the source is there to be read and its comments link, too.

source "$(dirname "$0")/common.sh"
need_cargo

export RUSTDOCFLAGS="-D warnings"
cargo doc --quiet --workspace --no-deps
cargo doc --quiet --workspace --no-deps --document-private-items
say "open $(target_directory)/doc/runtime/index.html"
