#!/bin/sh
# Pages whose own tables nobody writes stay cached when the guest flushes (neighbours.c): counted, not timed.
set -eu
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guest=$(dirname "$umbra")/tests/guest/guest-neighbours
tests/guest/run neighbours 1
said=$(timeout -s KILL 60 "$umbra" run --kernel "$guest" --memory 256M --debug-exit 0xf4 --statistics </dev/null 2>&1) || true
fills=$(echo "$said" | sed -n 's/^engine: .* fills \([0-9]*\),.*/\1/p') ahead=$(echo "$said" | sed -n 's/.* filled-ahead \([0-9]*\).*/\1/p')
# a thousand flushes: 64 pages each, if they were found anew
[ "${fills:-99999}" -lt 3000 ] && [ "${ahead:-99999}" -lt 3000 ] || { echo "pages are found anew at each flush: $fills fills, $ahead ahead"; exit 1; }
