#!/usr/bin/env bash
# Sets up what Microsoft's SDKs run in, under target/sdk: a virtual environment of Python and node_modules, with the
# versions that lie beside this file. Does nothing when that was done before from the same files.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=$(cd "$here/../.." && pwd)/target/sdk

# A folder is set up anew when what it is made from changes.
prepared() { [ -f "$1/.prepared" ] && [ "$(cat "$1/.prepared")" = "$2" ]; }

set_up_python() {
    local want
    want=$(cksum <"$here/requirements.txt")
    prepared "$work/venv" "$want" && return
    rm -rf "$work/venv"
    python3 -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    echo "$want" >"$work/venv/.prepared"
}

set_up_node() {
    local want
    want=$(cat "$here/package.json" "$here/package-lock.json" | cksum)
    prepared "$work/node" "$want" && return
    rm -rf "$work/node"
    mkdir -p "$work/node"
    cp "$here/package.json" "$here/package-lock.json" "$work/node/"
    npm ci --prefix "$work/node" --silent --no-audit --no-fund --ignore-scripts
    echo "$want" >"$work/node/.prepared"
}

mkdir -p "$work"
set_up_python
set_up_node
