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
# asks all of $names to power off; no process of theirs is left
stop_all() {
	stopping=()
	for name in $names; do timeout 100 "$umbra" stop "$name" & stopping+=($!); done
	for process in "${stopping[@]}"; do wait "$process" || fail "stop"; done
	wait
	for _ in $(seq 3000); do [ "$("$umbra" ps | wc -l)" = 1 ] && break; sleep 0.02; done
	[ "$("$umbra" ps | wc -l)" = 1 ] || fail "some are left"
}
# look_at NAME LOG [TOP]: it ended well, and what it says of its files another program finds in its chain
look_at() {
	local top
	tr -d '\r' <"$2" >"$work/said"
	grep -q '^DISK DONE' "$work/said" && ! grep '^BAD' "$work/said" || fail "$1 did not end well"
	top=${3:-$(ls -v "$work"/*."$1".vhdx "$work"/*."$1".*.vhdx 2>/dev/null | tail -n 1)}
	"$umbra" disk check "$top" --chain >"$work/out" 2>&1 || fail "$1: $(cat "$work/out")"
	"$umbra" disk convert "$top" "$work/flat" --to raw >/dev/null && /sbin/e2fsck -fn "$work/flat" >"$work/out" 2>&1 || fail "e2fsck of $1: $(cat "$work/out")"
	rm -rf "$work/tree"; mkdir "$work/tree"; /sbin/debugfs -R "rdump / $work/tree" "$work/flat" >/dev/null 2>&1
	(cd "$work/tree" && find . -type f ! -path './lost*' | sort | xargs md5sum | sed 's/^/SUM /') >"$work/found"
	[ -s "$work/found" ] && grep '^SUM' "$work/said" | cmp - "$work/found" || fail "another program finds other files on the disk of $1"
	rm "$work/flat"
}
# a machine called raw with a disk that nobody can freeze
begin_raw() {
	truncate -s 8M "$work/raw"
	timeout -s KILL 60 "$umbra" run --name raw --time-limit 55 --kernel build/guest/vmlinuz --initrd build/guest/disk.cpio.gz --append "console=ttyS0 umbra.do=none" --disk "$work/raw,format=raw" </dev/null >"$work/raw.log" 2>&1 &
	for _ in $(seq 3000); do "$umbra" info raw >/dev/null 2>&1 && break; sleep 0.02; done
}
