#!/bin/bash
# Linux boots and works on every model and on masked hosts, sees what it is told, and complains of no register: models.sh [ROW]. The same boots have
# every pair of enlightenments on and off (features.sh).
# $KERNEL is another kernel than the tests' own, which gets all enlightenments, and $LOGS where what it prints is left (tests/foreign/kernels.sh).
set -eu
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guest=$(dirname "$umbra")/guest
kernel=${KERNEL:-build/guest/vmlinuz} logs=${LOGS:-$guest}
mkdir -p "$guest" "$logs"
haswell=-sha_ni,-adx,-rdseed,-clflushopt,-xsavec,-xgetbv1
failed=0 rows=0
. tests/boot/enlightenments.sh
sets=()
[ -n "${KERNEL:-}" ] || mapfile -t sets < <(pairs)

# row NAME CPUS FLAGS OPTION...: FLAGS are names, by commas, that /proc/cpuinfo must have, or with '-' must not have
row() {
	name=$1 cpus=$2 flags=$3
	shift 3
	hv=${sets[rows]:-default}
	rows=$((rows + 1))
	[ -z "${only:-}" ] || [ "$only" = "$name" ] || return 0
	log=$logs/models-$name.log
	status=0
	timeout -s KILL 305 "$umbra" run --time-limit 300 --kernel "$kernel" --initrd build/guest/work.cpio.gz --memory 512M --cpus "$cpus" --hv "$hv" "$@" \
		--append "console=ttyS0 loglevel=8" </dev/null >"$log" 2>&1 || status=$?
	bad=
	[ "$status" = 0 ] && grep -q "^WORK DONE" "$log" && grep -q "^THIRTYTWO 3257f041" "$log" || bad="ended with $status"
	! grep -qE 'unchecked MSR|WARNING: CPU|BUG:|Oops|traps: ' "$log" || bad="complains: $(grep -m1 -E 'unchecked MSR|WARNING: CPU|BUG:|Oops|traps: ' "$log")"
	seen=$(sed -n 's/^flags.*: //p' "$log" | head -1 | tr -d '\r')
	for flag in $(echo "$flags" | tr , ' '); do
		case $flag in
		-*) case " $seen " in *" ${flag#-} "*) bad="shows ${flag#-}" ;; esac ;;
		*) case " $seen " in *" $flag "*) ;; *) bad="does not show $flag" ;; esac ;;
		esac
	done
	[ -z "$bad" ] || { echo "models: $name with $hv: $bad; see $log"; failed=1; }
}

only=${1:-}
row amd 1 aes,avx2,fsrm,erms,pcid,-sha_ni,-xsavec --cpu-model umbra-amd-v1
row amd-4 4 aes,avx2,x2apic,topoext --cpu-model umbra-amd
row intel 2 aes,avx2,fsrm,erms,arch_capabilities,-pti --cpu-model umbra-intel-v1
row amd-guest 2 aes --mitigations guest
row intel-guest 1 pti --cpu-model umbra-intel --mitigations guest
row amd-off 1 aes --mitigations off
row intel-off 1 -pti,arch_capabilities --cpu-model umbra-intel --mitigations off
row amd-slow-strings 1 -erms,-fsrm --cpu-model default,-fsrm,-erms
row intel-slow-strings 1 -erms,-fsrm --cpu-model umbra-intel,-fsrm,-erms
row intel-no-avx 1 xsave,-avx,-avx2 --cpu-model umbra-intel,-avx2,-fma,-f16c,-avx
row amd-no-xsave 1 -xsave,-avx --cpu-model umbra-amd,-avx2,-fma,-f16c,-avx,-xsaveopt,-xsave
row host 2 avx2 --cpu-model host
row host-haswell 2 -sha_ni,-adx,-rdseed,-clflushopt,-xsavec --cpu-model host --host-mask=$haswell
row amd-haswell 1 aes,-sha_ni --host-mask=$haswell
row amd-no-aes 1 -aes,-pclmulqdq,-rdrand --cpu-model default,-aes,-pclmulqdq,-rdrand --host-mask=-aes,-pclmulqdq,-rdrand,$haswell
row amd-short 2 -pcid,-invpcid,-x2apic,-tsc_deadline_timer,-umip,-fsgsbase --cpu-model umbra-amd,-pcid,-invpcid,-x2apic,-tsc_deadline_timer,-umip,-fsgsbase
exit $failed
