#!/bin/sh
# Hold the contract to its rules (buf.yaml) and to the last release (released.binpb, a descriptor set that buf
# wrote), from a checkout without history. `check.sh --release` makes today's contract the released one: part of
# every release, and in between only for what no release has had.
set -eu
cd "$(dirname "$0")/.."
version=1.75.0
buf=node_modules/.bin/buf

if [ "$($buf --version 2>/dev/null)" != "$version" ] && ! npm install --prefix . --silent --no-save \
    --no-package-lock --no-audit --no-fund "@bufbuild/buf@$version" >/dev/null 2>&1; then
    echo "The contract was not checked: that needs buf $version, which npm fetches, and npm is not here or failed." >&2
    [ "${USANCE_REQUIRE_ALL:-}" != 1 ]
    exit
fi
if [ "${1:-}" = --release ]; then
    exec $buf build proto --exclude-source-info --output proto/released.binpb
fi
$buf lint proto
$buf breaking proto --against proto/released.binpb
