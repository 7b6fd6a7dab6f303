#!/bin/sh
# What one processor has looked up the others need not, if they share the spaces (common.c); counted, not timed. And the torture, with and without.
set -eu
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guest=$(dirname "$umbra")/tests/guest/guest-common
tests/guest/run common 4
tests/guest/run common 4 --debug-mmu sharing
tests/guest/run common 3 --debug-mmu open=8
# fills and filled-ahead of the second processor, after 2048 pages that the first has touched
second() {
	said=$(timeout -s KILL 60 "$umbra" run --kernel "$guest" --append 0 --cpus 2 --memory 256M --debug-exit 0xf4 --statistics "$@" </dev/null 2>&1) || true
	fills=$(echo "$said" | sed -n 's/^engine: .* fills \([0-9]*\),.*/\1/p' | sed -n 2p)
	ahead=$(echo "$said" | sed -n 's/.* filled-ahead \([0-9]*\),.*/\1/p' | sed -n 2p)
	echo $((${fills:-99999} + ${ahead:-99999}))
}
shared=$(second) own=$(second --debug-mmu sharing)
[ "$shared" -lt 500 ] && [ "$own" -gt 2000 ] || { echo "entries that the second processor needed: $shared shared, $own of its own"; exit 1; }
