#!/bin/bash
# away-disk.sh: Linux that writes and reads again what it wrote goes to another place by umbra fork --to and umbra listen --disks, in the middle of it: the
# files of its disks come with it, on demand and by themselves, by a connection that is killed under way. What each guest says of its files another program
# finds in its chain, which there lies in the folder of who listens alone: the sender's are gone by then. No process and nothing half done is left.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-$PWD/build/umbra}
test=away-disk cutter=
. tests/boot/disk-chain.sh
here=$where there=$(mktemp -d); trap 'kill $listener $cutter 2>/dev/null; for n in two three; do on_there kill $n 2>/dev/null; done; rm -rf "${work%/disks}" "$where" "$there"' EXIT
mkdir "$work/parcels" "$work/disks"; chmod 700 "$work/parcels"
head -c 3000000 /dev/urandom >"$work/read"
on_there() { XDG_RUNTIME_DIR=$there "$umbra" "$@"; }
"$umbra" listen --make-key "$work/key" || fail key
XDG_RUNTIME_DIR=$there "$umbra" listen 0 --key "$work/key" --folder "$work/parcels" --disks "$work/disks" --wait 20 </dev/null >"$work/listen.log" 2>&1 &
listener=$!
disown # stop_all waits for machines alone
until grep -q 127 "$work/listen.log"; do sleep 0.02; done
place=$(awk '{print $NF; exit}' "$work/listen.log")
: >"$work/one.log"
timeout -s KILL 250 "$umbra" run --name one --time-limit 240 --kernel build/guest/vmlinuz --initrd build/guest/disk.cpio.gz --cpus 2 --append "console=ttyS0 quiet umbra.do=forked umbra.disks=1" \
	--disk "$work/top.vhdx" --disk "$work/read,format=raw,readonly" </dev/null >"$work/one.log" 2>&1 &
wait_for_writing
disown
python3 tests/guest/cutter.py "$place" >"$work/cutter.log" &
cutter=$!
disown
until grep -q : "$work/cutter.log"; do sleep 0.05; done
timeout 200 "$umbra" fork one --to "$(cat "$work/cutter.log")" --key "$work/key" --name two --bandwidth 8M --json >"$work/sent" 2>"$work/err" &
sender=$!
until grep -q 'two has arrived' "$work/listen.log"; do
	[ "$SECONDS" -lt 150 ] && kill -0 "$sender" 2>/dev/null || fail "two does not arrive: $(cat "$work/err" "$work/listen.log")"
	sleep 0.02
done
on_there info two --json | grep -q remote-disks || fail "info does not say what is to come: $(on_there info two --json)"
on_there ps --tree | grep -q 'of disks to come' || fail "nor does ps"
ls "$work/disks"/two.0.vhdx >/dev/null && [ ! -s "$work/disks/two.0.vhdx" ] || fail "a disk has its name before it is there"
kill -USR1 "$cutter" # what was asked for is asked for again
wait "$sender" || fail "it is not sent: $(cat "$work/err")"
while on_there info two --json | grep -q remote; do # of memory, out of its file
	[ "$SECONDS" -lt 200 ] || fail "something is still to come: $(on_there info two --json)"
	sleep 0.05
done
cmp "$work/read" "$work/disks/two.1.raw" || fail "a disk that is read is not what it was"
cmp "$work/base.vhdx" "$work/disks/two.0.1.vhdx" || fail "what lies beneath is not what it was"
cmp "$work/top.vhdx" "$work/disks/two.0.vhdx" || fail "what was frozen is not what it was"
[ -z "$(ls "$work/parcels"; ls -d "$work/disks"/.umbra* 2>/dev/null)" ] || fail "something is left: $(ls -A "$work/parcels" "$work/disks")"
on_there fork two --name three --console "$work/three.log" >/dev/null || fail "who has arrived cannot be forked"
top_of() { on_there info "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["disks"][0]["file"])'; }
top_two=$(top_of two) top_three=$(top_of three)
XDG_RUNTIME_DIR=$there names="two three" stop_all
names=one; stop_all
look_at one "$work/one.log"
rm "$work"/*.vhdx
work=$work/disks
look_at two "$there/umbra/.console-two" "$top_two"
look_at three "${work%/disks}/three.log" "$top_three"
exit 0
