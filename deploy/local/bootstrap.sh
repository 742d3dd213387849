#!/bin/sh
# Makes .venv with exactly the locked packages, each checked by its hash. With --test also those that tests need.
# A second run sees that nothing changed and ends at once.
set -eu
cd "$(dirname "$0")/../.."

say() { printf '→ %s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

# .venv/installed.lock is a copy of the lock that was installed; the test lock holds all of the other.
installed=.venv/installed.lock
lock=requirements.lock
if [ "${1:-}" = --test ] || [ -e .venv/with-tests ]; then lock=requirements-test.lock; fi
if cmp -s "$lock" "$installed" && .venv/bin/python -c '' 2>/dev/null; then exit 0; fi

# Debian's own first: it is compiled with what profiling said, and a fifth faster than one that pyenv compiled.
find_python() {
    for needed in venv,ensurepip sys; do
        for candidate in /usr/bin/python3.11 python3.11 python3 /usr/local/bin/python3.11 \
            "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11*/bin/python3.11; do
            if "$candidate" -c "import sys,$needed; sys.exit(sys.version_info[:2] != (3, 11))" 2>/dev/null; then
                command -v "$candidate"
                return
            fi
        done
    done
    fail "Python 3.11 is needed. On Debian 12, type: sudo apt-get install python3.11 python3.11-venv"
}

make_environment() {
    python=$(find_python)
    say "Making .venv with $python"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            fail "Python's venv module is missing. Type: sudo apt-get install python3.11-venv"
        fi
        say "Installing python3.11-venv"
        apt-get -qq update
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends python3.11-venv >/dev/null
    fi
    "$python" -m venv --clear .venv
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then make_environment; fi
rm -f "$installed"
say "Installing the locked packages of $lock"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    --requirement requirements-installer.lock
.venv/bin/uv pip sync --quiet --require-hashes --python .venv/bin/python "$lock"
if [ "$lock" = requirements-test.lock ]; then touch .venv/with-tests; fi
cp "$lock" "$installed"
say "Packages installed"
