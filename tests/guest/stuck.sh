#!/bin/sh
# A machine that can never go on says so in one line, and where it stands: a triple fault, and processors halted for good. One that sleeps without
# a timer is said to sleep, by info and when its time is over.
set -eu
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guests=$(dirname "$umbra")/tests/guest
said=$(timeout -s KILL 20 "$umbra" run --kernel "$guests/guest-triple" --console none --debug-exit 0xf4 2>&1 </dev/null) && status=0 || status=$?
[ "$status" = 75 ] || { echo "a triple fault ends with $status, not 75"; exit 1; }
echo "$said" | grep -q '^umbra: the guest crashed: triple fault: processor 0 at RIP 0x[0-9a-f]*, CR2 .*, after exception [0-9]' || { echo "$said"; exit 1; }
nm "$guests/guest-halted" >"$guests/stuck.map"
for cpus in 1 3; do
	name=stuck-$$-$cpus
	: >"$guests/stuck.said" # what the one before said
	"$umbra" run --name $name --kernel "$guests/guest-halted" --cpus $cpus --console none </dev/null >"$guests/stuck.said" 2>&1 &
	for _ in $(seq 600); do
		! grep -q stuck "$guests/stuck.said" || break
		sleep 0.1
	done
	"$umbra" info --symbols "$guests/stuck.map" $name >"$guests/stuck.info" || { echo "a machine that is stuck is gone"; exit 1; }
	grep -q '^processor 0  halted, rip 0x[0-9a-f]* (test_main+0x[0-9a-f]*), last exception' "$guests/stuck.info" && grep -q ' cr3  *0x' "$guests/stuck.info" ||
		{ echo "umbra info does not say where it stands"; cat "$guests/stuck.info"; exit 1; }
	"$umbra" kill $name
	wait
	grep -q '^umbra: the guest is stuck: every processor is halted .* RIP 0x[0-9a-f]*, .* ended with: the last line$' "$guests/stuck.said" ||
		{ cat "$guests/stuck.said"; exit 1; }
	[ "$(grep -c stuck "$guests/stuck.said")" = 1 ] || { echo "it says so more than once"; exit 1; }
done

said=$(timeout -s KILL 40 "$umbra" run --name "asleep-$$" --time-limit 12 --kernel "$guests/guest-asleep" --console none 2>&1 </dev/null) && status=0 || status=$?
echo "$said" | grep -q 'not done after 12 s, asleep without a timer: processor 0 at RIP 0x.*; its console ended with: good night$' || { echo "$status: $said"; exit 1; }
"$umbra" run --name "asleep-$$" --kernel "$guests/guest-asleep" </dev/null >"$guests/stuck.said" 2>&1 &
for _ in $(seq 600); do ! grep -q 'good night' "$guests/stuck.said" || break; sleep 0.1; done
for _ in $(seq 600); do "$umbra" info "asleep-$$" >"$guests/stuck.info" && ! grep -q '^processor 0  asleep, rip' "$guests/stuck.info" || break; sleep 0.1; done
"$umbra" kill "asleep-$$"
wait
grep -q '^processor 0  asleep, rip' "$guests/stuck.info" || { echo "umbra info does not say that it sleeps"; cat "$guests/stuck.info"; exit 1; }
