#!/bin/bash
# SIGTERM ends a machine within a second (three seconds of allowance on a busy host): while it boots, spins in user space with
# nothing else to do, and while it halts.
set -u
cd "$(dirname "$0")/../.."
failed=0
umbra=${UMBRA:-build/umbra}
tools/fetch-guest tests/boot/spin.init build/guest/spin.cpio.gz
ends() { # NAME SECONDS APPEND
	"$umbra" run --time-limit 240 --kernel build/guest/vmlinuz --initrd build/guest/spin.cpio.gz --append "console=ttyS0 $3" </dev/null >build/guest/stop.log 2>&1 &
	local pid=$! start
	sleep "$2"
	start=$(date +%s%N)
	kill -TERM $pid
	for ((k = 0; k < 6000; k++)); do kill -0 $pid 2>/dev/null || break; sleep 0.01; done
	if kill -0 $pid 2>/dev/null; then echo "stop: $1: still running after a minute"; kill -KILL $pid; failed=1; fi
	wait $pid; [ $? = 0 ] || { echo "stop: $1: did not end with 0"; failed=1; }
}
ends boot 0.2 ""
ends spin 2.5 ""
ends halt 2.5 "halt=1"
exit $failed
