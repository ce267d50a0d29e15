#!/usr/bin/env bash
# What tests need beside Python: a C compiler for the shims that break a disk, mkfs.ext4 for the file
# systems that lose power, promtool for the alerting rules. Installs what is missing, where it may.
set -euo pipefail

missing=()
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v mkfs.ext4 >/dev/null || [ -x /sbin/mkfs.ext4 ] || missing+=(e2fsprogs)
promtool=${VENV:-.venv}/bin/promtool
command -v promtool >/dev/null || [ -x "$promtool" ] || missing_promtool=1
[ ${#missing[@]} -gt 0 ] || [ -n "${missing_promtool:-}" ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "Tests need packages that are not installed: sudo apt-get install ${missing[*]}${missing_promtool:+ prometheus}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update -q
if [ ${#missing[@]} -gt 0 ]; then
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi
if [ -n "${missing_promtool:-}" ]; then
    # Taken out of the package that it is in, as installing that would start a Prometheus.
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    chmod 755 "$unpacked"
    (cd "$unpacked" && apt-get download -q prometheus)
    dpkg-deb --extract "$unpacked"/prometheus_*.deb "$unpacked/files"
    install -m 755 "$unpacked/files/usr/bin/promtool" "$promtool"
fi
