#!/usr/bin/env bash
# Builds the Dockerfile with Debian's buildah, which needs no daemon, and judges the image: its configuration, what is in
# it, and how its binary behaves as the user of the image on a root file system that cannot be written to.
# Prints "N passed, N failed". Needs root, and Debian's mirror and crates.io in reach; what it needs is put beneath target/.
#   run.sh             builds and judges the image
#   run.sh --twice     builds it a second time, from other sources beside the same binary's: dependencies are not built
#                      again, and the binary is the same, byte by byte
# The base of the build stage stands in for the official Rust image, which lies in a registry of containers: the same
# Debian by debootstrap, with this machine's toolchain. The image for linux/arm64 is not built here.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
tools=$root/target/image-check
suite=bookworm
uid=65532
size_max=$((40 * 1024 * 1024))
authorities_min=100
tag=localhost/geminid:check
mkdir -p "$tools"

missing=()
for command in buildah debootstrap curl; do command -v "$command" >/dev/null || missing+=("$command"); done
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
fi

work=$(mktemp -d)
pids=() container=
image() { TMPDIR=$tools buildah --root "$tools/storage" --runroot "$tools/run" --storage-driver vfs "$@"; }
cleanup() {
  for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  if [ -n "$container" ]; then image rm "$container" >/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

passed=0 failed=0
check() { # what, command
  if "${@:2}" >"$work/check" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED $1"
    tail -n 20 "$work/check" | sed 's/^/  /'
  fi
}
equal() { [ "$1" = "$2" ] || { printf 'is:       %s\nexpected: %s\n' "$1" "$2"; return 1; }; }
step() { printf -- '-- %s (%s s)\n' "$*" "$SECONDS"; }

step "a base for the build stage: $suite with a C compiler"
base=localhost/geminid-build-base:$suite
if ! image inspect --type image "$base" >/dev/null 2>&1; then
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' | awk '$2 == "Debian" && !/security/ { print $1; exit }')
  rm -rf "$tools/base"
  debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "$suite" "$tools/base" "$mirror" >"$tools/base.log" 2>&1 ||
    { tail -n 20 "$tools/base.log" >&2; exit 1; }
  empty=$(image from scratch)
  image add --quiet "$empty" "$tools/base" / >/dev/null
  # Where the official image keeps cargo's things, and where toolchain and authorities of this machine are mounted.
  image config --env CARGO_HOME=/usr/local/cargo --env CARGO_HTTP_CAINFO=/mnt/authorities.crt \
    --env PATH=/mnt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$empty"
  image commit --quiet --rm "$empty" "$base" >/dev/null
  rm -rf "$tools/base"
fi

build() { # folder of the sources, tag
  image build --isolation chroot --layers --timestamp 0 --network host \
    --build-arg RUST_IMAGE="$base" --build-arg GEMINID_REVISION=image-check \
    --volume "$(rustc --print sysroot):/mnt/rust:ro" --volume /etc/ssl/certs/ca-certificates.crt:/mnt/authorities.crt:ro \
    --tag "$2" --file "$1/Dockerfile" "$1" >"$tools/build.log" 2>&1 || { tail -n 40 "$tools/build.log" >&2; exit 1; }
}
# The file system of an image.
tree_of() {
  [ -z "$container" ] || image rm "$container" >/dev/null
  container=$(image from "$1")
  tree=$(image mount "$container")
}

step "the Dockerfile"
build "$root" "$tag"
tree_of "$tag"

step "its configuration"
of_config() { image inspect --type image --format "{{ $1 }}" "$tag"; }
check "the user is not root" equal "$(of_config .OCIv1.Config.User)" "$uid:$uid"
check "the entry point is the binary, without a shell" equal "$(of_config '.OCIv1.Config.Entrypoint')" "[/usr/local/bin/geminid]"
check "the command is the daemon, and never the embedded hub" equal "$(of_config .OCIv1.Config.Cmd)" \
  "[run --settings /etc/geminid/settings.toml]"
check "the port is told" equal "$(of_config .OCIv1.Config.ExposedPorts)" "map[9797/tcp:{}]"
check "no variable is set but the path" equal "$(of_config .OCIv1.Config.Env)" \
  "[PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin]"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
for label in title=geminid "version=$version" revision=image-check licenses=Apache-2.0 \
  "description=$(sed -n 's/.*image.description="\([^"]*\)".*/\1/p' Dockerfile)"; do
  check "label ${label%%=*}" equal "$(of_config "index .OCIv1.Config.Labels \"org.opencontainers.image.${label%%=*}\"")" "${label#*=}"
done

step "what is in it"
size=$(du -sb "$tree" | cut -f1)
echo "$size bytes, of them $(stat -c %s "$tree/usr/local/bin/geminid") in the binary"
check "it is smaller than $size_max bytes" [ "$size" -lt "$size_max" ]
check "no program is in it but geminid" equal "$(cd "$tree" && find . -type f -perm /111 ! -name '*.so*' | sort)" ./usr/local/bin/geminid
check "nothing raises rights" equal "$(find "$tree" -perm /6000)" ""
check "one folder is its user's own, for a volume, and the rest is root's" equal "$(cd "$tree" && find . ! -user 0)" ./var/lib/geminid
check "nothing but /tmp is open to everybody" equal "$(cd "$tree" && find . ! -type l -perm -o+w)" ./tmp
check "it knows authorities" [ "$(grep -c 'BEGIN CERTIFICATE' "$tree/etc/ssl/certs/ca-certificates.crt")" -ge "$authorities_min" ]
check "it tells a scanner its packages" equal "$(ls "$tree/var/lib/dpkg/status.d" | tr '\n' ' ')" "ca-certificates libc6 libgcc-s1 "
check "the licence is in it" cmp LICENSE "$tree/usr/share/doc/geminid/LICENSE"
check "no path of the builder is in the binary" equal "$(grep -acE '/usr/local/cargo/registry|/src/src/' "$tree/usr/local/bin/geminid")" 0

# Where a runtime mounts what no image brings: devices, processes, the names of hosts.
mkdir -p "$tree/dev" "$tree/proc"
touch "$tree/etc/hosts" "$tree/etc/resolv.conf"
# Runs a command of the image in its root, read-only, as its user and without any right that a user has not.
#   inside NAME OUTSIDE:INSIDE[:ro]... -- arguments
inside() {
  unshare --mount --propagation private bash -euc '
    tree=$1 uid=$2
    shift 2
    mount --bind "$tree" "$tree"
    while [ "$1" != -- ]; do
      IFS=: read -r outside place mode <<<"$1"
      mount --bind "$outside" "$tree$place"
      [ -z "$mode" ] || mount -o remount,bind,ro "$tree$place"
      shift
    done
    shift
    mount -t tmpfs -o mode=0755 devices "$tree/dev"
    for device in null zero random urandom; do
      touch "$tree/dev/$device"
      mount --bind "/dev/$device" "$tree/dev/$device"
    done
    for path in /proc /etc/hosts /etc/resolv.conf; do mount --bind "$path" "$tree$path"; done
    mount -o remount,bind,ro "$tree"
    cd /
    exec env -i "$(command -v setpriv)" --no-new-privs --bounding-set=-all,+setuid,+setgid,+sys_chroot \
      "$(command -v chroot)" --userspec="$uid:$uid" --groups= "$tree" /usr/local/bin/geminid "$@"' \
    inside "$tree" "$uid" "${@:2}" >"$work/$1.log" 2>&1 &
  last=$!
  pids+=("$last")
}
# Waits until a command succeeds, for as long as the process lives and at most for 60 s.
await() { # pid, log, command
  for _ in $(seq 1 240); do
    "${@:3}" >/dev/null 2>&1 && return 0
    kill -0 "$1" 2>/dev/null || break
    read -rt 0.25 <> <(:) || true
  done
  echo "not seen: ${*:3}"
  cat "$work/$2.log"
  return 1
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

step "a hub of the same image"
mkdir -m 0700 "$work/state"
chown "$uid:$uid" "$work/state"
chmod 0711 "$work"
inside hub "$work/state:/tmp" -- hub --state-dir /tmp/hub --hub-https 127.0.0.1:0 --hub-mqtts 127.0.0.1:0 --hub-ephemeral
hub=$last
check "the hub serves" await "$hub" hub test -s "$work/state/hub/hub.json"

step "the daemon, as the image starts it"
mkdir "$work/settings" "$work/secrets" "$work/manifests"
port=$(free_port)
python3 - "$work" "$port" <<'SETTINGS'
import json, pathlib, sys
work, port = pathlib.Path(sys.argv[1]), sys.argv[2]
hub = json.loads((work / "state/hub/hub.json").read_text())
(work / "secrets/prod").write_text(hub["ownerConnectionString"] + "\n")
(work / "settings/settings.toml").write_text(f'''owner = "fleet-prod"
listen = "127.0.0.1:{port}"
log_format = "json"
[hubs.prod]
manifests = "/manifests"
connection_string_file = "/run/secrets/geminid/prod"
tier = "none"
''')
SETTINGS
sed 's/interval: 30s/interval: 5s/; s/timeout: 10s/timeout: 4s/' manifests/redmond43/queries.yaml >"$work/manifests/queries.yaml"
cp manifests/redmond43/my-device.yaml "$work/manifests/"
# No `ca_file`: the hub's authority stands among those of the image, where the binary has to look by itself.
cat "$tree/etc/ssl/certs/ca-certificates.crt" "$work/state/hub/ca.pem" >"$work/authorities.crt"
chown -R "$uid:$uid" "$work/secrets"
chmod 0400 "$work/secrets/prod"
chmod 0644 "$work/authorities.crt"
mounts=("$work/settings:/etc/geminid:ro" "$work/secrets:/run/secrets/geminid:ro" "$work/manifests:/manifests:ro")
inside stranger "${mounts[@]}" -- plan --settings /etc/geminid/settings.toml
code=0
wait "$last" || code=$?
check "without the hub's authority nothing is said to it" equal "$code $(grep -c 'certificate not trusted' "$work/stranger.log")" "2 1"
read -r -a command <<<"$(of_config .OCIv1.Config.Cmd | tr -d '[]')"
inside daemon "${mounts[@]}" "$work/authorities.crt:/etc/ssl/certs/ca-certificates.crt:ro" -- "${command[@]}"
daemon=$last
metrics=http://127.0.0.1:$port/metrics
has() { curl -fsS "$metrics" | grep -qxF "$1"; }
check "/readyz" await "$daemon" daemon curl -fsS "http://127.0.0.1:$port/readyz"
check "/livez" curl -fsS "http://127.0.0.1:$port/livez"
check "/metrics: the hub is up" await "$daemon" daemon has 'geminid_hub_up{hub="prod"} 1'
check "/metrics: a twin was patched, and a query sees it" await "$daemon" daemon has 'twinquery_plant_devices{hub="prod",plant="Redmond43"} 1'
check "/metrics: the revision of the build" grep -q 'geminid_build_info{.*revision="image-check"' <(curl -fsS "$metrics")
status() { sed -n "s/^$1:\t*//p" "/proc/$daemon/status" | tr -s '\t ' ' '; }
check "it runs as the user of the image" equal "$(status Uid) $(status Gid)" "$uid $uid $uid $uid $uid $uid $uid $uid"
check "it has no capability" equal "$(status CapEff) $(status NoNewPrivs)" "0000000000000000 1"
check "its root is read-only" grep -qE '^[0-9]+ [0-9]+ [0-9:]+ [^ ]+ / ro' "/proc/$daemon/mountinfo"
kill -TERM "$daemon"
code=0
wait "$daemon" || code=$?
check "SIGTERM ends it with 0" equal "$code" 0
check "it met no error" equal "$(grep -c '"level":"ERROR"' "$work/daemon.log" || true)" 0
kill -TERM "$hub"
code=0
wait "$hub" || code=$?
check "the hub ends with 0" equal "$code" 0

if [ "${1:-}" = --twice ]; then
  step "a second time, from other sources"
  first=$(sha256sum <"$tree/usr/local/bin/geminid")
  mkdir "$work/again"
  git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - | tar --extract --directory "$work/again"
  echo "One line more." >>"$work/again/README.md"
  build "$work/again" "$tag-again"
  check "dependencies are taken from before" [ "$(grep -c 'Compiling' "$tools/build.log")" = 1 ]
  tree_of "$tag-again"
  check "the binary is the same" equal "$(sha256sum <"$tree/usr/local/bin/geminid")" "$first"
fi

echo "$passed passed, $failed failed (${SECONDS} s)"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
