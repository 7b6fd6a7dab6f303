#!/bin/bash
# saved-disk.sh [SAVES]: Linux that writes and reads again what it wrote is saved in the middle of it, with its disk and a network card, and goes on;
# each file is restored, more than once, and one of those is saved and restored again. All go on with disks of their own: what a guest says of its
# files another program finds in its chain. What a file stands on is frozen, and a file whose disk is another one is refused. No process is left.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-$PWD/build/umbra} saves=${1:-1}
test=saved-disk
. tests/boot/disk-chain.sh
truncate -s 4M "$work/read"
names="one"
: >"$work/one.log"
timeout -s KILL 250 "$umbra" run --name one --time-limit 240 --kernel build/guest/vmlinuz --initrd build/guest/disk.cpio.gz --cpus 2 --append "console=ttyS0 quiet umbra.do=forked umbra.disks=1" \
	--disk "$work/top.vhdx" --disk "$work/read,format=raw,readonly" --net user </dev/null >"$work/one.log" 2>&1 &
wait_for_writing
restore() { # FILE NAME
	timeout -s KILL 200 "$umbra" run --restore "$1" --name "$2" </dev/null >"$work/$2.log" 2>&1 &
	names+=" $2"
	for _ in $(seq 3000); do "$umbra" info "$2" >/dev/null 2>&1 && return; sleep 0.02; done
	fail "restore of $2"
}
for ((n = 1; n <= saves; n++)); do
	timeout 100 "$umbra" save one "$work/saved$n" 2>"$work/out" || fail "save $n: $(cat "$work/out")"
	sleep 0.$((RANDOM % 5))
	restore "$work/saved$n" "two$n"
	timeout 100 "$umbra" save --stop "two$n" "$work/again$n" 2>"$work/out" || fail "save of two$n: $(cat "$work/out")"
	names=${names% *}
	restore "$work/again$n" "three$n"
	restore "$work/saved$n" "four$n"
done
"$umbra" info one --json | grep -q "top.one.*vhdx" || fail "info does not say where it goes on"
before=$(ls "$work"/*.vhdx | wc -l)
timeout 60 "$umbra" run --restore "$work/saved1" --name one </dev/null >"$work/out" 2>&1 && fail "a name that is taken"
grep -q 'of that name runs' "$work/out" && [ "$(ls "$work"/*.vhdx | wc -l)" = "$before" ] || fail "a restore under a name that is taken leaves a disk behind: $(cat "$work/out")"
stop_all
for name in $names; do
	look_at "$name" "$work/$name.log"
done
# what a file stands on is nobody's to write
"$umbra" run --kernel build/guest/vmlinuz --disk "$work/top.vhdx" </dev/null >"$work/out" 2>&1
[ $? = 65 ] && grep -q 'is frozen' "$work/out" || fail "a frozen disk: $(cat "$work/out")"
refused() { # WHAT TEXT
	timeout 60 "$umbra" run --restore "$work/saved1" --name five </dev/null >"$work/out" 2>&1
	[ $? = 65 ] && grep -q "$2" "$work/out" || fail "$1: $(cat "$work/out")"
}
before=$(ls "$work"/*.vhdx | wc -l)
touch "$work/read"; refused "another file that is read" 'is not what it was when the machine was saved'
mv "$work/top.vhdx" "$work/away"; refused "a disk that is gone" 'No such file'
cp "$work/base.vhdx" "$work/top.vhdx"; refused "another disk in its place" 'is not what it was when the machine was saved'
[ "$(ls "$work"/*.vhdx | wc -l)" = "$before" ] || fail "a refused restore leaves a disk behind"
# a disk that cannot be frozen: nothing is saved, nothing is left behind
begin_raw
"$umbra" save raw "$work/none" 2>"$work/out" && fail "a machine with a raw disk was saved"
grep -q 'has to be VHDX' "$work/out" && [ ! -e "$work/none" ] || fail "a raw disk: $(cat "$work/out")"
"$umbra" kill raw; wait
exit 0
