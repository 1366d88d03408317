#!/usr/bin/env bash
# Lets Microsoft's own SDKs judge the embedded hub. Prints one line a check and, last, `N passed, N failed`;
# the exit code is 1 when any check failed. README.md beside this file says what is checked and how.
#
# GEMINID      the binary to judge       [default: built here, target/debug/geminid]
# SDK_ADDRESS  a free loopback address   [default: one of 127.8.0.0/16; 127.0.0.1 where there is only that]
# SDK_ONLY     run only the named programs of checks/, e.g. "tutorial.py node_service.js"
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$root/target/sdk
programs=${SDK_ONLY:-tutorial.py python_service.py python_modules.py python_fleet.py python_device.py python_sessions.py plain_mqtt.py node_service.js node_fleet.js node_device.js python_tier.py node_tier.js}
export PYTHONDONTWRITEBYTECODE=1

# Each run has an address of its own where the machine owns all of 127.0.0.0/8, so that runs do not meet.
choose_address() {
    local candidate="127.8.$(($$ / 250 % 250 + 1)).$(($$ % 250 + 1))"
    if "$work/venv/bin/python" -c 'import socket, sys; socket.socket().bind((sys.argv[1], 0))' "$candidate" 2>/dev/null; then
        echo "$candidate"
    else
        echo 127.0.0.1
    fi
}

run_program() {
    local program=$1 log=$SDK_RUN/$1.log
    case $program in
    *.py) "$work/venv/bin/python" "$here/checks/$program" ;;
    *.js) node "$here/checks/$program" ;;
    esac 2>"$log" && return 0
    echo "FAILED  $program: ended early: $(tail -n 1 "$log")"
}

mkdir -p "$work"
if [ -z "${GEMINID:-}" ]; then
    cargo build --quiet --locked --manifest-path "$root/Cargo.toml"
    GEMINID=${CARGO_TARGET_DIR:-$root/target}/debug/geminid
fi
[ -x "$GEMINID" ] || { echo "no such program: $GEMINID" >&2; exit 1; }
"$here/setup.sh"

SDK_RUN=$(mktemp -d "$work/run.XXXXXX")
SDK_ADDRESS=${SDK_ADDRESS:-$(choose_address)}
SDK_HUB=$here/hub.sh
export GEMINID SDK_RUN SDK_ADDRESS SDK_HUB
trap '"$SDK_HUB" stop' EXIT
trap 'exit 130' INT TERM
"$SDK_HUB" start

# The SDKs learn of the hub's authority from their environment, as their manuals say; nothing else is told to them.
export REQUESTS_CA_BUNDLE=$SDK_RUN/state/ca.pem SSL_CERT_FILE=$SDK_RUN/state/ca.pem
export NODE_EXTRA_CA_CERTS=$SDK_RUN/state/ca.pem NODE_PATH=$work/node/node_modules
unset SSL_CERT_DIR HTTPS_PROXY https_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy

for program in $programs; do
    run_program "$program" | tee -a "$SDK_RUN/results"
done

passed=$(grep -c '^passed  ' "$SDK_RUN/results" || true)
failed=$(grep -c '^FAILED  ' "$SDK_RUN/results" || true)
if [ "$failed" -gt 0 ]; then
    echo "logs: $SDK_RUN"
else
    "$SDK_HUB" stop
    rm -rf "$SDK_RUN"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
