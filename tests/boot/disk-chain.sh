# Sourced: a chain of two disks for Linux that writes and reads again what it wrote, and the names of this test alone. $test: what it is called.
work=$(mktemp -d -p build) where=$(mktemp -d); trap 'rm -rf "$work" "$where"' EXIT
export XDG_RUNTIME_DIR=$where # a short path wherever the tree stands: sockets have names of at most 107 bytes
fail() { echo "$test: $* after $SECONDS s"; tail -n 3 "$work"/*.log*; "$umbra" ps | tail -n +2 | while read -r n _; do "$umbra" kill "$n"; done; exit 1; }
tools/fetch-guest tests/boot/disk.init build/guest/disk.cpio.gz build/guest/modules/{hv_vmbus,scsi_common,scsi_mod,scsi_transport_fc,hv_storvsc,sd_mod,hv_utils}.ko
truncate -s 128M "$work/fs"; /sbin/mke2fs -q -t ext4 "$work/fs"
"$umbra" disk convert "$work/fs" "$work/base.vhdx" --from raw >/dev/null || fail convert
"$umbra" disk create "$work/top.vhdx" --parent "$work/base.vhdx" >/dev/null || fail create
rm "$work/fs"
# until each processor of the machine that was begun last writes
wait_for_writing() {
	until [ "$(grep -c WRITING "$work/one.log")" = 2 ]; do
		[ "$SECONDS" -lt 90 ] && kill -0 $! 2>/dev/null || fail "it does not write: $(jobs)"
		sleep 0.05
	done
}
