#!/bin/bash
# Linux with disks: its own drivers on chains of differences, several processors writing at once, discarded blocks, disks that cannot be
# written, machines that are killed (disk.sh [KILLS], with twice as much in the files). What the guest says of its files is compared with what other programs find in the image.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-$PWD/build/umbra}
work=$(mktemp -d -p build); trap 'kill %1 2>/dev/null; rm -rf "$work"' EXIT
failed=0 blocks=${1:+37}; blocks=${blocks:-19}
bad() { echo "disk: $*"; failed=1; }
tools/fetch-guest tests/boot/disk.init build/guest/disk.cpio.gz build/guest/modules/{hv_vmbus,scsi_common,scsi_mod,scsi_transport_fc,hv_storvsc,sd_mod,hv_utils}.ko
guest() { # WHAT CPUS OPTION...
	local status=0 what=$1 cpus=$2 disks; shift 2
	disks=$(printf '%s\n' "$@" | grep -cx -e --disk)
	timeout -s KILL 605 "$umbra" run --time-limit 600 --kernel build/guest/vmlinuz --initrd build/guest/disk.cpio.gz --cpus "$cpus" \
		--append "console=ttyS0 quiet umbra.do=$what umbra.disks=$disks umbra.blocks=$blocks" "$@" \
		</dev/null >"$work/log" 2>&1 || status=$?
	tr -d '\r' <"$work/log" >"$work/said"
	[ "$status" = 0 ] && grep -q '^DISK DONE' "$work/said" && ! grep '^BAD' "$work/said" || { bad "$what ended with $status"; tail -3 "$work/said"; }
}
must() { "$@" >"$work/out" 2>&1 || { bad "failed ($?): $*"; tail -3 "$work/out"; }; }
refused() { # CODE TEXT ARGUMENT...
	local code=$1 text=$2 status=0; shift 2
	timeout -s KILL 300 "$umbra" run --kernel build/guest/vmlinuz "$@" </dev/null >"$work/out" 2>"$work/err" || status=$?
	[ "$status" = "$code" ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q "$text" "$work/err" || { bad "$*: $status, not $code"; cat "$work/err"; }
}
# what is in the file system of an image, by another program
sums_of() { # IMAGE FORMAT
	"$umbra" disk convert "$1" "$work/flat" --from "$2" --to raw >/dev/null && /sbin/e2fsck -fn "$work/flat" >"$work/fsck" 2>&1 || { bad "e2fsck of $1"; tail -3 "$work/fsck"; }
	rm -rf "$work/tree"; mkdir "$work/tree"
	/sbin/debugfs -R "rdump / $work/tree" "$work/flat" >/dev/null 2>&1
	rm -f "$work/flat"
	(cd "$work/tree" && find . -type f ! -path './lost*' | sort | xargs -r md5sum | sed 's/^/SUM /')
}

mkdir -p "$work/first/old"
for n in 1 2 3; do head -c $((n * 300001)) /dev/urandom >"$work/first/file$n"; done
cp "$work/first/file1" "$work/first/old/copy"
truncate -s 256M "$work/fs"; must /sbin/mke2fs -q -t ext4 -d "$work/first" "$work/fs"
must "$umbra" disk convert "$work/fs" "$work/base.vhdx" --from raw
must "$umbra" disk create "$work/top.vhdx" --parent "$work/base.vhdx"
before=$(md5sum <"$work/base.vhdx")

# what a disk is, and what is in it; a child that four processors write at once, then once more when all of it was discarded; read in both ways
truncate -s 8M "$work/other.raw"; printf 'other' | dd of="$work/other.raw" conv=notrunc status=none
for cpus in 1 4; do
	if [ "$cpus" = 1 ]; then
		guest look,write 1 --disk "$work/top.vhdx" --disk "$work/other.raw,format=raw,readonly"
		grep -q '^DISK lun0 524288 0 4096 [1-9]' "$work/said" || bad "lun0: $(grep '^DISK lun0' "$work/said")"
		grep -q '^DISK lun1 16384 1 4096 0$' "$work/said" || bad "lun1: $(grep '^DISK lun1' "$work/said")"
		grep -q "^MD5 /dev/lun0 $(md5sum <"$work/fs")" "$work/said" || bad "lun0 reads as something else"
		grep -q "^MD5 /dev/lun1 $(md5sum <"$work/other.raw")" "$work/said" || bad "lun1 reads as something else"
		rm "$work/fs"
	else
		guest write 4 --disk "$work/top.vhdx"
		grep -q '^TRIMMED' "$work/said" || bad "nothing was discarded"
	fi
	grep '^SUM' "$work/said" >"$work/want"
	[ "$(wc -l <"$work/want")" = 152 ] || bad "$(wc -l <"$work/want") files"
	sums_of "$work/top.vhdx" vhdx | cmp - "$work/want" || bad "another program finds other files"
	must "$umbra" disk check "$work/top.vhdx" --chain
	guest sum 2 --disk "$work/top.vhdx,readonly$([ "$cpus" = 1 ] || echo ,direct)"
	grep '^SUM' "$work/said" | cmp - "$work/want" || bad "another machine finds other files"
done
[ "$(md5sum <"$work/base.vhdx")" = "$before" ] || bad "the parent has changed"
"$umbra" image history "$work/top.vhdx" | grep -q detached || bad "the history does not say that it was detached"

# other formats
"$umbra" disk convert "$work/base.vhdx" "$work/flat.raw" --to raw >/dev/null; "$umbra" disk convert "$work/base.vhdx" "$work/old.vhd" --to vhd >/dev/null
must "$umbra" image tag "$work/flat.raw" tagged --format raw
guest write,next,write 2 --disk "$work/flat.raw,format=raw" --disk "$work/old.vhd,format=vhd"
for f in flat.raw old.vhd; do
	if [ $f = flat.raw ]; then sed '/^NEXT/,$d' "$work/said"; else sed '1,/^NEXT/d' "$work/said"; fi | grep '^SUM' >"$work/want"
	[ "$(wc -l <"$work/want")" = 152 ] || bad "$(wc -l <"$work/want") files in $f"
	sums_of "$work/$f" "${f#*.}" | cmp - "$work/want" || bad "another program finds other files in $f"
done

"$umbra" image history "$work/flat.raw" --format raw | grep -q detached || bad "the history beside a raw file does not say that it was detached"

# a disk of sectors of 4096 bytes; one whose policy is passed over
must "$umbra" disk create "$work/large.vhdx" --size 64M --sector-size 4096
must "$umbra" disk create "$work/policy.vhdx" --size 8M
must "$umbra" image set "$work/policy.vhdx" 'rights={"attach":["somebody-else"]}'
refused 78 'rights' --disk "$work/policy.vhdx"
must "$umbra" image set "$work/policy.vhdx" 'rights={"attach":["somebody-else"]}' 'policy={"overridable":["rights"]}'
guest look 1 --disk "$work/large.vhdx" --disk "$work/other.raw,format=raw,readonly" --disk "$work/policy.vhdx" --override "a test"
grep -q '^DISK lun0 131072 0 4096' "$work/said" || bad "lun0 of large sectors: $(grep '^DISK lun0' "$work/said")"
grep -q '^DISK lun2 16384 0 ' "$work/said" || bad "lun2 whose policy was passed over: $(grep '^DISK lun2' "$work/said")"
"$umbra" image history "$work/policy.vhdx" | grep -q 'a test' || bad "the history does not say why a policy was passed over"

# killed at random: broker, machine process or disk process; what was synchronised is there for the next one, which is killed, too
must "$umbra" disk create "$work/marks.vhdx" --parent "$work/base.vhdx"
: >"$work/want"
is_there() { # WHERE: in what was said there are all marks
	[ "$(grep -cxFf "$work/want" "$1")" = "$(wc -l <"$work/want")" ] || { bad "what was synchronised is lost (before kill $n)"; grep -vxFf "$1" "$work/want"; }
}
for ((n = 1; n <= ${1:-3}; n++)); do
	: >"$work/marks"
	"$umbra" run --time-limit 600 --kernel build/guest/vmlinuz --initrd build/guest/disk.cpio.gz --append "console=ttyS0 quiet umbra.do=again,marks" --disk "$work/marks.vhdx" \
		</dev/null >"$work/marks" 2>/dev/null &
	broker=$!
	for _ in $(seq 6000); do [ "$(grep -c '^MARK' "$work/marks")" -ge $((n * 3)) ] && break; sleep 0.02; done
	sleep 0.0$((RANDOM % 100))
	children=$(pgrep -P $broker)
	kill -KILL $(echo $broker $children | cut -d' ' -f$((n % 3 + 1)))
	wait $broker 2>/dev/null
	for _ in $(seq 3000); do ps -o pid= -p "${children//$'\n'/,}" >/dev/null || break; sleep 0.02; done
	tr -d '\r' <"$work/marks" >"$work/said"
	[ "$n" = 1 ] || is_there "$work/said"
	sed -n 's/^MARK \([0-9a-f]*\)  .mnt\/\(m[0-9]*\)$/SUM \1  .\/\2/p' "$work/said" >"$work/new"
	[ "$(wc -l <"$work/new")" -ge $((n * 3)) ] || bad "only $(wc -l <"$work/new") marks before a kill"
	cat "$work/new" >>"$work/want"
done
guest again 1 --disk "$work/marks.vhdx"
is_there "$work/said"
must "$umbra" disk check "$work/marks.vhdx" --chain
rm "$work/marks.vhdx"

# a disk that brings its kernel: in a partition of its own, the newest of two, the root in another
mkdir -p "$work/boot" "$work/root/etc"
echo garbage >"$work/boot/vmlinuz-6.1.0-9"; cp build/guest/vmlinuz "$work/boot/vmlinuz-6.1.0-10"; cp build/guest/disk.cpio.gz "$work/boot/initrd.img-6.1.0-10"
echo garbage >"$work/boot/vmlinuz-0-rescue-123"; echo garbage >"$work/boot/initrd.img-6.1.0-9"
echo ID=umbra >"$work/root/etc/os-release"
truncate -s 64M "$work/p1" "$work/p2"; must /sbin/mke2fs -q -t ext4 -d "$work/boot" "$work/p1"; must /sbin/mke2fs -q -t ext4 -d "$work/root" "$work/p2"
truncate -s 130M "$work/parts.raw"; must /sbin/sgdisk -n 1:2048:133119 -n 2:133120:264191 "$work/parts.raw"
dd if="$work/p1" of="$work/parts.raw" bs=1M seek=1 conv=notrunc,sparse status=none; dd if="$work/p2" of="$work/parts.raw" bs=1M seek=65 conv=notrunc,sparse status=none
must "$umbra" disk convert "$work/parts.raw" "$work/parts.vhdx" --from raw
timeout -s KILL 305 "$umbra" run --time-limit 300 --append "console=ttyS0 quiet umbra.do=root umbra.disks=2" --disk "$work/other.raw,format=raw,readonly" "$work/parts.vhdx" </dev/null 2>&1 | tr -d '\r' >"$work/said"
grep -q '^ROOT ID=umbra 6.1' "$work/said" && grep -q '^DISK DONE' "$work/said" && ! grep '^BAD' "$work/said" || { bad "an image that boots itself"; tail -3 "$work/said"; }

# what is refused
boots() { # CODE TEXT ARGUMENT...
	local code=$1 text=$2 status=0; shift 2
	timeout -s KILL 300 "$umbra" run "$@" </dev/null >"$work/out" 2>"$work/err" || status=$?
	[ "$status" = "$code" ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q "$text" "$work/err" || { bad "$*: $status, not $code"; cat "$work/err"; }
}
boots 65 'no kernel' "$work/large.vhdx"
boots 65 'No such file' "$work/nothing.vhdx"
boots 64 'brings its kernel itself' --kernel build/guest/vmlinuz "$work/parts.vhdx"
boots 64 'unexpected argument' "$work/parts.vhdx" "$work/large.vhdx"
boots 64 'brings these itself' --restore "$work/nothing" "$work/parts.vhdx"
echo garbage >"$work/boot/vmlinuz-6.1.0-11"; rm -f "$work/p1"; truncate -s 64M "$work/p1"; must /sbin/mke2fs -q -t ext4 -d "$work/boot" "$work/p1"
dd if="$work/p1" of="$work/parts.raw" bs=1M seek=1 conv=notrunc,sparse status=none
boots 65 'not a Linux bzImage' "$work/parts.raw,format=raw"
refused 65 'No such file' --disk "$work/nothing.vhdx"
refused 65 'in use' --disk "$work/flat.raw,format=raw" --disk "$work/flat.raw,format=raw"
refused 65 '' --disk "$work/flat.raw"
refused 64 'not an option of --disk' --disk "$work/flat.raw,fast"
refused 64 'not a format' --disk "$work/flat.raw,format=vdi"
refused 64 'no file' --disk ,readonly
refused 64 'need the features' --disk "$work/flat.raw,format=raw" --hv none
must "$umbra" disk freeze "$work/top.vhdx" --reason "released"
refused 65 'released' --disk "$work/top.vhdx"
: >"$work/marks"
"$umbra" run --name "disk-$$" --time-limit 600 --kernel build/guest/vmlinuz --initrd build/guest/disk.cpio.gz --append "console=ttyS0 quiet umbra.do=marks" \
	--disk "$work/flat.raw,format=raw" </dev/null >"$work/marks" 2>/dev/null &
for _ in $(seq 6000); do grep -q '^MARK' "$work/marks" && break; sleep 0.02; done
"$umbra" save "disk-$$" "$work/saved" 2>"$work/err" && bad "a machine that writes a raw disk was saved"
grep -q 'flat.raw: a disk that is written has to be VHDX' "$work/err" || bad "what save says: $(cat "$work/err")"
"$umbra" info --json "disk-$$" >"$work/info"
must "$umbra" stop "disk-$$"
tr -d '\r' <"$work/marks" | grep -q '^STOPPED' || bad "the guest was not asked to power off"
wait %1 || bad "stopped, it ended with $?"
# who stops a whole group of processes stops it in order, too
: >"$work/marks"
setsid "$umbra" run --time-limit 600 --kernel build/guest/vmlinuz --initrd build/guest/disk.cpio.gz --append "console=ttyS0 quiet umbra.do=marks" \
	--disk "$work/flat.raw,format=raw" </dev/null >"$work/marks" 2>"$work/err" &
for _ in $(seq 6000); do grep -q '^MARK' "$work/marks" && break; sleep 0.02; done
kill -TERM -- -$!
wait $! || bad "its group stopped, it ended with $?: $(cat "$work/err")"
tr -d '\r' <"$work/marks" | grep -q '^STOPPED' || bad "a guest whose group was stopped was not asked to power off"
/sbin/e2fsck -fn "$work/flat.raw" >"$work/out" 2>&1 && ! grep -q 'recovering journal' "$work/out" || bad "the guest's file system was not unmounted"
exit $failed
