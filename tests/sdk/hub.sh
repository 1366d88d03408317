#!/usr/bin/env bash
# Starts and stops the hub under test; run.sh calls it, and so do the checks that need a restart.
#
#   hub.sh start | stop | restart | kill
#
# What stands behind start and restart goes to the hub as it is, e.g. `hub.sh restart --tier F1`.
#
# GEMINID      the binary
# SDK_ADDRESS  the loopback address whose ports 443 and 8883 the hub takes
# SDK_RUN      folder of this run: state/, hub.pid, hub.log
set -euo pipefail

: "${GEMINID:?}" "${SDK_ADDRESS:?}" "${SDK_RUN:?}"
pid_file=$SDK_RUN/hub.pid
log=$SDK_RUN/hub.log
# Tenths of a second.
start_ticks_max=200
stop_ticks_max=150

# A process that ended but that nobody has waited for is not alive, though it still takes signals.
alive() { kill -0 "$1" 2>/dev/null && ! grep -qs '^State:.Z' "/proc/$1/status"; }

start() {
    rm -f "$SDK_RUN/state/hub.json"
    "$GEMINID" hub --hub-host "$SDK_ADDRESS" --hub-https "$SDK_ADDRESS:443" --hub-mqtts "$SDK_ADDRESS:8883" \
        --state-dir "$SDK_RUN/state" "$@" </dev/null >>"$log" 2>&1 &
    local pid=$!
    echo "$pid" >"$pid_file"
    for ((tick = 0; tick < start_ticks_max; tick++)); do
        # The hub writes hub.json last, when its ports accept.
        [ -s "$SDK_RUN/state/hub.json" ] && return 0
        alive "$pid" || break
        sleep 0.1
    done
    echo "the hub did not start on $SDK_ADDRESS (ports 443 and 8883 must be free and allowed): $(tail -n 1 "$log")" >&2
    stop
    return 1
}

stop() {
    [ -f "$pid_file" ] || return 0
    local pid
    pid=$(cat "$pid_file")
    rm -f "$pid_file"
    kill -s "${1:-TERM}" "$pid" 2>/dev/null || return 0
    for ((tick = 0; tick < stop_ticks_max; tick++)); do
        alive "$pid" || return 0
        sleep 0.1
    done
    echo "the hub did not stop within $((stop_ticks_max / 10)) s of its signal" >&2
    kill -9 "$pid" 2>/dev/null || true
    return 1
}

command=${1:-}
shift || true
case $command in
start) start "$@" ;;
stop) stop ;;
restart) stop && start "$@" ;;
kill) stop KILL ;;
*) echo "usage: hub.sh start [FLAG..] | stop | restart [FLAG..] | kill" >&2; exit 2 ;;
esac
