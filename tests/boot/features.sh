#!/bin/bash
# features.sh [all]: the kernel boots with the enlightenments that it knows switched on and off: none, all, each alone missing; with "all", every
# combination of those that change what the kernel does. models.sh has the pairs of them. Each of the kernel's options is seen with one processor
# and with four.
set -u
cd "$(dirname "$0")/../.."
. tests/boot/enlightenments.sh
options=("nosmap nopti" "pti=on" "nopcid noxsave" "nokaslr")
failed=0 runs=0
boot() { # CPUS HV
	tests/boot/boot.sh "features-$runs" 512M "${options[runs % ${#options[@]}]}" 0 "$1" "$2" || { echo "features: $1 processors, ${options[runs % ${#options[@]}]}, $2"; failed=1; }
	runs=$((runs + 1))
}
for hv in none none,+base default,-stimer default,-frequencies; do boot 1 $hv; done
for hv in all default,-flush default,-ipi default,-synic default,-ref-tsc; do boot 4 $hv; done
if [ "${1:-}" = all ]; then
	for ((bits = 0; bits < 1 << ${#known[@]}; bits++)); do boot $((bits % 2 ? 2 : 1)) "$(list $bits)"; done
fi
echo "features: $runs combinations"
exit $failed
