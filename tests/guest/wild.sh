#!/bin/bash
# wild.sh [COUNT [FIRST_SEED]]: guests of random 16-, 32- and 64-bit code, one a seed: each machine ends in one of the ways in which a
# machine ends, never by a fault of its own.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
log=$(mktemp -p build wild.XXXXXX) failed=0; trap 'rm -f "$log"' EXIT
for ((n = ${2:-1}; n < ${2:-1} + ${1:-8}; n++)); do
	timeout -s KILL "${WILD_SECONDS:-6}" "$umbra" run --kernel "$(dirname "$umbra")/tests/guest/guest-wild" --append "$n" --debug-exit 0xf4 </dev/null >"$log" 2>&1
	code=$? # any code of --debug-exit, 0 for power-off or reset, 75; 137: the random code hangs, as it may
	case $code in 70|134|135|136|139) failed=1 ;; *) grep -qaE 'Sanitizer|runtime error|Assertion' "$log" || continue; failed=1 ;; esac
	echo "wild: seed $n: ended with $code"; tail -n 4 "$log"
done
exit $failed
