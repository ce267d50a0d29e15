#!/usr/bin/env bash
# Pins every dependency with its hashes: pyproject.toml in, requirements/*.txt out.
#
# Needs `uv` (UV=path names another); users never run it. The lists name no package host, so an
# installation takes what the machine's own pip is set up with. `--upgrade` moves the versions.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-uv}
pin() {
    local out=$1
    shift
    "$uv" pip compile --quiet --universal \
        --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        --output-file "$out" "$@"
}

pin requirements/runtime.txt "$@" pyproject.toml
pin requirements/dev.txt --constraint requirements/runtime.txt --extra dev "$@" pyproject.toml
pin requirements/build.txt --constraint requirements/dev.txt "$@" requirements/build.in
