#!/bin/bash
# Other programs read what we write, and we what they write: qemu-img and qemu-io (dynamic, fixed), libvhdi (chains too). A parent that
# another program has changed is noticed; one that was only opened is not.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-$PWD/build/umbra}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0
must() { "$@" >out.log 2>&1 || { echo "foreign: failed: $*"; tail -2 out.log; failed=1; }; }
code() { # WANT COMMAND...
	local want=$1 got; shift
	"$@" >out.log 2>&1; got=$?
	[ $got = "$want" ] || { echo "foreign: ended with $got, not $want: $*"; tail -2 out.log; failed=1; }
}
same() { [ "$1" = "$2" ] || { echo "foreign: $3: $1 is not $2"; failed=1; }; }
vhdi() { # FILE [PARENT...]: the digest of the contents as libvhdi sees them
	/usr/bin/python3 - "$@" <<'PY'
import hashlib, pyvhdi, sys
files = []
for path in sys.argv[1:]:
    f = pyvhdi.file(); f.open(path); files.append(f)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
digest, left = hashlib.md5(), files[0].get_media_size()
while left:
    data = files[0].read(min(left, 1 << 20)); digest.update(data); left -= len(data)
print(digest.hexdigest())
PY
}
ours() { "$umbra" disk read "$@" | md5sum | cut -d' ' -f1; }
head -c 5000000 /dev/urandom >a.bin
head -c 700000 /dev/urandom >b.bin

for kind in "" --fixed; do
	f=ours$kind.vhdx
	must "$umbra" disk create "$f" --size 100M --block-size 1M $kind
	must "$umbra" disk write "$f" --offset 3M --from a.bin
	must "$umbra" disk write "$f" --offset 99M --from b.bin
	must qemu-img check -f vhdx "$f"
	must qemu-img convert -f vhdx -O raw "$f" "$f.raw"
	same "$(md5sum <"$f.raw" | cut -d' ' -f1)" "$(ours "$f")" "qemu reads $f"
	same "$(vhdi "$f")" "$(ours "$f")" "libvhdi reads $f"
	# and goes on writing it
	must qemu-io -f vhdx -c "write -P 5 50M 3M" -c "write -P 6 4M 64k" "$f"
	must "$umbra" disk check "$f"
	must qemu-img convert -f vhdx -O raw "$f" "$f.raw"
	same "$(md5sum <"$f.raw" | cut -d' ' -f1)" "$(ours "$f")" "what qemu wrote into $f"
	must "$umbra" disk compare "$f" "$f.raw" --other-format raw
done
for options in subformat=dynamic subformat=fixed subformat=dynamic,block_size=16M; do
	must qemu-img create -f vhdx -o "$options" theirs.vhdx 300M
	must qemu-io -f vhdx -c "write -P 9 1M 5M" -c "write -P 3 299M 1M" theirs.vhdx
	must qemu-img convert -f vhdx -O raw theirs.vhdx theirs.raw
	same "$(md5sum <theirs.raw | cut -d' ' -f1)" "$(ours theirs.vhdx)" "we read $options"
	must "$umbra" disk write theirs.vhdx --offset 200M --from b.bin
	must qemu-img check -f vhdx theirs.vhdx
	must qemu-img convert -f vhdx -O raw theirs.vhdx theirs.raw
	same "$(md5sum <theirs.raw | cut -d' ' -f1)" "$(ours theirs.vhdx)" "we write $options"
	rm -f theirs.vhdx theirs.raw
done
must "$umbra" disk convert ours.vhdx.raw ours2.vhdx --from raw
must "$umbra" disk compare ours.vhdx ours2.vhdx
must "$umbra" disk resize ours2.vhdx --size 50G
must qemu-img check -f vhdx ours2.vhdx
same "$(qemu-img info ours2.vhdx | sed -n 's/^virtual size: .*(\([0-9]*\) bytes)/\1/p')" 53687091200 "qemu sees the new size"
must "$umbra" disk resize ours2.vhdx --size 100M
must "$umbra" disk compare ours.vhdx ours2.vhdx
code 65 "$umbra" disk resize ours2.vhdx --size 50M

# a chain of three
p=ours.vhdx
for n in 1 2 3; do
	must "$umbra" disk snapshot "$p" "child$n.vhdx"
	must "$umbra" disk write "child$n.vhdx" --offset "$((n * 3))M" --from b.bin
	p=child$n.vhdx
done
same "$(vhdi child3.vhdx child2.vhdx child1.vhdx ours.vhdx)" "$(ours child3.vhdx)" "libvhdi reads a chain"
must "$umbra" disk check child3.vhdx --chain
code 65 "$umbra" disk resize child3.vhdx --size 90M

# identity: opened and closed, nothing; changed by a program that follows the rules, everything
mkdir kept && cp ours.vhdx kept/ours.vhdx
"$umbra" disk write ours.vhdx --offset 0 --from /dev/null
must "$umbra" disk check child3.vhdx
must qemu-io -f vhdx -c "write -P 1 0 512" ours.vhdx
code 65 "$umbra" disk check child3.vhdx
grep -q "has changed since" out.log || { echo "foreign: the refusal does not say why"; failed=1; }
cp kept/ours.vhdx ours.vhdx
must "$umbra" disk check child3.vhdx
code 65 "$umbra" disk commit nothing.vhdx
before=$(ours child3.vhdx)
must "$umbra" disk commit child3.vhdx
same "$(ours child3.vhdx)" "$before" "after a commit the child is the same"
same "$(ours child2.vhdx)" "$before" "and its parent has it all"
same "$(vhdi child2.vhdx child1.vhdx ours.vhdx)" "$before" "as libvhdi sees it"

# where a parent may lie
mv ours.vhdx renamed.vhdx
must "$umbra" disk check child1.vhdx
mv renamed.vhdx ours.vhdx
mkdir elsewhere && mv ours.vhdx elsewhere/
code 65 "$umbra" disk check child1.vhdx
cd elsewhere && must "$umbra" disk snapshot ours.vhdx ../outside.vhdx --parents . && cd ..
code 78 "$umbra" disk check outside.vhdx --parents "$work/none"
mkdir deep && code 78 "$umbra" disk snapshot elsewhere/ours.vhdx deep/child.vhdx # it would not open there
must "$umbra" disk snapshot elsewhere/ours.vhdx deep/child.vhdx --parents elsewhere
code 78 "$umbra" disk check deep/child.vhdx
must "$umbra" disk check deep/child.vhdx --parents elsewhere
# ---- VHD: what we make, others read, chains too; what others make, we read ----
head -c 5M /dev/urandom >noise
for kind in "" --fixed; do
	rm -f v.vhd; must "$umbra" disk create v.vhd --size 70M --format vhd $kind
	must "$umbra" disk write v.vhd --format vhd --offset 3M --from noise
	must "$umbra" disk check v.vhd --format vhd
	must "$umbra" disk convert v.vhd v.raw --from vhd --to raw
	must qemu-img compare -f vpc -F raw v.vhd v.raw
	rm -f v.raw
done
rm v.vhd; must "$umbra" disk create v.vhd --size 70M --format vhd
must "$umbra" disk write v.vhd --format vhd --offset 3M --from noise
must "$umbra" disk create w.vhd --parent v.vhd --parent-format vhd --format vhd
must "$umbra" disk write w.vhd --format vhd --offset 7M --from noise
same "$(vhdi w.vhd v.vhd)" "$("$umbra" disk read w.vhd --format vhd --offset 0 | md5sum | cut -d' ' -f1)" "libvhdi sees another child"
qemu-io -f vpc -c 'write -P 9 4M 4k' v.vhd >/dev/null
code 65 "$umbra" disk read w.vhd --format vhd --offset 4M --length 512
code 65 "$umbra" disk check w.vhd --format vhd --chain
mkdir -p elsewhere; mv v.vhd elsewhere/v.vhd
code 65 "$umbra" disk info w.vhd --format vhd
must "$umbra" disk info w.vhd --format vhd --parents elsewhere
for o in subformat=dynamic subformat=fixed; do
	must qemu-img create -q -f vpc -o $o,force_size=on q.vhd 50M
	must qemu-io -f vpc -c 'write -P 5 3M 2M' -c 'write -P 6 40M 100k' q.vhd
	must "$umbra" disk convert q.vhd q.raw --from vhd --to raw
	must qemu-img compare -f vpc -F raw q.vhd q.raw
	must "$umbra" disk write q.vhd --format vhd --offset 20M --from noise
	cmp -s -n 5242880 noise <("$umbra" disk read q.vhd --format vhd --offset 20M) || { echo "foreign: vhd $o"; failed=1; }
	rm -f q.vhd q.raw
done
# ---- what Azure takes: fixed, whole MiB ----
must qemu-img create -q -f raw whole.raw 7M
must qemu-io -f raw -c 'write -P 6 2M 1M' whole.raw
must "$umbra" disk convert whole.raw whole.vhd --from raw --azure
same "$(stat -c %s whole.vhd)" $((7 * 1048576 + 512)) "a fixed VHD of 7 MiB"
same "$("$umbra" disk info whole.vhd --format vhd | awk '$1 == "type" { print $2 }')" fixed "the kind of a VHD for Azure"
must qemu-img compare -f vpc -F raw whole.vhd whole.raw
must qemu-img create -q -f raw odd.raw 7340544
code 65 "$umbra" disk convert odd.raw odd.vhd --from raw --azure
code 64 "$umbra" disk convert whole.raw odd.vhd --from raw --to vhdx --azure
[ ! -e odd.vhd ] || { echo "foreign: a disk that Azure does not take was made"; failed=1; }
# ---- qcow2 and VMDK are read ----
must qemu-img create -q -f raw source.raw 100M
for n in 1 9 33 77; do must qemu-io -f raw -c "write -P $n ${n}M 1100k" source.raw; done
cp noise part; dd if=part of=source.raw bs=1M seek=50 conv=notrunc status=none
imports() { # FORMAT FILE
	rm -f back.raw
	must "$umbra" disk convert "$2" back.raw --from "$1" --to raw
	must qemu-img compare -f raw -F raw source.raw back.raw
	must "$umbra" disk check "$2" --format "$1"
}
for o in "" "-o compat=0.10" "-c" "-c -o compression_type=zstd" "-o extended_l2=on,cluster_size=128k" "-o cluster_size=512" "-c -o cluster_size=2M"; do
	rm -f i.qcow2; must qemu-img convert -f raw -O qcow2 $o source.raw i.qcow2
	imports qcow2 i.qcow2
done
must qemu-img create -q -f qcow2 -b i.qcow2 -F qcow2 over.qcow2 100M
must qemu-io -f qcow2 -c 'write -P 3 10M 64k' -c 'write -z 50M 1M' over.qcow2
must qemu-io -f raw -c 'write -P 3 10M 64k' -c 'write -z 50M 1M' source.raw
imports qcow2 over.qcow2
code 65 "$umbra" disk write i.qcow2 --format qcow2 --offset 0 --from noise
mv i.qcow2 elsewhere; code 65 "$umbra" disk info over.qcow2 --format qcow2
for o in monolithicSparse monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat streamOptimized; do
	rm -f i*.vmdk; must qemu-img convert -f raw -O vmdk -o subformat=$o source.raw i.vmdk
	imports vmdk i.vmdk
done
# a delta, and one over it; a parent that has changed
rm -f i*.vmdk; must qemu-img convert -f raw -O vmdk source.raw i.vmdk
p=i.vmdk
for n in 1 2; do
	must qemu-img create -q -f vmdk -b $p -F vmdk delta$n.vmdk
	must qemu-io -f vmdk -c "write -P $n $((n * 20))M 3M" delta$n.vmdk
	must qemu-io -f raw -c "write -P $n $((n * 20))M 3M" source.raw
	p=delta$n.vmdk
done
imports vmdk delta2.vmdk
must "$umbra" disk convert delta2.vmdk quick.vhdx --from vmdk --no-sync
must "$umbra" disk compare quick.vhdx source.raw --other-format raw
must qemu-io -f vmdk -c 'write -P 7 1M 64k' i.vmdk
code 65 "$umbra" disk info delta2.vmdk --format vmdk
grep -q CID out.log || { echo "foreign: a delta's refusal does not say why"; failed=1; }
mv i.vmdk elsewhere; code 65 "$umbra" disk info delta1.vmdk --format vmdk
# a child of ours over each of them
must qemu-img convert -f raw -O qcow2 source.raw i.qcow2
must "$umbra" disk create over.vhdx --parent i.qcow2 --parent-format qcow2
must "$umbra" disk compare over.vhdx source.raw --other-format raw
must qemu-io -f qcow2 -c 'write -P 8 10M 64k' i.qcow2
code 65 "$umbra" disk read over.vhdx --offset 10M --length 512
exit $failed
