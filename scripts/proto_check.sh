#!/usr/bin/env bash
# Fails when the committed generated code is not, file for file, what proto/ generates.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
scripts/proto.sh "$fresh" >/dev/null

generated() {
    (cd "$1" && find trackd -name '*_pb2.py' -o -name '*_pb2.pyi' -o -name '*_pb2_grpc.py' -o -name '*_pb2_grpc.pyi' | LC_ALL=C sort)
}

stale=0
while read -r file; do
    diff -u "src/$file" "$fresh/$file" || stale=1
done < <({ generated src; generated "$fresh"; } | LC_ALL=C sort -u)
if [ "$stale" = 1 ]; then
    echo "proto-check: the generated code is not what proto/ says; run: make proto" >&2
    exit 1
fi
echo "proto-check: the generated code is what proto/ says"
