#!/bin/bash
# features.sh [all]: the kernel boots with the enlightenments that it knows switched on and off: none, each alone missing, each alone
# added to the base, and combinations so that every pair of two features is seen on-on, on-off, off-on and off-off; with "all",
# every combination of those that change what the kernel does.
set -u
cd "$(dirname "$0")/../.."
known=(time-ref synic stimer vapic ref-tsc idle frequencies tsc-invariant xmm-input crash direct-timers flush ipi ex-masks ext-calls relaxed)
failed=0 runs=0
boot() { # HV
	runs=$((runs + 1))
	tests/boot/boot.sh "features-$runs" 512M "" 0 $((runs % 2 ? 2 : 1)) "$1" || { echo "features: $1"; failed=1; }
}
list() { # BITS: the base and the features whose bits are set
	local n set=none,+base
	for n in "${!known[@]}"; do [ $(($1 >> n & 1)) = 0 ] || set=$set,+${known[n]}; done
	echo "$set"
}
boot none
boot none,+base
boot all
if [ "${1:-}" = all ]; then
	for ((bits = 0; bits < 1 << ${#known[@]}; bits++)); do boot "$(list $bits)"; done
else
	for f in synic stimer ref-tsc frequencies flush ipi; do boot "default,-$f"; done
	# rows of a binary code of the features' numbers and their complements: two different features differ in some row, and agree in some
	for bit in 0 1 2 3 4; do
		bits=0
		for n in "${!known[@]}"; do [ $((n + 1 >> bit & 1)) = 0 ] || bits=$((bits | 1 << n)); done
		boot "$(list $bits)"
		boot "$(list $(((1 << ${#known[@]}) - 1 ^ bits)))"
	done
fi
echo "features: $runs combinations"
exit $failed
