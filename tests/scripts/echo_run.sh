#!/usr/bin/env bash
# Starts the server, puts the client on it, stops the server, and shows what both had to say.
#
#   tests/scripts/echo_run.sh DIRECTORY CLIENT-ARGUMENT...
#
# DIRECTORY has the programs `server` and `client`; RUNNER, if set, is the command that runs them
# (an emulator, say). The address is 127.0.0.1:8080, or any free port if that one is in use. Ends by
# itself, with 0 if both programs did, and leaves no process behind, on Ctrl-C neither.

source "$(dirname "$0")/common.sh"

directory=$1
shift
read -ra runner <<<"${RUNNER:-}"
output=$(mktemp)
server=

# Sends TERM, allows the server 15 s (its own drain takes 5 at most), then insists.
stop_server() {
    local pid=$server status=0
    server=
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    for _ in {1..150}; do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" || status=$?
    return "$status"
}

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    stop_server || true
    rm -f "$output"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Starts the server on address $1 and waits for its `listening on ADDR`, which sets `address`;
# false if it ends before it says so, as it does when the port is in use.
start_server() {
    "${runner[@]}" "$directory/server" --listen "$1" >"$output" &
    server=$!
    for _ in {1..300}; do
        address=$(sed -n 's/^listening on //p' "$output")
        [ -z "$address" ] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    stop_server || true
    return 1
}

if ! start_server 127.0.0.1:8080; then
    echo "127.0.0.1:8080 cannot be had; taking a free port instead"
    start_server 127.0.0.1:0 || die "the server did not start; its own words are above"
fi
say "server: listening on $address (process $server)"

say "client: $*"
client=("${runner[@]}" "$directory/client" --connect "$address" "$@")
# A client that hangs would be a bug, and must not hang whoever only wanted to look.
status=0
bounded 120 "${client[@]}" || status=$?
if [ "$status" -ne 0 ]; then
    echo "the client's exit code is $status" >&2
fi

stopped=0
stop_server || stopped=$?
say "server: its summary after SIGTERM"
grep -v '^listening on ' "$output" || true
if [ "$stopped" -ne 0 ]; then
    echo "the server's exit code is $stopped" >&2
fi
[ "$status" -ne 0 ] || status=$stopped
exit "$status"
