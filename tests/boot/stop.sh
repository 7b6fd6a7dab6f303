#!/bin/bash
# SIGTERM ends a machine, in a minute on the busiest host: while it boots, spins in user space with nothing else to do, and while it halts.
set -u
cd "$(dirname "$0")/../.."
failed=0
umbra=${UMBRA:-build/umbra}
tools/fetch-guest tests/boot/spin.init build/guest/spin.cpio.gz
said=$(mktemp); trap 'rm -f "$said"' EXIT
ends() { # NAME APPEND: the first while it boots, the others once their program has begun
	"$umbra" run --time-limit 240 --kernel build/guest/vmlinuz --initrd build/guest/spin.cpio.gz --append "console=ttyS0 $2" </dev/null >"$said" 2>&1 &
	local pid=$!
	sleep 0.2
	for ((k = 0; k < 6000; k++)); do [ "$1" = boot ] && break; grep -q READY "$said" && break; sleep 0.02; done
	kill -TERM $pid
	for ((k = 0; k < 6000; k++)); do kill -0 $pid 2>/dev/null || break; sleep 0.01; done
	if kill -0 $pid 2>/dev/null; then echo "stop: $1: still running after a minute"; kill -KILL $pid; failed=1; fi
	wait $pid; [ $? = 0 ] || { echo "stop: $1: did not end with 0"; failed=1; }
}
ends boot ""
ends spin ""
ends halt "halt=1"
exit $failed
