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
client=
interrupted=0

# ended_within SECONDS PID: waits for the process; false if it still runs then.
ended_within() {
    local tenths=$(($1 * 10))
    while kill -0 "$2" 2>/dev/null; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || return 1
        sleep 0.1 || true
    done
}

# stop SECONDS PID: sends TERM, allows so much time, insists; answers the process's exit code.
stop() {
    kill -TERM "$2" 2>/dev/null || true
    ended_within "$1" "$2" || kill -KILL "$2" 2>/dev/null || true
    wait "$2"
}

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$client" ] || stop 5 "$client" || true
    [ -z "$server" ] || stop 15 "$server" || true
    rm -f "$output"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM HUP
# Ctrl-C reaches the programs by itself, once: the client then prints its report so far, which is
# worth waiting for.
trap 'interrupted=130' INT

# Starts the server on address $1 and waits for its `listening on ADDR`, which sets `address`;
# false if it ends before it says so, as it does when the port is in use.
start_server() {
    "${runner[@]}" "$directory/server" --listen "$1" >"$output" &
    server=$!
    for _ in {1..300}; do
        address=$(sed -n 's/^listening on //p' "$output")
        [ "$interrupted" -eq 0 ] || exit "$interrupted"
        [ -z "$address" ] || return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1 || true
    done
    stop 1 "$server" || true
    server=
    return 1
}

if ! start_server 127.0.0.1:8080; then
    echo "127.0.0.1:8080 cannot be had; taking a free port instead"
    start_server 127.0.0.1:0 || die "the server did not start; its own words are above"
fi
say "server: listening on $address (process $server)"

say "client: $*"
"${runner[@]}" "$directory/client" --connect "$address" "$@" &
client=$!
# A client that hangs would be a bug, and must not hang whoever only wanted to look.
status=0
if ended_within 120 "$client"; then
    wait "$client" || status=$?
else
    stop 1 "$client" || true
    status=124
fi
client=
[ "$status" -eq 0 ] || echo "the client's exit code is $status" >&2

stopped=0
stop 15 "$server" || stopped=$?
server=
say "server: its summary after SIGTERM"
grep -v '^listening on ' "$output" || true
[ "$stopped" -eq 0 ] || echo "the server's exit code is $stopped" >&2
[ "$interrupted" -eq 0 ] || exit "$interrupted"
[ "$status" -ne 0 ] || status=$stopped
exit "$status"
