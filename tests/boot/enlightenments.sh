# Sourced: sets of the enlightenments that Linux knows, as --hv has them.
known=(time-ref synic stimer vapic ref-tsc idle frequencies tsc-invariant xmm-input crash direct-timers flush ipi ex-masks ext-calls relaxed)

list() { # BITS: the base and the features whose bits are set
	local n set=none,+base
	for n in "${!known[@]}"; do [ $(($1 >> n & 1)) = 0 ] || set=$set,+${known[n]}; done
	echo "$set"
}

# Ten sets in which every pair of two features is seen on-on, on-off, off-on and off-off: rows of a binary code of their numbers and the complements.
# Two different features differ in some row, and agree in some.
pairs() {
	local bit bits n
	for bit in 0 1 2 3 4; do
		bits=0
		for n in "${!known[@]}"; do [ $((n + 1 >> bit & 1)) = 0 ] || bits=$((bits | 1 << n)); done
		list $bits
		list $(((1 << ${#known[@]}) - 1 ^ bits))
	done
}
