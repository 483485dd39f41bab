#!/usr/bin/env bash
# Make .venv hold exactly what infra/requirements.lock says, and the project itself. Uses uv (fast) when it can be had, else pip.
set -euo pipefail
cd "$(dirname "$0")/.."

for python in "${PYTHON:-}" python3.11 python3.12 python3; do
    [ -n "$python" ] && "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo "set-up: no Python 3.11 or 3.12 found (tried \$PYTHON, python3.11, python3.12, python3); name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }

[ -x .venv/bin/python ] || "$python" -m venv .venv || {
    echo "set-up: '$python -m venv .venv' failed; on Debian and Ubuntu install python3-venv" >&2; exit 1; }

uv=$(command -v uv || true)
if [ -z "$uv" ] && .venv/bin/python -m pip install --quiet --require-hashes -r infra/requirements-uv.lock; then
    uv=.venv/bin/uv
fi
if [ -n "$uv" ]; then
    # No --exact sync: the uv that lives in .venv is not in the lock.
    "$uv" pip install --quiet --python .venv/bin/python --no-deps --require-hashes -r infra/requirements.lock
    "$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
else
    # --no-deps: the lock is complete, and pip would ask for the hash of the backport that it leaves out on purpose.
    .venv/bin/python -m pip install --no-deps --require-hashes -r infra/requirements.lock
    .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
fi
