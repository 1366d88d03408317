#!/usr/bin/env bash
# Prints the path of a Python that has what the checks of deploy/ and of the workflows need; makes it beneath target/ at the first call.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=$PWD/target/deploy-check/venv-2
if [ ! -x "$venv/bin/ready" ]; then
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 PyYAML jsonschema \
    zizmor==1.32.0 check-jsonschema==0.39.0 >&2
  # The Compose Specification's schema, as the reference implementation in Python ships it.
  "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$venv" docker-compose==1.29.2 >&2
  install -m 0755 /dev/null "$venv/bin/ready"
fi
echo "$venv/bin/python"
