#!/bin/bash
# hostile.sh: what a guest does to itself: the machine ends as it should, is saved when it is asked, and SIGTERM always ends it (within
# a second; three allowed here).
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guests=$(dirname "$umbra")/tests/guest
where=$(mktemp -d -p build); trap 'rm -rf "$where"' EXIT
failed=0
ends() { # NAME CPUS
	rm -f "$where/hostile.log" # what the one before said
	"$umbra" run --name "hostile-$$" --kernel "$guests/guest-$1" --cpus "$2" --memory 256M </dev/null > >(stdbuf -o0 head -c 100000000 >"$where/hostile.log") 2>&1 &
	local pid=$!
	for ((k = 0; k < 6000; k++)); do grep -qsa READY "$where/hostile.log" && break; sleep 0.01; done
	timeout -s KILL 60 "$umbra" save "hostile-$$" "$where/saved" || { echo "hostile: $1: could not be saved"; failed=1; }
	rm -f "$where/saved"
	kill -TERM "$pid"
	for ((k = 0; k < 6000; k++)); do kill -0 "$pid" 2>/dev/null || break; sleep 0.01; done
	if kill -0 "$pid" 2>/dev/null; then echo "hostile: $1: still running"; kill -KILL "$pid"; failed=1; fi
	wait
	grep -qa READY "$where/hostile.log" || { echo "hostile: $1: did not run"; failed=1; }
}
ends spin 1
ends spin 4
ends flood 1
ends faults 1
ends faults 3
timeout -s KILL 60 "$umbra" run --kernel "$guests/guest-triple" </dev/null >/dev/null 2>&1
[ $? = 75 ] || { echo "hostile: triple fault: not 75"; failed=1; }
exit $failed
