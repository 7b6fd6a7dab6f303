#!/bin/sh
# boot.sh NAME MEMORY APPEND [EXIT [CPUS [HV]]]: boots the work initramfs and checks what the guest computed. HV: features to offer.
set -eu
name=$1 memory=$2 append=$3
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
tools/fetch-guest tests/boot/work.init build/guest/work.cpio.gz tests/boot/thirty-two.S
log=$(dirname "$umbra")/guest/$name.log
mkdir -p "$(dirname "$log")"
status=0
timeout -s KILL 205 "$umbra" run --time-limit 200 --kernel build/guest/vmlinuz --initrd build/guest/work.cpio.gz --memory "$memory" --cpus "${5:-1}" \
	--hv "${6:-default}" --append "console=ttyS0 $append" </dev/null >"$log" 2>&1 || status=$?
want=${4:-0}
[ "$want" != 0 ] || grep -q "^CPUS ${5:-1}\b" "$log" || { echo "$name: not ${5:-1} processors"; exit 1; }
[ "$status" = "$want" ] || { echo "$name: ended with $status, not $want"; tail -n 5 "$log"; exit 1; }
for line in "LOOP 20000" bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8 b6d81b360a5672d80c27430f39153e2c \
	'^2000' '^64' 'THIRTYTWO 3257f041'; do
	grep -q "$line" "$log" || { echo "$name: no line '$line' in $log"; exit 1; }
done
if grep -q "Hypervisor detected: Microsoft Hyper-V" "$log"; then seen=default; else seen=none; fi
[ "$seen" = none ] || [ "${6:-default}" != none ] || { echo "$name: a hypervisor where none should be seen"; exit 1; }
[ "$seen" != none ] || [ "${6:-default}" = none ] || { echo "$name: no hypervisor seen"; exit 1; }
[ "$want" = 0 ] || grep -q 'umbra: the guest crashed: Kernel panic' "$log"
