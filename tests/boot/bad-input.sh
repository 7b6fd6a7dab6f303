#!/bin/sh
# What cannot be run is refused in one line with the right code, and leaves nothing behind.
set -u
cd "$(dirname "$0")/../.."
t=$(mktemp -d); trap 'rm -rf "$t"' EXIT
umbra=${UMBRA:-build/umbra}
tools/fetch-guest
failed=0
refused() { # CODE ARGUMENTS...
	code=$1; shift
	timeout -s KILL 20 "$umbra" "$@" </dev/null >"$t/out" 2>"$t/err"; got=$?
	lines=$(wc -l <"$t/err")
	[ "$got" = "$code" ] && [ "$lines" = 1 ] || { echo "bad-input: umbra $* ended with $got and $lines lines"; cat "$t/err"; failed=1; }
}
k=build/guest/vmlinuz
head -c 100000 /dev/urandom >"$t/noise"
head -c 200000 $k >"$t/short"
cp $k "$t/lie"; printf '\377\377\377\377\377\377\377\377' | dd of="$t/lie" bs=1 seek=600 conv=notrunc 2>/dev/null
refused 65 run --kernel "$t/absent"
refused 65 run --kernel "$(printf '/\033]0;title\007\233\n2J')" # a name that would act on a terminal
LC_ALL=C grep -q '[^ -~]' "$t/err" && { echo "bad-input: what is refused acts on a terminal"; failed=1; }
refused 65 run --kernel "$t/noise"
refused 65 run --kernel "$t/short"
refused 65 run --kernel "$t/lie"
refused 65 run --kernel $k --initrd "$t/absent"
refused 65 run --kernel $k --memory 64M
refused 64 run
refused 64 run --kernel $k --memory 1T
refused 64 run --kernel $k --memory lots
refused 64 run --kernel $k --cpus 17
refused 64 run --kernel $k --cpus 0
refused 64 run --kernel $k --append "$(head -c 5000 /dev/zero | tr '\0' x)"
refused 64 run --kernel $k --console "$t/absent/file"
exit $failed
