#!/usr/bin/env bash
# The steps of the container image, one for each RUN of the Dockerfile; image_check.sh runs them too.
#
#   image.sh wheel OUT        builds the wheel from the current directory into OUT
#   image.sh install IN DIR   makes a virtualenv at DIR: pinned dependencies by hash, then the wheel of IN
#
# Both read requirements/*.txt from the current directory and leave no cache behind.
set -euo pipefail

pip_of() {
    "$1/bin/python" -m pip --disable-pip-version-check --no-cache-dir --quiet "${@:2}"
}

wheel() {
    local out=$1 tools
    tools=$(mktemp -d)
    python3 -m venv "$tools"
    pip_of "$tools" install --require-hashes --requirement requirements/build.txt
    pip_of "$tools" wheel --no-deps --no-build-isolation --wheel-dir "$out" .
    rm -rf "$tools"
}

install_wheel() {
    local from=$1 target=$2
    python3 -m venv "$target"
    pip_of "$target" install --require-hashes --requirement requirements/runtime.txt
    pip_of "$target" install --no-deps "$from"/trackd-*.whl
    "$target/bin/python" -m compileall -q "$target/lib" >/dev/null || true
}

case "${1:-}" in
    wheel) wheel "${2:?OUT}" ;;
    install) install_wheel "${2:?IN}" "${3:?DIR}" ;;
    *)
        echo "usage: image.sh wheel OUT | image.sh install IN DIR" >&2
        exit 2
        ;;
esac
