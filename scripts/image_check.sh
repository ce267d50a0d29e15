#!/usr/bin/env bash
# Runs the Dockerfile's steps in a temporary directory, without a container engine, and tries the result.
#
# Each stage gets only the files that its COPY lines name, as in a real build; the steps are those of
# image.sh. What needs root or an engine (the base image, the user) is not covered. The server that is
# tried listens on free loopback ports and is stopped by its pid.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
server=""
finish() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "image-check: $*" >&2
    exit 1
}

# copies STAGE DIR: what the COPY lines of the n-th FROM take from the source tree.
copies() {
    local stage=$1 into=$2 word
    local -a words sources
    while read -r -a words; do
        sources=("${words[@]:1:${#words[@]}-2}")
        local target="$into/${words[-1]}"
        mkdir -p "$target"
        for word in "${sources[@]}"; do
            grep -qxF "!${word%%/*}" .dockerignore || fail ".dockerignore keeps $word out of the build"
            # COPY puts the contents of a directory, not the directory, into its target.
            if [ -d "$word" ]; then cp -R "$word/." "$target"; else cp "$word" "$target"; fi
        done
    done < <(awk -v stage="$stage" '/^FROM /{n++} n==stage && /^COPY / && !/--from=/' Dockerfile)
}

runs() {
    grep -qE "^RUN scripts/image.sh $1( |$)" Dockerfile || fail "the Dockerfile does not run: image.sh $1"
}

# The chosen interpreter stands in for the base image's python3.
mkdir "$work/bin" "$work/build" "$work/final"
ln -s "$("${VENV:-.venv}/bin/python" -c 'import sys; print(sys._base_executable)')" "$work/bin/python3"
export PATH="$work/bin:$PATH"

runs "wheel /dist"
copies 1 "$work/build"
(cd "$work/build" && scripts/image.sh wheel "$work/dist")
echo "image-check: built $(basename "$work"/dist/*.whl)"

runs "install /dist /opt/trackd"
copies 2 "$work/final"
(cd "$work/final" && scripts/image.sh install "$work/dist" "$work/opt")
[ ! -e "$work/final/src" ] || fail "the last stage holds the source"

cd "$work"
trackd="$work/opt/bin/trackd"
version=$("$trackd" --version)
expected=$("$work/opt/bin/python" -c 'import importlib.metadata as m; print(m.version("trackd"))')
[[ "$version" == *"$expected"* ]] || fail "trackd --version says '$version', the wheel is $expected"
echo "image-check: installed, $version"

free_port() {
    "$work/opt/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
export TRACKD_DATA="$work/data" TRACKD_GRPC TRACKD_METRICS TRACKD_SERVER
TRACKD_GRPC="127.0.0.1:$(free_port)"
TRACKD_METRICS="127.0.0.1:$(free_port)"
TRACKD_SERVER=$TRACKD_GRPC

# As the image's ENTRYPOINT starts it.
(umask 077 && exec "$trackd" serve >"$work/log" 2>&1) &
server=$!
for ((i = 0; ; i++)); do
    if "$trackd" health >/dev/null 2>&1; then break; fi
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; fail "trackd serve ended"; }
    [ "$i" -lt 60 ] || { cat "$work/log" >&2; fail "trackd health never succeeded"; }
    sleep 0.5
done
others=$(find "$work/data" -perm /077 -print -quit)
[ -z "$others" ] || fail "others may read $others"
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=""
[ "$status" = 0 ] || { cat "$work/log" >&2; fail "SIGTERM ended trackd serve with $status"; }
echo "image-check: served, healthy, data private, stopped in order"
