#!/bin/bash
# saved.sh CPUS SAVES [SEED]: a guest is saved at random moments and goes on; each file goes on as well, once it is saved again meanwhile,
# and twice; each second file is packed. Everywhere every check is good; requests are cancelled where a machine was restored, and nowhere else.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra} cpus=$1 saves=$2
guest=$(dirname "$umbra")/tests/guest/guest-saved
RANDOM=${3:-1}
where=$(mktemp -d -p build); trap 'rm -rf "$where"' EXIT
name=saved-$$
looks=$(grep -ao -m 1 check_written "$umbra" | head -n 1) # a build with checks looks at every page
cancelled=0
fail() { echo "saved: $*"; for l in "$where"/*.log; do echo "$l:"; grep -v ^ok "$l" | tail -n 5; done; exit 1; }
held() { # its machine process's own memory, in KiB: of the child of the broker that has most
	sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' $(sed 's@[0-9][0-9]*@/proc/&/status@g' "/proc/$1/task/$1/children") 2>/dev/null | sort -n | tail -n 1
}
good() { # LOG STATUS
	[ "$2" = 1 ] && tail -n 1 "$1" | grep -q '^1\.\.[1-9]' && ! grep -q '^not ok' "$1" || fail "$1 ended with $2"
}
cancels() { echo $(($(sed -n 's/^CANCELLED //p' "$1"))); }
pause() { sleep "0.$(printf %03d $((RANDOM % 400)))"; }
go_on() { # FILE LOG: for a while
	{ sleep 0.5; echo; } | timeout -s KILL 100 "$umbra" run --restore "$1" >"$2" 2>&1
}
mkfifo "$where/keys"; exec 3<>"$where/keys"
round() {
	rm -f "$where"/*.saved "$where"/*.log
	timeout -s KILL 100 "$umbra" run --name "$name" --kernel "$guest" --cpus "$cpus" --memory 256M --debug-exit 0xf4 <&3 >"$where/parent.log" 2>&1 &
	for ((k = 0; k < 6000; k++)); do grep -q READY "$where/parent.log" && break; sleep 0.01; done
	broker=$("$umbra" info --json "$name" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p') before=$(held "$broker")
	for ((n = 0; n < saves; n++)); do
		pause
		packed=; ((n % 2)) && packed=--compress
		"$umbra" save $packed "$name" "$where/$n.saved" || fail "save $n"
	done
	after=$(held "$broker")
	# pages that nobody has written are zeros without being looked at, which would give the machine all of its memory
	[ -n "$looks" ] || [ "$after" -lt $((before + 65536)) ] || fail "its memory was $before KiB before it was saved, and $after afterwards"
	echo >&3
	wait %1
	good "$where/parent.log" $?
	[ "$(cancels "$where/parent.log")" = 0 ] || fail "the machine that was saved has lost requests"
	for ((n = 0; n < saves; n++)); do
		go_on "$where/$n.saved" "$where/child-$n.log"
		good "$where/child-$n.log" $?
		cancelled=$((cancelled + $(cancels "$where/child-$n.log")))
	done
}
# by chance no request may be under way at any of the moments
for ((r = 0; r < 10 && cancelled == 0; r++)); do round; done
[ $cancelled -gt 0 ] || fail "no request was under way in any of $((10 * saves)) machines"
# a child of a child, from a file that is used a second time
timeout -s KILL 100 "$umbra" run --name "$name-child" --restore "$where/0.saved" <&3 >"$where/again.log" 2>&1 &
for ((k = 0; k < 6000; k++)); do "$umbra" info "$name-child" >/dev/null 2>&1 && break; sleep 0.01; done
broker=$("$umbra" info --json "$name-child" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p') before=$(held "$broker")
"$umbra" save "$name-child" "$where/first.saved" || fail "save of a restored machine that goes on"
after=$(held "$broker")
[ -n "$looks" ] || [ "$after" -lt $((before + 131072)) ] || fail "a restored machine's memory was $before KiB before it was saved, and $after afterwards"
"$umbra" save --stop "$name-child" "$where/child.saved" || fail "save of a restored machine"
wait %1 && status=0 || status=$?
[ $status = 0 ] || fail "a machine that was stopped by its save ended with $status"
go_on "$where/child.saved" "$where/grandchild.log"
good "$where/grandchild.log" $?
# a key that is pressed while the file is still being read is not lost
echo | timeout -s KILL 60 "$umbra" run --restore "$where/child.saved" >"$where/early.log" 2>&1
good "$where/early.log" $?
