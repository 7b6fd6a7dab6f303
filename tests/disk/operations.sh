#!/bin/bash
# Operations on chains, against raw files that were changed in the same way: tests/disk/operations.sh
set -u
umbra=${UMBRA:-$PWD/build/umbra}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
failed=0
must() { "$@" >out.log 2>&1 || { echo "operations: failed ($?): $*"; tail -3 out.log; failed=1; }; }
refused() { # CODE COMMAND...
	local want=$1 got; shift
	"$@" >out.log 2>&1; got=$?
	[ $got = "$want" ] || { echo "operations: ended with $got, not $want: $*"; tail -2 out.log; failed=1; }
}
same() { must "$umbra" disk compare "$1" "$2" --other-format raw; must "$umbra" disk check "$1" --chain; }
put() { # FILE RAW OFFSET_MIB MIB
	head -c "$4M" /dev/urandom >data
	[ "$1" = - ] || must "$umbra" disk write "$1" --offset "$3M" --from data
	dd if=data of="$2" bs=1M seek="$3" conv=notrunc status=none
}
truncate -s 40M a.raw
must "$umbra" disk create a.vhdx --size 40M --block-size 1M
put a.vhdx a.raw 1 9
put a.vhdx a.raw 20 3
must "$umbra" disk snapshot a.vhdx b.vhdx; cp a.raw b.raw
put b.vhdx b.raw 5 1
put b.vhdx b.raw 30 2
must "$umbra" disk snapshot b.vhdx c.vhdx; cp b.raw c.raw
head -c 4096 /dev/urandom >data; must "$umbra" disk write c.vhdx --offset 7340032 --from data; dd if=data of=c.raw bs=4096 seek=1792 conv=notrunc status=none
put c.vhdx c.raw 39 1
same c.vhdx c.raw

# a raw file with holes: what lies between them is found, and they are not read, which would take minutes
truncate -s 1T h.raw
for sector in 0 2047 2049 40000 2147483647; do head -c 512 /dev/urandom | dd of=h.raw bs=512 seek=$sector conv=notrunc status=none; done
must timeout 60 "$umbra" disk convert h.raw h.vhdx --from raw
for sector in 0 2047 2049 40000 2147483647; do
	"$umbra" disk read h.vhdx --offset $((sector * 512)) --length 512 >piece
	dd if=h.raw bs=512 skip=$sector count=1 status=none | cmp -s - piece || { echo "operations: sector $sector of a file with holes"; failed=1; }
done
rm h.raw h.vhdx

# changes since an ancestor, alone
must "$umbra" disk export-changes c.vhdx delta.vhdx --since a.vhdx
same delta.vhdx c.raw
[ "$(stat -c %b delta.vhdx)" -lt 20000 ] || { echo "operations: a delta holds more than changes"; failed=1; }
refused 64 "$umbra" disk export-changes c.vhdx no.vhdx --since delta.vhdx

# another parent: the same content, whatever the new parent holds
cp -r . ../copy.$$ && mv ../copy.$$ copy
must "$umbra" disk rebase copy/c.vhdx --parent copy/a.vhdx
same copy/c.vhdx c.raw
put - other.raw 0 40
must "$umbra" disk rebase copy/c.vhdx --parent other.raw --parent-format raw --parents .
must "$umbra" disk compare copy/c.vhdx c.raw --other-format raw --parents .
refused 64 "$umbra" disk rebase copy/a.vhdx --parent copy/b.vhdx
refused 65 "$umbra" disk rebase copy/b.vhdx --parent copy/none.vhdx

# alone: qemu reads it, which knows no parents
cp c.vhdx s.vhdx
must "$umbra" disk stream s.vhdx
same s.vhdx c.raw
must qemu-img check -f vhdx s.vhdx
must qemu-img compare -f vhdx -F raw s.vhdx c.raw
must "$umbra" disk resize s.vhdx --size 80M
must qemu-img check -f vhdx s.vhdx

# smaller: zeros go, blocks move together
must "$umbra" disk create z.vhdx --size 400M --block-size 1M
truncate -s 400M z.raw
put z.vhdx z.raw 0 100
head -c 80M /dev/zero >zeros
must "$umbra" disk write z.vhdx --offset 10M --from zeros; dd if=zeros of=z.raw bs=1M seek=10 conv=notrunc status=none
before=$(stat -c %s z.vhdx)
must "$umbra" disk compact z.vhdx
same z.vhdx z.raw
must qemu-img check -f vhdx z.vhdx
must qemu-img compare -f vhdx -F raw z.vhdx z.raw
after=$(stat -c %s z.vhdx)
[ "$after" -lt $((25 * 1048576)) ] || { echo "operations: compaction left $after bytes of $before"; failed=1; }
must "$umbra" disk resize z.vhdx --size 100M
refused 65 "$umbra" disk resize z.vhdx --size 50M

# a child into its parent, twice
must "$umbra" disk commit c.vhdx
same c.vhdx c.raw
same b.vhdx c.raw
must "$umbra" disk commit b.vhdx
same a.vhdx c.raw
refused 65 "$umbra" disk check c.vhdx
grep -q "has changed since" out.log || { echo "operations: a grandchild does not notice"; failed=1; }
"$umbra" disk check c.vhdx --chain >out.log 2>&1
grep -q "repair-link accepts it\|are not what" out.log || { echo "operations: check does not say what to do"; cat out.log; failed=1; }
must "$umbra" disk repair-link c.vhdx --reason "its parent was committed"
same c.vhdx c.raw

# frozen
must "$umbra" disk freeze b.vhdx --reason "a base"
refused 65 "$umbra" disk write b.vhdx --offset 0 --from data
grep -q "a base" out.log || { echo "operations: a frozen file does not say why"; failed=1; }
refused 65 "$umbra" disk freeze b.vhdx --undo
rm -f c.vhdx s.vhdx; rm -rf copy
must "$umbra" disk freeze b.vhdx --undo
head -c 4096 /dev/urandom >data
must "$umbra" disk write b.vhdx --offset 0 --from data

# bytes changed behind everybody's back
must "$umbra" disk snapshot z.vhdx y.vhdx
python3 - z.vhdx <<'P'
import sys
f = open(sys.argv[1], 'r+b'); data = f.read(); at = data.rfind(data[-4096:-4000]); f.seek(at); f.write(bytes(b ^ 1 for b in data[at:at + 16]))
P
refused 65 "$umbra" disk check y.vhdx --chain
grep -q "which reads them" out.log || { echo "operations: a change that nobody announced was not found"; cat out.log; failed=1; }
refused 65 "$umbra" disk compare y.vhdx y.vhdx
exit $failed
