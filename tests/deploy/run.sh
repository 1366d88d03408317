#!/usr/bin/env bash
# Renders every overlay of deploy/kubernetes with kubectl and judges what came out: by the schemas of Kubernetes, and by
# the rules in rules.py; then judges deploy/compose.yaml. Prints "N passed, N failed" for each. Last the workflows of GitHub,
# by their schema and by zizmor: each action pinned to a commit, no right that is not needed, no text of others in a script.
# What it needs is put beneath target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$PWD/target/deploy-check
mkdir -p "$tools"

# kubectl as it is installed, else Debian's of the next release: this one's is too old for `kubectl kustomize` on folders.
kubectl=$(command -v kubectl || true)
if [ -z "$kubectl" ] || ! "$kubectl" kustomize deploy/kubernetes/base >/dev/null 2>&1; then
  kubectl=$tools/root/usr/bin/kubectl
fi
if [ ! -x "$kubectl" ]; then
  apt=$tools/apt
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/none"
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' | awk '$2 == "Debian" && !/security/ { print $1; exit }')
  [ -n "$mirror" ] || mirror=$(grep -hoE 'https?://[^ ]*/debian/?( |$)' -r /etc/apt/sources.list /etc/apt/sources.list.d | head -n 1)
  printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "$mirror" >"$apt/trixie.sources"
  options=(-qq -o Dir::Etc::sourcelist="$apt/trixie.sources" -o Dir::Etc::sourceparts="$apt/none"
    -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" download kubectl)
  dpkg -x "$apt"/kubectl_*.deb "$tools/root"
fi

python=$(bash tests/deploy/python.sh)

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for folder in deploy/kubernetes/base deploy/kubernetes/overlays/*/; do
  "$kubectl" kustomize "$folder" >"$rendered/$(basename "$folder").yaml"
done
"$python" tests/deploy/rules.py "$rendered"/*.yaml
"$python" tests/deploy/compose.py deploy/compose.yaml "$(dirname "$(dirname "$python")")"/docker_compose-*.whl docs/cli.md
"$(dirname "$python")/check-jsonschema" --builtin-schema vendor.github-workflows .github/workflows/*.yml
"$(dirname "$python")/zizmor" --offline --no-progress --quiet .github/workflows
