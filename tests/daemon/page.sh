#!/bin/sh
# page.py, with axe-core, which is fetched if it is not there.   usage: page.sh UMBRA UMBRAD GUEST AXE PICTURES
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
"$root/tools/fetch-axe"
exec python3 "$root/tests/daemon/page.py" "$@"
