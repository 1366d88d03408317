#!/usr/bin/env bash
# Lays out the root file system of the image: a binary, the libraries it is linked with, CA certificates, one user. Runs in
# the build stage, on the Debian whose files it takes; says of each package which version that was, for scanners. What is
# to belong to that user lies in a folder of its own.
#   root.sh BINARY FOLDER FOLDER_OF_THE_USER
set -euo pipefail
binary=$1 root=$2 own=$3

install -D -m 0755 "$binary" "$root/usr/local/bin/geminid"
install -D -m 0644 LICENSE "$root/usr/share/doc/geminid/LICENSE"

packages=(ca-certificates)
ldd "$binary" | grep -oE '/[^ ]+' | sort -u | while read -r library; do
  # Where it is looked for stays its name, though Debian keeps it elsewhere.
  install -D -m 0755 "$(readlink -f "$library")" "$root$library"
done
for library in $(ldd "$binary" | grep -oE '/[^ ]+'); do
  # One of the two names is unknown to dpkg, which it says with its exit code, too.
  package=$(dpkg-query --search "$library" "$(readlink -f "$library")" 2>/dev/null | head -n 1 | cut -d: -f1) || true
  [ -n "$package" ] || { echo "no package has $library" >&2; exit 1; }
  packages+=("$package")
done
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

for package in $(printf '%s\n' "${packages[@]}" | sort -u); do
  mkdir -p "$root/var/lib/dpkg/status.d" "$root/usr/share/doc/$package"
  dpkg-query --status "$package" >"$root/var/lib/dpkg/status.d/$package"
  cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done
install -D -m 0644 /etc/os-release "$root/etc/os-release"
echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >"$root/etc/passwd"
echo 'nonroot:x:65532:' >"$root/etc/group"
# Folders that a runtime mounts settings, manifests and secrets into, the root being read-only.
mkdir -p "$root/etc/geminid" "$root/manifests" "$root/run/secrets/geminid" "$root/tmp"
mkdir -p "$own/geminid"
chmod 1777 "$root/tmp"
