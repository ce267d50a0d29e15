#!/usr/bin/env bash
# Prepares .venv: every pinned dependency, checked by hash, then trackd itself, editable.
#
# Called by `make setup`, which decides when. Safe to call twice, and by two makes at once (a lock).
# PYTHON=/path/to/python3.x chooses the interpreter; VENV=dir another place than .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
new_enough='import sys; raise SystemExit(sys.version_info < (3, 11))'

choose_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3 python3.13 python3.12; do
        # An interpreter is tried, not only looked for: a version switcher's shim may lead nowhere.
        if [ -n "$candidate" ] && "$candidate" -c "$new_enough" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "trackd needs Python 3.11 or newer, and there is none on PATH." >&2
    echo "On Debian 12: apt-get install python3 python3-venv. Elsewhere: make setup PYTHON=/path/to/python3.11" >&2
    return 1
}

create_venv() {
    local python=$1 version
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "Python $version is here without its venv module, which Debian keeps in a package of its own." >&2
        echo "Install it, then run the same command again: apt-get install python$version-venv" >&2
        return 1
    fi
    "$python" -m venv "$venv"
}

if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock 9
fi

if ! "$venv/bin/python" -c "$new_enough" 2>/dev/null; then
    python=$(choose_python)
    echo "setup: $venv with $("$python" --version)"
    create_venv "$python"
fi

pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
digest=$(sha256sum requirements/dev.txt)
if [ "$(cat "$venv/requirements.sha256" 2>/dev/null)" != "$digest" ]; then
    echo "setup: installing the pinned dependencies (a minute or two the first time)"
    "${pip[@]}" install --require-hashes --requirement requirements/dev.txt
    echo "$digest" >"$venv/requirements.sha256"
fi
"${pip[@]}" install --no-deps --no-build-isolation --editable .
if ! "$venv/bin/python" -c 'from trackd import compiled; raise SystemExit(not compiled.is_compiled())'; then
    echo "setup: without a C compiler trackd works at less than half of its speed. To compile its hot loops," >&2
    echo "setup: on Debian: apt-get install gcc python3-dev, then: touch pyproject.toml && make setup" >&2
fi
echo "setup: ready, $venv/bin/trackd is the command"
