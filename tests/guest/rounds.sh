#!/bin/sh
# What was found once in sixteen address spaces is not found again at each switch, and the second processor finds little anew (rounds.c): counted, not timed.
set -eu
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guest=$(dirname "$umbra")/tests/guest/guest-rounds
tests/guest/run rounds 1 --append 5
tests/guest/run rounds 2 --append 5
# counted PROCESSOR ROUNDS OPTION...: its fills, which are faults that the guest does not see; of so many processors
counted() {
	processor=$1 rounds=$2
	shift 2
	said=$(timeout -s KILL 60 "$umbra" run --kernel "$guest" --append "$rounds" --cpus "$processor" --memory 256M --debug-exit 0xf4 --statistics "$@" </dev/null 2>&1) || true
	fills=$(echo "$said" | sed -n 's/^engine: .* fills \([0-9]*\),.*/\1/p' | sed -n "${processor}p")
	echo "${fills:-9999999}"
}
# a round is 16 spaces of 128 pages: 40 more are 81,920 looks, of which a twentieth may be in vain. The guest's own pages are not global: two a switch
once=$(counted 1 10) again=$(counted 1 50) without=$(counted 1 50 --debug-mmu spaces)
# A table is watched again once the other processor, which waits, was at the top of the dispatcher; where the host has it wait for its turn all the while, tables count as changed, rightly
for try in 1 2 3 4 5 6 7 8 9 10 11 12; do
	second=$(counted 2 50)
	[ "$second" -ge 4096 ] || break
done
[ $((again - once)) -lt 4096 ] || { echo "found again after switches: $((again - once)) of 81920"; exit 1; }
[ "$second" -lt 4096 ] || { echo "found anew by the second processor: $second of 102400"; exit 1; }
[ "$without" -gt 8192 ] || { echo "only $without without spaces: nothing is measured here"; exit 1; }
echo "found again: $((again - once)) of 81920; by the second processor: $second of 102400; without spaces: $without of 102400"
