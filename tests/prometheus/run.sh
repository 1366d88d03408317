#!/usr/bin/env bash
# A real Prometheus, a real Alertmanager and promtool as judges of what geminid exposes: the seed's scenario, a query
# that breaks, a hub that goes away, 100,000 series. Everything is on loopback on free ports and stopped by its pid.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

missing=()
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
command -v prometheus-alertmanager >/dev/null && command -v amtool >/dev/null || missing+=(prometheus-alertmanager)
command -v curl >/dev/null || missing+=(curl)
command -v openssl >/dev/null || missing+=(openssl)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi
[ -n "${GEMINID:-}" ] || { cargo build --locked; GEMINID=$root/target/debug/geminid; }

work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

step() { printf '\n-- %s (%s s)\n' "$*" "$SECONDS"; }
fail() {
  echo "FAILED: $*" >&2
  tail -n 20 "$work"/*.log >&2
  exit 1
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start() { # log name, command
  "${@:2}" >"$work/$1.log" 2>&1 &
  pids+=($!)
  last=$!
}

# The value of an expression with exactly one result; "none" without a result, "many" with several.
value() {
  curl -fsS --get "http://$prometheus/api/v1/query" --data-urlencode "query=$1" | python3 -c '
import json, sys
found = json.load(sys.stdin)["data"]["result"]
print("none" if not found else "many" if len(found) > 1 else found[0]["value"][1])'
}
# Waits until the expression has this value.
await() { # seconds, expression, value
  for _ in $(seq 1 $(($1 * 4))); do
    found=$(value "$2" 2>/dev/null || echo unreachable)
    [ "$found" = "$3" ] && { echo "seen: $2 = $3"; return 0; }
    read -rt 0.25 <> <(:) || true
  done
  fail "$2 is $found, not $3"
}

step "rules, scrape configuration and Kubernetes objects"
deploy/prometheus/kubernetes.sh --check
(cd deploy/prometheus && promtool check config prometheus.yml && promtool check rules --lint=all --lint-fatal geminid.rules.yml &&
  promtool test rules geminid.test.yml)

step "a hub, and two daemons"
small=127.0.0.1:$(free_port)
big=127.0.0.1:$(free_port)
prometheus=127.0.0.1:$(free_port)
alertmanager=127.0.0.1:$(free_port)

# The seed's scenario as shipped, asked more often so that this test is short.
mkdir -p "$work/small" "$work/big"
sed 's/interval: 30s/interval: 5s/; s/timeout: 10s/timeout: 4s/' manifests/redmond43/queries.yaml >"$work/small/queries.yaml"
cp manifests/redmond43/my-device.yaml "$work/small/"
cat >"$work/small/swept.yaml" <<'QUERY'
apiVersion: geminid.dev/v1alpha1
kind: TwinQuery
metadata: {name: managed}
spec:
  evaluate: sweep
  query: |
    SELECT tags.location.plant AS plant, COUNT() AS n FROM devices
    WHERE IS_DEFINED(tags.geminid.[[demo]]) GROUP BY tags.location.plant
  metrics: [{name: twinquery_managed_devices, help: Managed devices., labels: {plant: {column: plant}}, value: {column: n}}]
QUERY
start small "$GEMINID" run --embedded-hub --manifests "$work/small" --listen "$small" --state-dir "$work/small-hub" \
  --hub-https 127.0.0.1:0 --hub-mqtts 127.0.0.1:0 --hub-ephemeral --sweep 5s

# 6,250 devices and a query of 16 metrics are 100,000 series.
echo '{"tags": {"fill": "yes"}}' >"$work/template.json"
start hub "$GEMINID" hub --state-dir "$work/hub" --hub-https 127.0.0.1:0 --hub-mqtts 127.0.0.1:0 --hub-ephemeral \
  --fill-devices 6250 --fill-template "$work/template.json"
hub_pid=$last
{
  cat <<'QUERY'
apiVersion: geminid.dev/v1alpha1
kind: TwinQuery
metadata: {name: steady}
spec:
  query: SELECT COUNT() AS n FROM devices WHERE tags.location.plant = 'Leeds7'
  interval: 5s
  timeout: 4s
  staleAfter: 10s
  metrics: [{name: twinquery_leeds7_devices, help: Devices of Leeds7., value: {column: n}}]
---
apiVersion: geminid.dev/v1alpha1
kind: TwinQuery
metadata: {name: fragile}
spec:
  query: SELECT deviceId AS device, tags.location.plant AS plant, tags.line AS line FROM devices WHERE tags.location.plant = 'Leeds7'
  interval: 5s
  timeout: 4s
  staleAfter: 10s
  metrics:
  - name: twinquery_leeds7_line
    help: The line of the one device of Leeds7.
    labels: {plant: {column: plant}}
    value: {column: line}
---
apiVersion: geminid.dev/v1alpha1
kind: TwinQuery
metadata: {name: many}
spec:
  query: SELECT deviceId AS device FROM devices WHERE tags.fill = 'yes'
  interval: 10m
  timeout: 5m
  limits: {maxPages: 200, maxRows: 10000, maxSeries: 100000}
  metrics:
QUERY
  for index in $(seq 1 16); do
    echo "  - {name: twinquery_many_$index, help: Of many., labels: {device: {column: device}}, value: {const: $index}}"
  done
} >"$work/big/queries.yaml"
device() { # file, id, line
  cat >"$work/big/$1.tmp" <<DEVICE
apiVersion: geminid.dev/v1alpha1
kind: DeviceTwin
metadata: {name: $2}
spec: {create: true, tags: {location: {plant: Leeds7}, line: $3}}
DEVICE
  mv "$work/big/$1.tmp" "$work/big/$1.yaml"
}
device first leeds-1 7
for _ in $(seq 1 240); do
  [ -f "$work/hub/hub.json" ] && break
  read -rt 0.25 <> <(:) || true
done
start big "$GEMINID" run --hub-json "$work/hub/hub.json" --manifests "$work/big" --listen "$big" --sweep 5s

step "a Prometheus and an Alertmanager"
cat >"$work/alertmanager.yml" <<'CONFIG'
route: {receiver: none}
receivers: [{name: none}]
CONFIG
amtool check-config "$work/alertmanager.yml"
# The shipped rules, but nobody waits for minutes here.
sed 's/\( for:\) .*/\1 2s/' deploy/prometheus/geminid.rules.yml >"$work/rules.yml"
cat >"$work/prometheus.yml" <<CONFIG
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
alerting: {alertmanagers: [{static_configs: [{targets: ["$alertmanager"]}]}]}
scrape_configs:
  - job_name: geminid
    sample_limit: 150000
    static_configs: [{targets: ["$small"]}]
  - job_name: geminid-big
    scrape_interval: 2s
    sample_limit: 150000
    static_configs: [{targets: ["$big"]}]
CONFIG
promtool check config "$work/prometheus.yml"
start alertmanager prometheus-alertmanager --config.file="$work/alertmanager.yml" --storage.path="$work/am" \
  --web.listen-address="$alertmanager" --cluster.listen-address=
start prometheus prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
  --web.listen-address="$prometheus"

step "the seed's scenario: 0, then 1 when the device reports"
cellular='twinquery_plant_cellular_devices{hub="embedded",plant="Redmond43"}'
await 30 'twinquery_plant_devices{hub="embedded",plant="Redmond43"}' 1
await 30 "$cellular" 1
# Before the device reported it was 0, not absent.
await 5 "min_over_time($cellular[2m])" 0

step "a query on the sweep's rows: the same answer, and no request of its own"
await 30 'twinquery_managed_devices{hub="embedded",plant="Redmond43"}' 1
await 5 'geminid_query_last_pages{query="managed"}' 0

step "100,000 series are scraped"
await 60 'count({__name__=~"twinquery_many_.*"})' 100000
await 5 'up{job="geminid-big"}' 1
echo "a scrape took $(value 'scrape_duration_seconds{job="geminid-big"}') s, as Prometheus sees it"

step "every panel of the dashboard asks what Prometheus understands, and nearly all see something"
python3 - "http://$prometheus" <<'PANELS'
import json, sys, urllib.parse, urllib.request
panels = json.load(open("deploy/grafana/geminid.json"))["panels"]
asked, empty = 0, []
for panel in panels:
    for target in panel.get("targets", []):
        expr = target["expr"].replace("$__rate_interval", "30s").replace("${prefix}", "twinquery_managed_")
        for name in ("job", "instance", "hub", "query"):
            expr = expr.replace("$" + name, ".+")
        url = sys.argv[1] + "/api/v1/query?" + urllib.parse.urlencode({"query": expr})
        answer = json.load(urllib.request.urlopen(url))  # anything but 200 ends the test
        asked += 1
        if not answer["data"]["result"]:
            empty.append(panel["title"])
print(f"{asked} expressions, without a result: {', '.join(empty) or 'none'}")
# A credential that does not end, and failures, are not there to be seen.
sys.exit(len(empty) > 4)
PANELS

step "promtool on what is really exposed"
for address in "$small" "$big"; do
  curl -fsS "http://$address/metrics" >"$work/exposition"
  curl -fsS --compressed "http://$address/metrics" | grep -c . >/dev/null
  promtool check metrics <"$work/exposition"
  awk '!/^#/ && NF {l=$0; sub(/ [^ ]+( [0-9]+)?$/,"",l); if (s[l]++) {print "twice: " l; b=1}} END {exit b}' "$work/exposition"
  awk '/^# (HELP|TYPE)/ {if (s[$2 " " $3]++) {print "twice: " $0; b=1}} END {exit b}' "$work/exposition"
done

step "a query breaks: its alert fires, its series go, the others live on"
await 10 'twinquery_leeds7_line{hub="embedded",plant="Leeds7"}' 7
await 10 'twinquery_leeds7_devices{hub="embedded"}' 1
device second leeds-2 8 # two rows with equal labels now
await 20 'twinquery_leeds7_devices{hub="embedded"}' 2
await 20 'geminid_query_up{query="fragile"}' 0
await 30 'twinquery_leeds7_line' none
await 20 'ALERTS{alertname="GeminidQueryStale",query="fragile",alertstate="firing"}' 1
[ "$(value 'min_over_time(twinquery_leeds7_line[5m])')" = 7 ] || fail "a withdrawn series was zeroed"
[ "$(value 'twinquery_leeds7_devices{hub="embedded"}')" = 2 ] || fail "the other query's series are gone"
[ "$(value 'geminid_query_failures_total{query="fragile",reason="duplicate"} > bool 0')" = 1 ] || fail "no reason is told"
for _ in $(seq 1 40); do
  amtool --alertmanager.url="http://$alertmanager" alert query alertname=GeminidQueryStale 2>/dev/null | grep -q GeminidQueryStale && break
  read -rt 0.25 <> <(:) || true
done
amtool --alertmanager.url="http://$alertmanager" alert query alertname=GeminidQueryStale | grep GeminidQueryStale || fail "no alert arrived"

step "the query is mended"
rm "$work/big/second.yaml"
device second leeds-2 7
sed -i 's/value: {column: line}/value: {column: line, reduce: max}/' "$work/big/queries.yaml"
await 20 'twinquery_leeds7_line{hub="embedded",plant="Leeds7"}' 7

step "the hub goes away: series stay until they are stale, and are never zeroed"
kill "$hub_pid"
await 20 'geminid_query_up{query="steady"}' 0
[ "$(value 'twinquery_leeds7_devices{hub="embedded"}')" = 2 ] || echo "note: already withdrawn"
await 20 'geminid_hub_up{job="geminid-big"}' 0
await 30 'twinquery_leeds7_devices' none
[ "$(value 'last_over_time(twinquery_leeds7_devices{hub="embedded"}[2m])')" = 2 ] || fail "a withdrawn series was zeroed"
await 20 'geminid_query_series{query="steady"}' 0
[ "$(value 'up{job="geminid-big"}')" = 1 ] || fail "the exposition went with the hub"
[ "$(value 'count({__name__=~"twinquery_many_.*"})')" = 100000 ] || fail "a query that is not stale yet lost its series"
[ "$(value "$cellular")" = 1 ] || fail "another hub's series went with it"

step "a web configuration that promtool takes, geminid takes"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
# The password is "secret".
cat >"$work/web.yml" <<'CONFIG'
tls_server_config: {cert_file: cert.pem, key_file: key.pem, min_version: TLS12}
basic_auth_users: {prometheus: $2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW}
CONFIG
promtool check web-config "$work/web.yml"
port=$(free_port)
start guarded "$GEMINID" run --embedded-hub --manifests "$work/small" --listen "127.0.0.1:$port" --web-config "$work/web.yml" \
  --state-dir "$work/guarded-hub" --hub-https 127.0.0.1:0 --hub-mqtts 127.0.0.1:0 --hub-ephemeral
status() { curl -s -o /dev/null -w '%{http_code}' --cacert "$work/cert.pem" "$@"; }
for _ in $(seq 1 80); do
  [ "$(status "https://localhost:$port/livez")" = 200 ] && break
  read -rt 0.25 <> <(:) || true
done
[ "$(status "https://localhost:$port/livez")" = 200 ] || fail "the health path asks for a password"
[ "$(status "https://localhost:$port/metrics")" = 401 ] || fail "/metrics is open"
[ "$(status -u prometheus:wrong "https://localhost:$port/metrics")" = 401 ] || fail "a wrong password is taken"
[ "$(status -u prometheus:secret "https://localhost:$port/metrics")" = 200 ] || fail "the right password is refused"

echo "all seen (${SECONDS} s)"
