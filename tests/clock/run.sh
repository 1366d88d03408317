#!/usr/bin/env bash
# The wall clock around the real process, set back and forward by libfaketime: of the daemon alone, with a hub whose clock
# is right, and of a daemon with its embedded hub. After each jump: a saved manifest is at the hub within seconds, sweeps
# go on at their pace, nothing is written that nobody declared, nobody panics, nobody burns the processor.
# GEMINID is the binary  [default: an unoptimised one of this tree].
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

library=$(find /usr/lib -name libfaketimeMT.so.1 2>/dev/null | head -n 1)
missing=()
[ -n "$library" ] || missing+=(libfaketime)
command -v curl >/dev/null || missing+=(curl)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
  library=$(find /usr/lib -name libfaketimeMT.so.1 | head -n 1)
fi
[ -n "${GEMINID:-}" ] || { cargo build --locked; GEMINID=$root/target/debug/geminid; }

twins=20
# Time from one sweep to the next, and how long they are watched, in seconds.
sweep=1
watched=3
# What a process may use of one processor meanwhile, in hundredths of a second.
ticks_max=300
# Warnings and errors over a whole life.
complaints_max=4

work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
cd "$work"

step() { printf '\n-- %s (%s s)\n' "$*" "$SECONDS"; }
fail() {
  echo "FAILED: $*" >&2
  tail -n 30 ./*.log >&2
  exit 1
}
pause() { read -rt "$1" <> <(:) || true; }

# The time that the next processes believe in: an offset such as -1h.
clock() {
  echo "$1" >offset.new
  mv offset.new offset
}
start_faked() { # log name, arguments
  # The steady clock stays as it is: setting a wall clock does not move it.
  LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE=$work/offset FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
    "$GEMINID" "${@:2}" >"$1.log" 2>&1 &
  pids+=($!)
  last=$!
}
announced() { # log name, label
  for _ in $(seq 1 200); do
    sed -n "s|^ *$2 *||p" "$1.log" | head -n 1 | grep . && return 0
    pause 0.2
  done
  fail "$1 does not announce $2"
}

# The sum of the series that begin so.
metric() {
  curl -fsS "$metrics" | awk -v name="$1" 'index($0, name) == 1 { sum += $NF } END { printf "%d\n", sum }'
}
await_metric() { # series, value
  for _ in $(seq 1 200); do
    found=$(metric "$1" 2>/dev/null || echo unreachable)
    [ "$found" = "$2" ] && return 0
    pause 0.1
  done
  fail "$1 is $found, not $2"
}
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

level=0
save() {
  level=$((level + 1))
  for n in $(seq 1 $twins); do
    printf 'apiVersion: geminid.dev/v1alpha1\nkind: DeviceTwin\nmetadata: {name: d%s}\nspec: {create: true, properties: {desired: {level: %s}}}\n' \
      "$n" "$level" >"manifests/.d$n"
    mv "manifests/.d$n" "manifests/d$n.yaml"
  done
}
# How many twins the hub knows at the declared level, asked by a process whose clock is right.
at_level() {
  "$GEMINID" query "SELECT deviceId FROM devices WHERE properties.desired.level = $level" --hub-json "$hub_json" -o csv | grep -c '^d[0-9]'
}
await_level() {
  for _ in $(seq 1 300); do
    found=$(at_level || true)
    [ "$found" = "$twins" ] && return 0
    pause 0.2
  done
  fail "$found of $twins twins are at level $level"
}

# What must hold while the clock is so late that each token has ended before it is made: the hub refuses them. That is said
# once, with the clock among its reasons; nothing races and nothing is lost.
is_refused() { # log name, pid
  save
  await_metric 'geminid_hub_up' 0
  requests=$(metric 'geminid_hub_requests_total')
  ticks=$(ticks "$2")
  pause $watched
  used=$(($(ticks "$2") - ticks))
  requests=$(($(metric 'geminid_hub_requests_total') - requests))
  [ "$used" -le $ticks_max ] || fail "it used $used ticks in $watched s"
  [ "$requests" -le $((twins + watched * 4)) ] || fail "it asks too often: $requests requests in $watched s"
  said=$(grep -c "that this machine's clock is right" "$1.log" || true)
  [ "$said" = 1 ] || fail "that the clock may be wrong is said $said times"
  echo "refused and said so once, $requests requests in $watched s, $used ticks"
}

# What must hold after each jump, of the daemon with this number.
holds() { # log name, pid
  save
  await_level
  await_metric 'geminid_twins{hub="embedded",state="in_sync"}' $twins
  before=$(metric 'geminid_hub_requests_total{code="200",hub="embedded",operation="query"}')
  writes=$(metric 'geminid_twin_patches_total')
  ticks=$(ticks "$2")
  pause $watched
  after=$(metric 'geminid_hub_requests_total{code="200",hub="embedded",operation="query"}')
  used=$(($(ticks "$2") - ticks))
  sweeps=$((after - before))
  [ "$sweeps" -ge 2 ] || fail "sweeps stopped: $sweeps queries in $watched s"
  [ "$sweeps" -le $((watched / sweep * 4 + 4)) ] || fail "sweeps race: $sweeps queries in $watched s"
  [ "$(metric 'geminid_twin_patches_total')" = "$writes" ] || fail "something was written though nothing was saved"
  [ "$used" -le $ticks_max ] || fail "it used $used ticks in $watched s"
  [ "$(metric 'geminid_hub_up')" = 1 ] || fail "the hub is said to be down"
  echo "level $level at the hub, $sweeps queries in $watched s, $used ticks"
}
ends_well() { # log name, pid
  kill -TERM "$2"
  code=0
  wait "$2" || code=$?
  [ "$code" = 0 ] || fail "$1 ended with $code"
  ! grep -q 'panicked' "$1.log" || fail "$1 panicked"
  complaints=$(grep -cE ' (WARN|ERROR) ' "$1.log" || true)
  [ "$complaints" -le $complaints_max ] || fail "$1 complained $complaints times"
}

mkdir manifests
save
common=(--manifests manifests --listen 127.0.0.1:0 --sweep "${sweep}s")

step "the daemon's clock alone: a hub whose clock is right"
"$GEMINID" hub --hub-https 127.0.0.1:0 --hub-mqtts 127.0.0.1:0 --state-dir hub >hub.log 2>&1 &
pids+=($!)
hub_pid=$!
announced hub stop >/dev/null || true
for _ in $(seq 1 100); do [ -f hub/hub.json ] && break; pause 0.1; done
hub_json=hub/hub.json
clock +0
start_faked daemon run --hub-json "$hub_json" "${common[@]}"
daemon=$last
metrics=$(announced daemon metrics)
holds daemon "$daemon"
# A token made by a clock that is ahead is refused by nobody: it only lasts longer than meant.
for jump in -30m +1h +30d +0; do
  clock "$jump"
  echo "clock at $jump"
  holds daemon "$daemon"
done
clock -1h
echo "clock at -1h: tokens last an hour"
is_refused daemon "$daemon"
clock +0
echo "clock right again"
holds daemon "$daemon"
ends_well daemon "$daemon"

step "started by a clock that is twenty minutes late"
clock -20m
start_faked late run --hub-json "$hub_json" "${common[@]}"
late=$last
metrics=$(announced late metrics)
holds late "$late"
clock +2h
echo "clock at +2h: its token has ended by its own clock, and is made anew"
holds late "$late"
ends_well late "$late"
kill -TERM "$hub_pid"
wait "$hub_pid"

step "daemon and embedded hub by one clock"
clock +0
start_faked embedded run --embedded-hub --state-dir embedded --hub-https 127.0.0.1:0 --hub-mqtts 127.0.0.1:0 "${common[@]}"
embedded=$last
metrics=$(announced embedded metrics)
hub_json=embedded/hub.json
# Whoever asks this hub asks by its clock.
right=$GEMINID
cat >by-its-clock <<SCRIPT
#!/bin/sh
LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE=$work/offset FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 exec "$right" "\$@"
SCRIPT
chmod +x by-its-clock
GEMINID=$work/by-its-clock
for jump in +0 -1h +1h -20h +0; do
  clock "$jump"
  echo "clock at $jump"
  holds embedded "$embedded"
done
ends_well embedded "$embedded"

step "all good"
