#!/bin/sh
# page.py, with axe-core, which is fetched if it is not there.   usage: page.sh UMBRA UMBRAD GUEST AXE PICTURES
set -eu
cd "$(dirname "$0")/../.."
tools/fetch-axe
exec python3 tests/daemon/page.py "$@"
