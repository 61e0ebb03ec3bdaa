#!/bin/sh
# Make .cache/venv from requirements-dev.lock, with the project in it: tools/setup.sh [PYTHON]
#
# It always starts afresh, so that what an interrupted run or an older lock left behind is gone.
# pip's own settings on this machine (mirror, proxy, certificates) stay in force.
set -eu

python=${1:-python3}
venv=.cache/venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0

say() { printf 'setup: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "no $python here: install Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: TinyMetaFed needs 3.11 or newer, as in make PYTHON=python3.12"

say "making $venv with $("$python" --version)"
rm -rf "$venv"
if "$python" -c 'import ensurepip' 2>/dev/null; then
    "$python" -m venv "$venv"
else
    # Debian keeps ensurepip in a package of its own; pip's wheel can also install itself.
    certificates=/etc/ssl/certs/ca-certificates.crt
    [ -e $certificates ] || fail "$certificates is missing, which Debian's pip needs: apt install ca-certificates"
    wheel=$("$python" -m localfleet.parts pip)
    "$python" -m venv --without-pip "$venv"
    "$venv/bin/python" "$wheel/pip" install -qq --no-index "$wheel"
fi

say "installing $(grep -c '^[a-z].*==' requirements-dev.lock) packages from requirements-dev.lock"
"$venv/bin/python" -m pip install -qq --no-compile --require-hashes \
    --only-binary :all: --requirement requirements-dev.lock ||
    fail "pip could not install requirements-dev.lock (above): is the package index within reach?"
# In compat mode the project's folder itself is importable, and so is a package added tomorrow.
"$venv/bin/python" -m pip install -qq --no-deps --no-build-isolation \
    --config-settings editable_mode=compat --editable . ||
    fail "pip could not install the project itself (above)"
