#!/usr/bin/env bash
# Generates Python modules and their type stubs for every file under proto/ into the given root.
#
# The root mirrors the proto packages (trackd.v1 -> ROOT/trackd/v1), so imports need no rewriting.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:?usage: proto.sh OUTPUT_ROOT}
bin=${VENV:-.venv}/bin
mapfile -t protos < <(find proto -name '*.proto' | LC_ALL=C sort)
[ ${#protos[@]} -gt 0 ] || { echo "no .proto file under proto/" >&2; exit 1; }

"$bin/python" -m grpc_tools.protoc --proto_path=proto \
    --plugin=protoc-gen-mypy="$bin/protoc-gen-mypy" \
    --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" \
    --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
    "${protos[@]}"
echo "proto: ${#protos[@]} files generated into $out"
