#!/bin/bash
# Everything that takes messages of a hostile guest, hub, joiner, machine, agent, host or file of the channels between machines: COUNT messages
# for each (1000000), without a sanitizer, with the invariants of lib/check.h: for once and by hand, some minutes each. What crashes, hangs or
# takes memory is kept, and repeated by `fuzz-TARGET @FILE`. usage: shares.sh BUILD [COUNT [SEED [TARGET...]]]
set -u
build=$1 count=${2:-1000000} seed=${3:-1} bad=0
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- share share-disk bus devices hub proxy policy-agent rules far far-stream saved-port
kept=$(mktemp -d)
for target; do
	printf '%s: ' "$target"
	FUZZ_MESSAGES=$count FUZZ_KEEP=$kept/$target "$build/tests/fuzz/fuzz-$target" "$count" "$seed" && rm "$kept/$target" ||
		{ echo "FAILED: $kept/$target"; bad=1; }
done
rmdir "$kept" 2>/dev/null
exit $bad
