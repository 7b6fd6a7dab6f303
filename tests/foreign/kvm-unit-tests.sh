#!/bin/bash
# kvm-unit-tests.sh DIRECTORY [CONFIGURATION...]: runs kvm-unit-tests, built from their public source in DIRECTORY/x86_64 and
# DIRECTORY/i386 (configure --arch=..., make), and prints pass, fail, skip or hang for each configuration of x86/unittests.cfg that
# needs neither VMX, SVM nor a PMU. Logs are left in build/kvm-unit-tests. docs/kvm-unit-tests.md says what is expected.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
[ $# -ge 1 ] || { echo "usage: $0 DIRECTORY [CONFIGURATION...]" >&2; exit 64; }
directory=$1
shift
logs=build/kvm-unit-tests
most=+tsc_adjust,+mce,+mca # `max` to the suite: what a model can have and the default does not
mkdir -p "$logs"
declare -A count=([pass]=0 [fail]=0 [skip]=0 [hang]=0)

run_configuration()
{
	local name=$1 file=$2 arch=$3 cpus=$4 arguments=$5 seconds=$6 model=$7 status=0 result memory=512 options=()

	[ "$name" ] || return
	case $file in vmx.flat | svm*.flat | pmu*.flat) return ;; esac
	if [ ${#wanted[@]} -gt 0 ]; then
		[[ " ${wanted[*]} " == *" $name "* ]] || return
	fi
	[[ $model =~ -m\ ([0-9]+) ]] && memory=${BASH_REMATCH[1]}
	printf 'NR_CPUS=%d\nMEMSIZE=%d\nTEST_DEVICE=0\n' "$cpus" "$memory" >"$logs/environment" # fw_cfg's; 0: hypercalls are not KVM's
	case $model in
	*max*GenuineIntel*) options=(--cpu-model "umbra-intel,$most") ;;
	*GenuineIntel*) options=(--cpu-model umbra-intel,+mce,+mca) ;;
	*-pcid,-invpcid*) options=(--cpu-model default,-pcid,-invpcid) ;;
	*-pcid*) options=(--cpu-model default,-pcid) ;;
	*-x2apic*) options=(--cpu-model default,-x2apic) ;;
	*max*) options=(--cpu-model "default,$most") ;;
	esac
	arguments=${arguments//\`date +%s\`/$(date +%s)}
	timeout -s KILL "$seconds" "$umbra" run --kernel "$directory/$arch/x86/$file" --append "$file $arguments" --cpus "$cpus" \
		--debug-exit 0xf4 --test-device "${options[@]}" --memory "${memory}M" --initrd "$logs/environment" </dev/null >"$logs/$name.log" 2>&1 || status=$?
	case $status in
	1) result=pass ;;
	77) result=skip ;; # its exit() shifts it
	137) result=hang ;;
	*) result=fail ;;
	esac
	count[$result]=$((count[$result] + 1))
	printf '%-4s %s%s\n' "$result" "$name" "$([ $result = fail ] && echo " ($status)")"
}

wanted=("$@")
name='' file='' arch='' cpus=1 arguments='' seconds=90 model=''
while IFS= read -r line; do
	value=${line#*= }
	case $line in
	'['*']')
		run_configuration "$name" "$file" "${arch:-x86_64}" "$cpus" "$arguments" "$seconds" "$model"
		name=${line#[} name=${name%]} file='' arch='' cpus=1 arguments='' seconds=90 model=''
		;;
	'file = '*) file=${value%% *} ;;
	'arch = '*) arch=$value ;;
	'smp = '*) cpus=$value ;;
	'test_args = '*) arguments=${value//[\"\']/} ;;
	'timeout = '*) [ "$value" -gt 90 ] && seconds=$value ;;
	'qemu_params = '*) model=$value ;;
	esac
done <"$directory/x86_64/x86/unittests.cfg"
run_configuration "$name" "$file" "${arch:-x86_64}" "$cpus" "$arguments" "$seconds" "$model"
echo "${count[pass]} pass, ${count[fail]} fail, ${count[hang]} hang, ${count[skip]} skip"
