#!/bin/sh
# A processor that spins with interrupts disabled is told, once, and not before; --time-limit ends a guest that is not done, and says where it was.
set -eu
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guests=$(dirname "$umbra")/tests/guest
said=$guests/stuck-spin.said
"$umbra" run --kernel "$guests/guest-looping" --console none </dev/null >"$said" 2>&1 &
spins=$!
for _ in $(seq 600); do grep -q 'is stuck' "$said" && break; sleep 0.1; done
sleep 2 # in which it would be told again
kill -TERM $spins
wait $spins || true
[ "$(grep -c '^umbra: the guest is stuck: a processor spins with interrupts disabled: processor 0 at RIP 0x[0-9a-f]*, CR2 .* ended with: the last line$' "$said")" = 1 ] ||
	{ echo "it does not say once that it spins"; cat "$said"; exit 1; }
timeout -s KILL 60 "$umbra" run --kernel "$guests/guest-looping" --console none --time-limit 8 </dev/null >"$said" 2>&1 && status=0 || status=$?
[ "$status" = 124 ] || { echo "a guest that is not done ends with $status, not 124"; cat "$said"; exit 1; }
! grep -q 'is stuck' "$said" || { echo "it says that it spins before it is known"; cat "$said"; exit 1; }
tail -n 1 "$said" | grep -q '^umbra: the guest was not done after 8 s: processor 0 at RIP 0x[0-9a-f]*, .* ended with: the last line$' || { cat "$said"; exit 1; }
timeout -s KILL 60 "$umbra" run --kernel "$guests/guest-halted" --cpus 2 --console none --time-limit 2 </dev/null >"$said" 2>&1 && status=0 || status=$?
[ "$status" = 124 ] || { echo "a halted guest ends with $status, not 124"; cat "$said"; exit 1; }
