#!/bin/bash
# pytest-xdist 3.8.0 under pytest 9.2.0: `--dist loadgroup` no longer keeps a group on one worker.
#
# Expected: tests that are marked with one xdist_group run in one worker process, as the documentation
# of `--dist loadgroup` says, so that a costly fixture of a module is made once.
#
# Seen: under pytest 9.1.1 they do. Under 9.2.0, with the same pytest-xdist, the mark is accepted, the
# run is green, and the tests of one group are spread over both workers; nothing is said.
#
# Needs python3 with venv and a package index. Installs nothing outside a temporary folder.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat > test_groups.py << 'TESTS'
import os
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(8))
def test_of_a_group(number):
    with open("workers", "a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
    time.sleep(0.2)  # Long enough that an idle worker is given the next test.
TESTS

# The number of workers on which the one group ran.
workers_with() {
    rm -rf venv workers
    python3 -m venv venv
    venv/bin/pip install -q --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0 execnet==2.1.2
    venv/bin/python -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup > log ||
        { cat log >&2; exit 2; }
    sort -u workers | wc -l
}

before=$(workers_with 9.1.1)
since=$(workers_with 9.2.0)
echo "pytest 9.1.1: one group on $before worker; pytest 9.2.0: on $since workers"
if [ "$before" != 1 ] || [ "$since" != 2 ]; then
    echo "CHANGED: measured was 1 and 2" >&2
    exit 1
fi
echo "as measured: pytest-xdist 3.8.0"
