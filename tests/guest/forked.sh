#!/bin/bash
# forked.sh CPUS FORKS [SEED]: a guest is forked at random moments, and so are its children, while everything that a guest can have under
# way is. All go on, and every check is good in all of them; no request is lost or cancelled by a fork; no process is left.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra} cpus=$1 forks=$2
guest=$(dirname "$umbra")/tests/guest/guest-forked
RANDOM=${3:-1}
where=$(mktemp -d); trap 'rm -rf "$where"' EXIT
export XDG_RUNTIME_DIR=$where
name=forked
fail() { echo "forked: $*"; for l in "$where"/*.log; do echo "$l:"; grep -v ^ok "$l" | tail -n 5; done; "$umbra" ps | tail -n +2 | while read -r n _; do "$umbra" kill "$n"; done; exit 1; }
pause() { sleep "0.$(printf %03d $((RANDOM % 200)))"; }
# it goes on until all forks are made, however slow the host is
mkfifo "$where/keys"; exec 3<>"$where/keys"
{ while sleep 0.05; do echo >&3; done; } & goes_on=$!
trap 'kill $goes_on 2>/dev/null; rm -rf "$where"' EXIT
timeout -s KILL 240 "$umbra" run --name $name --kernel "$guest" --cpus "$cpus" --memory 256M --debug-exit 0xf4 <&3 >"$where/$name.log" 2>&1 &
for ((k = 0; k < 6000; k++)); do grep -qs READY "$where/$name.log" && break; sleep 0.01; done
# a child that has done all it does, on a host that is slow, is forked no more
has_ended() { ! "$umbra" ps | grep -q "^$1 "; }
all=1
for ((n = 0; n < forks; n++)); do
	pause
	"$umbra" fork $name --name "child$n" -n 2 --console "$where/child$n.log" >/dev/null || fail "fork $n"
	all=$((all + 2))
	pause
	if ! "$umbra" fork "child$n-1" --name "grandchild$n" --console "$where/grandchild$n.log" >/dev/null; then
		has_ended "child$n-1" || fail "fork $n of a child"
		rm -f "$where/grandchild$n.log"
		continue
	fi
	all=$((all + 1))
done
kill $goes_on
wait
for ((k = 0; k < 12000; k++)); do [ "$(cat "$where"/*.log* | grep -ac '^1\.\.[1-9]')" = $all ] && break; sleep 0.01; done
for l in "$where"/*.log*; do
	grep -q '^1\.\.[1-9]' "$l" && ! grep -q '^not ok' "$l" && grep -q '^CANCELLED 0x0$' "$l" || fail "$l"
done
[ "$(ls "$where"/*.log* | wc -l)" = $all ] || fail "not $all machines"
for ((k = 0; k < 300; k++)); do [ "$("$umbra" ps | wc -l)" = 1 ] && break; sleep 0.01; done
[ "$("$umbra" ps | wc -l)" = 1 ] || fail "some are left"
