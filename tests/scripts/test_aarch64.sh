#!/usr/bin/env bash
# Cross-builds for aarch64 and runs, under qemu's user-mode emulation, the tests of what differs
# there (the switch, the system calls) and of what stands on it, then the server under the client.
#
# qemu passes system calls on to this machine's kernel and answers ENOSYS or EINVAL for those it
# does not know, MADV_GUARD_INSTALL and epoll_pwait2 among them: the fallbacks are run, too.
# Debian's compiler is used because Debian packages aarch64's standard library for it.

source "$(dirname "$0")/common.sh"

# The unit tests of the runtime, by what their paths begin with.
unit_tests=(context:: coroutine:: poller:: reactor:: sched:: selector:: sys:: timer::)
# The integration tests, by their names in tests/tests/ and runtime/tests/. Not `memory`, and not what
# is skipped: more than 32 thousand stacks need guards that cost no mapping, which qemu does not
# pass on.
integration_tests=(stack coroutine threads scheduler poller_conformance selector_conformance
    reactor net_conformance)
skipped=(--skip a_hundred_thousand)

foreign=arm64
need_packages rustc-web cargo-web libstd-rust-web-dev:arm64 gcc libc6-dev \
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross libc6:arm64 libgcc-s1:arm64 qemu-user

target=aarch64-unknown-linux-gnu
# Without qemu's -L: the cross compiler's own C library is of another build than libc6:arm64, and a
# program that gets its loader from one and its library from the other hangs in its first thread.
emulator=qemu-aarch64
export RUSTC=/usr/bin/rustc
export CARGO=/usr/bin/cargo
export CARGO_TARGET_DIR=$PWD/target/aarch64
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$emulator
# A test that starts its own executable again must put the emulator before it.
export TESTS_RUNNER=$emulator

say "unit tests on aarch64"
bounded 600 /usr/bin/cargo test --target "$target" --package runtime --lib -- "${unit_tests[@]}"

for name in "${integration_tests[@]}"; do
    for package in runtime tests; do
        if [ -e "$package/tests/$name.rs" ] || [ -e "$package/tests/$name/main.rs" ]; then
            say "$package's test $name on aarch64"
            bounded 600 /usr/bin/cargo test --target "$target" --package "$package" \
                --test "$name" -- "${skipped[@]}"
        fi
    done
done

say "an echo run on aarch64"
/usr/bin/cargo build --target "$target" --package server --package client
RUNNER=$emulator tests/scripts/echo_run.sh "$CARGO_TARGET_DIR/$target/debug" \
    --connections 40 --messages 50
