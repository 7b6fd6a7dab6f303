#!/bin/bash
# An unmodified Debian with its own kernel, initial file system and init boots from a VHDX chain by one command, is told to stop, and boots again.
set -u
umbra=${UMBRA:-$PWD/build/umbra}
tree=$(tests/image/debian-tree) || exit 1
work=$(mktemp -d); trap 'kill %1 2>/dev/null; rm -rf "$work"' EXIT
failed=0
bad() { echo "debian-boot: $*"; failed=1; }
must() { timeout -s KILL 200 "$@" >"$work/out.log" 2>&1 || { bad "failed ($?): $*"; tail -3 "$work/out.log"; }; }
cd "$work"
export HOME=$work XDG_RUNTIME_DIR=$work
mkdir root && tar -xf "$tree" -C root --exclude='./dev/*' || bad "tar"
echo "LABEL=system / ext4 defaults 0 1" >root/etc/fstab
cat >root/etc/systemd/system/umbra-test.service <<'UNIT'
[Unit]
Description=What the test waits for
After=systemd-user-sessions.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'date >>/var/boots; echo "UMBRA UP $(wc -l </var/boots) $(findmnt -no SOURCE,FSTYPE /) $(lsmod | grep -c "^hv_\\(storvsc\\|utils\\|balloon\\)")" >/dev/console'
[Install]
WantedBy=multi-user.target
UNIT
ln -s ../umbra-test.service root/etc/systemd/system/multi-user.target.wants/umbra-test.service
truncate -s 2400M fs && mke2fs -q -t ext4 -L system -d root fs || bad "mke2fs"
rm -rf root
truncate -s 2500M disk.raw && /sbin/sgdisk -n 1:2048:4917247 disk.raw >/dev/null || bad "sgdisk"
dd if=fs of=disk.raw bs=1M seek=1 conv=notrunc,sparse status=none; rm fs
must "$umbra" disk convert disk.raw base.vhdx --from raw; rm disk.raw
must "$umbra" disk create work.vhdx --parent base.vhdx
before=$(md5sum <base.vhdx)
for n in 1 2; do
	"$umbra" run --name debian --cpus 2 --memory 1G --memory-min 256M work.vhdx </dev/null >"log-$n" 2>&1 &
	for _ in $(seq 1200); do grep -aq 'UMBRA UP' "log-$n" && break; kill -0 %1 2>/dev/null || break; sleep 0.1; done
	grep -aq "UMBRA UP $n /dev/sda1 ext4 3" "log-$n" || { bad "boot $n"; tail -5 "log-$n"; }
	"$umbra" info debian | grep -q 'automatic' || { sleep 2; "$umbra" info debian | grep -q 'automatic' || bad "no memory driver"; }
	must "$umbra" stop debian
	wait %1 || bad "it ended with $?"
	grep -aq 'reboot: Power down' "log-$n" || { bad "it was not shut down"; tail -3 "log-$n"; }
done
[ "$(md5sum <base.vhdx)" = "$before" ] || bad "the parent has changed"
must "$umbra" disk check work.vhdx --chain
must "$umbra" disk convert work.vhdx served.raw --to raw
dd if=served.raw of=fs bs=1M skip=1 count=2400 conv=sparse status=none
must /sbin/e2fsck -fn fs
exit $failed
