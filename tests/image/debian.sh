#!/bin/bash
# A real image: a Debian root disk, scanned, searched, served while a client writes with verify, snapshotted and committed meanwhile,
# compared, its file system checked.
set -u
here=$PWD
umbra=${UMBRA:-$PWD/build/umbra}
root=$(tests/image/debian-root) || exit 1
work=$(mktemp -d); server=; trap 'kill $server 2>/dev/null; rm -rf "$work" "$root"' EXIT
failed=0
bad() { echo "debian: $*"; failed=1; }
must() { timeout -s KILL 600 "$@" >"$work/out.log" 2>&1 || { bad "failed ($?): $*"; tail -3 "$work/out.log"; }; }
cd "$work"
export HOME=$work
truncate -s 2G disk.raw && /sbin/sgdisk -n 1:2048:3893247 disk.raw >/dev/null || bad "sgdisk"
/sbin/mke2fs -q -t ext4 -L debian -d "$root" -E offset=1048576 disk.raw 1900M || bad "mke2fs"
must "$umbra" disk convert disk.raw base.vhdx --from raw
must "$umbra" image scan base.vhdx --digests
# what dpkg says of the same tree
dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${binary:Package} ${Version}\n' | sed 's/^\([^ ]*\):[^ ]* /\1 /' | sort >want
"$umbra" image packages base.vhdx | sort >is
cmp want is || { bad "the package list is another"; diff want is | head -5; }
# every file and its digest
(cd "$root" && find . -type f -size -64M -print0 | xargs -0 b2sum -z -l 256 | tr "\0" "\n") | sed 's/^\([0-9a-f]*\)  \./\1 /' | sort >want
"$umbra" image files base.vhdx | awk '{ d = $2; $1 = $2 = ""; sub(/^ */, ""); print d " " $0 }' | sort >is
cmp want is || { bad "the file list is another"; diff want is | head -5; wc -l want is; }
mkdir shelf; ln base.vhdx shelf/base.vhdx
must "$umbra" image tag base.vhdx web
must "$umbra" image index shelf --catalog c.db
must "$umbra" image search 'os:debian pkg:nginx-light file:/etc/nginx/* tag:web not:expired' --catalog c.db
grep -q base.vhdx out.log || bad "the search does not find it"
# served: fio verifies behind the file system's end, while the chain changes
must "$umbra" disk create top.vhdx --parent base.vhdx
"$umbra" disk serve top.vhdx --socket s 2>serve.log & server=$!
for _ in $(seq 1200); do [ -S s.control ] && break; sleep 0.05; done
fio --name=w --ioengine=nbd --uri='nbd+unix:///?socket=s' --rw=randwrite --bs=4k --iodepth=16 --offset=1920M --size=64M --verify=crc32c --do_verify=1 \
	--verify_backlog=512 --time_based --runtime=3 --output=fio.log & client=$!
sleep 1
must "$umbra" disk snapshot next.vhdx --socket s
sleep 0.5
must "$umbra" disk commit --socket s
must "$umbra" disk snapshot last.vhdx --socket s
wait $client || bad "fio"
grep -q 'err= 0' fio.log || { bad "fio found errors"; tail -3 fio.log; }
must nbdcopy 'nbd+unix:///?socket=s' served.raw
kill -TERM $server; wait $server || bad "the server failed"; server=
must "$umbra" disk compare last.vhdx served.raw --other-format raw
must "$umbra" disk check last.vhdx --chain
must cmp -n $((1900 << 20)) disk.raw served.raw
must /sbin/e2fsck -fn 'served.raw?offset=1048576'
"$umbra" image history top.vhdx | grep -q attached || bad "the history does not say that it was attached"
"$umbra" image history last.vhdx | grep -q detached || bad "the history does not say that it was detached"
must "$umbra" image scan last.vhdx --digests
"$umbra" image packages last.vhdx | sort | cmp - <("$umbra" image packages base.vhdx | sort) || bad "the child's packages are others"
# the same disk runs: its programs, its package manager; then it knows what was installed
must "$umbra" disk create run.vhdx --parent last.vhdx
(cd "$here" && tools/fetch-guest tests/image/debian.init "$work/debian.cpio.gz" build/guest/modules/{hv_vmbus,scsi_common,scsi_mod,scsi_transport_fc,hv_storvsc,sd_mod,hv_utils}.ko)
timeout -s KILL 905 "$umbra" run --time-limit 900 --kernel "$here/build/guest/vmlinuz" --initrd debian.cpio.gz --cpus 2 --memory 1G --disk run.vhdx --append "console=ttyS0 quiet" \
	</dev/null 2>&1 | tr -d '\r' >said
for line in 'IS debian 12' 'HTTP/1.1 200 OK' "SHA2-256(/usr/bin/perl)= $(sha256sum <"$root/usr/bin/perl" | cut -d' ' -f1)" 'Status: install ok installed' 'DEBIAN DONE'; do
	grep -qF "$line" said || bad "Debian does not say '$line'"
done
! grep BAD said || bad "$(tail -n 5 said)"
must "$umbra" disk check run.vhdx --chain
must "$umbra" image scan run.vhdx
"$umbra" image packages run.vhdx | grep -q 'umbra-test' || bad "the package that was installed is not found"
exit $failed
