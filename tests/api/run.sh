#!/usr/bin/env bash
# Lets schemathesis judge the status API of a running daemon by the document that the daemon serves, and a validator of
# others judge the JSON Schemas of manifests by the shipped ones.
#
# GEMINID  the binary to judge  [default: built here, target/debug/geminid]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$root/target/api
token=schemathesis-0123456789
# It runs in the folder of the run, where it leaves what it remembers.
# The same cases every time: a finding can be looked at again.
seed=20261123
examples_max=60

set_up_python() {
    local want
    want=$(cksum <"$here/requirements.txt")
    [ -f "$work/venv/.prepared" ] && [ "$(cat "$work/venv/.prepared")" = "$want" ] && return
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    echo "$want" >"$work/venv/.prepared"
}

mkdir -p "$work"
if [ -z "${GEMINID:-}" ]; then
    cargo build --quiet --locked --manifest-path "$root/Cargo.toml"
    GEMINID=${CARGO_TARGET_DIR:-$root/target}/debug/geminid
fi
[ -x "$GEMINID" ] || { echo "no such program: $GEMINID" >&2; exit 1; }
set_up_python
"$work/venv/bin/python" "$here/manifests.py" "$GEMINID" "$root/manifests" "$root/fleet"

run=$(mktemp -d "$work/run.XXXXXX")
cp -r "$root/manifests" "$run/manifests"
echo "$token" >"$run/token"
(cd "$run" && exec "$GEMINID" run --embedded-hub --manifests manifests --listen 127.0.0.1:0 --hub-https 127.0.0.1:0 \
    --hub-mqtts 127.0.0.1:0 --api-token-file token --audit-log audit.log) >"$run/stdout" 2>"$run/stderr" &
pid=$!
cleanup() {
    kill -INT "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

server=
for _ in $(seq 1 120); do
    server=$(sed -n 's/^ *status .*--server //p' "$run/stdout")
    [ -n "$server" ] && grep -q '"state":"in_sync"' <<<"$(curl -fsS "$server/api/v1/twins" 2>/dev/null)" && break
    kill -0 "$pid" || { cat "$run/stderr" >&2; exit 1; }
    read -rt 0.5 <> <(:) || true
done

code=0
cd "$run"
"$work/venv/bin/schemathesis" run "$server/api/v1/openapi.json" --header "Authorization: Bearer $token" \
    --phases examples,coverage,fuzzing --max-examples "$examples_max" --seed "$seed" --no-color \
    --exclude-checks positive_data_acceptance >"$run/judgement" 2>&1 || code=$?
tail -n 60 "$run/judgement"
if grep -q "panicked at" "$run/stderr"; then
    echo "the daemon panicked" >&2
    code=1
fi
[ "$code" = 0 ] && cleanup && trap - EXIT && rm -rf "$run"
exit "$code"
