#!/usr/bin/env bash
# Writes kubernetes/servicemonitor.yaml and kubernetes/prometheusrule.yaml from prometheus.yml and geminid.rules.yml.
# With --check it writes nothing and fails when one of them is not current.
set -euo pipefail
cd "$(dirname "$0")"

# The value of a key of the scrape configuration.
of_scrape() { sed -n "s/^ *$1: *\([^ #]*\).*/\1/p" prometheus.yml | tail -n 1; }

rule() {
  echo "# Written by kubernetes.sh from geminid.rules.yml; edit that."
  cat <<'HEAD'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: geminid
  labels: {app.kubernetes.io/name: geminid}
spec:
HEAD
  sed -e '/^#/d' -e 's/^\(.\)/  \1/' geminid.rules.yml
}

monitor() {
  echo "# Written by kubernetes.sh from prometheus.yml; edit that. The Secret and the ConfigMap are yours to make."
  cat <<MONITOR
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: geminid
  labels: {app.kubernetes.io/name: geminid}
spec:
  jobLabel: app.kubernetes.io/name
  selector:
    matchLabels: {app.kubernetes.io/name: geminid}
  sampleLimit: $(of_scrape sample_limit)
  endpoints:
    - port: metrics
      path: $(of_scrape metrics_path)
      interval: $(of_scrape scrape_interval)
      scrapeTimeout: $(of_scrape scrape_timeout)
      honorLabels: $(of_scrape honor_labels)
      scheme: https
      tlsConfig:
        ca:
          configMap: {name: geminid-ca, key: ca.pem}
        serverName: geminid
      authorization:
        credentials: {name: geminid-metrics-token, key: token}
MONITOR
}

if [ "${1:-}" = --check ]; then
  diff -u kubernetes/prometheusrule.yaml <(rule)
  diff -u kubernetes/servicemonitor.yaml <(monitor)
else
  rule >kubernetes/prometheusrule.yaml
  monitor >kubernetes/servicemonitor.yaml
fi
