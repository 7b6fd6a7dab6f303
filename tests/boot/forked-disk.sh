#!/bin/bash
# forked-disk.sh [FORKS]: Linux that writes and reads again what it wrote is forked, and so is a child, each time in the middle of it. Each of them
# goes on with a disk of its own: what a guest says of its files another program finds in its chain, and nothing of another guest's. What they
# are made on is frozen. No process is left.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-$PWD/build/umbra} forks=${1:-1}
test=forked-disk
. tests/boot/disk-chain.sh
: >"$work/one.log"
timeout -s KILL 250 "$umbra" run --name one --time-limit 240 --kernel build/guest/vmlinuz --initrd build/guest/disk.cpio.gz --cpus 2 --append "console=ttyS0 quiet umbra.do=forked umbra.disks=1" \
	--disk "$work/top.vhdx" </dev/null >"$work/one.log" 2>&1 &
wait_for_writing
names="one"
for ((n = 1; n <= forks; n++)); do
	timeout 60 "$umbra" fork one --name "two$n" -n 2 --console "$work/two$n.log" >/dev/null || fail "fork $n"
	sleep 0.$((RANDOM % 5))
	timeout 60 "$umbra" fork "two$n-1" --name "three$n" --console "$work/three$n.log" --disks "$work" >/dev/null || fail "fork $n of a child"
	names+=" two$n-1 two$n-2 three$n"
done
"$umbra" info one --json | grep -q "top.one.*vhdx" || fail "info does not say where it goes on"
stop_all
declare -A log=([one]=one.log)
for ((n = 1; n <= forks; n++)); do log[two$n-1]=two$n.log-1; log[two$n-2]=two$n.log-2; log[three$n]=three$n.log; done
for name in $names; do
	look_at "$name" "$work/${log[$name]}"
done
# what they are made on is nobody's to write
"$umbra" run --kernel build/guest/vmlinuz --disk "$work/top.vhdx" </dev/null >"$work/out" 2>&1
[ $? = 65 ] && grep -q 'is frozen.*goes on in top.one.vhdx' "$work/out" || fail "a frozen disk: $(cat "$work/out")"
# a disk that cannot be frozen: nothing is forked, nothing is left behind
begin_raw
"$umbra" fork raw 2>"$work/out" && fail "a raw disk was forked"
grep -q 'has to be VHDX' "$work/out" || fail "a raw disk: $(cat "$work/out")"
"$umbra" kill raw; wait
exit 0
