# What the scripts share: where the project is, and how a missing tool is installed or named.
# To be sourced by bash. Not here: anything that builds or runs the product.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Keep in step with rust-version in Cargo.toml; the edition alone makes older cargos fail obscurely.
rust_minor_min=95

say() { printf '\n== %s\n' "$*"; }

die() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Ends the script, with the remedy in words, unless there is a cargo that can build the project.
need_cargo() {
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    local remedy="install Rust 1.$rust_minor_min or later:
    any system:  https://rustup.rs
    Debian 12+:  apt-get install rustc-web cargo-web gcc"
    command -v cargo >/dev/null || die "cargo was not found; $remedy"
    local version minor
    version=$(rustc --version) || die "rustc does not run; $remedy"
    minor=$(sed -E 's/^rustc 1\.([0-9]+).*/\1/' <<<"$version")
    if ! [ "$minor" -ge "$rust_minor_min" ] 2>/dev/null; then
        die "this is $version, which is too old; $remedy" "    rustup:      rustup update stable"
    fi
    command -v cc >/dev/null || die "a linker is missing (cc was not found); install gcc or clang:
    Debian: apt-get install gcc    Fedora: dnf install gcc    macOS: xcode-select --install"
}

# need_packages PACKAGE...: installs what is missing of Debian's packages, as root or through sudo,
# and where neither is possible ends the script with the line to run.
need_packages() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" = "ii " ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local become=()
    if [ "$(id -u)" -ne 0 ]; then
        become=(sudo)
    fi
    if ! command -v apt-get >/dev/null || { [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; }
    then
        die "missing packages (by Debian's names): ${missing[*]}" \
            "install them:${foreign:+ dpkg --add-architecture $foreign &&}" \
            "    apt-get update && apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    if [ -n "${foreign:-}" ] && ! dpkg --print-foreign-architectures | grep -qx "$foreign"; then
        "${become[@]}" dpkg --add-architecture "$foreign"
    fi
    "${become[@]}" apt-get update -qq
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
}

# The directory that cargo builds into, however it was configured.
target_directory() {
    cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# bounded SECONDS COMMAND...: runs it, and ends it if it takes longer, where the system has timeout(1).
bounded() {
    local seconds=$1
    shift
    if command -v timeout >/dev/null; then
        timeout --foreground --kill-after 10 "$seconds" "$@"
    else
        "$@"
    fi
}
