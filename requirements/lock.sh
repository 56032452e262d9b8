#!/bin/sh
# Pin every dependency with hashes and without addresses. Needs `uv`; run it as `make lock`.
set -eu
cd "$(dirname "$0")/.."
lock() {
    out=$1; shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-annotate --no-header "$@" pyproject.toml --output-file "requirements/$out.txt"
}
lock dev --all-extras
# The programs' own sets take the versions of the full set, so that what is tested is what is shipped.
for extra in agent coordinator cli; do
    lock "$extra" --extra "$extra" --constraint requirements/dev.txt
done
