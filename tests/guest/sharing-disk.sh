#!/bin/bash
# sharing-disk.sh: one machine serves a disk to another. Its user waits until the rules allow it and somebody serves; the hub is killed in between,
# and the server closes its channel with answers on their way; each request is done once.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guest=$(dirname "$umbra")/tests/guest/guest-share-disk
where=$(mktemp -d)
export XDG_RUNTIME_DIR=$where XDG_CONFIG_HOME=$where/config
mkdir -p "$where/config/umbra"
rules=$where/config/umbra/share.rules
pids=
trap 'kill $pids 2>/dev/null; wait; rm -rf "$where"' EXIT
fail() { echo "sharing-disk: $*"; cat "$rules"; "$umbra" bus; for l in "$where"/*.log; do echo "$l:"; grep -v '^ok' "$l" | tail -n 8; done; exit 1; }
wait_for() { for ((k = 0; k < 1000; k++)); do "$umbra" bus | grep -q "$2" && return; sleep 0.02; done; fail "$1"; }
run() { timeout -s KILL 250 "$umbra" run --name "$1" --kernel "$guest" --memory 64M --debug-exit 0xf4 --statistics "$2" "$3" </dev/null >"$where/$1.log" 2>&1 & pids="$pids $!"; }

printf 'allow store offer,pass store/*\nallow web see,open,pass store/shelf class disk\n' >"$rules"
run web --bind store/shelf=disk
wait_for "who uses it is there alone" 'web binds store/shelf (disk): alone'
run store --serve shelf=disk
wait_for "its pages may not be lent" 'denied: web may not lend store/shelf: no rule allows it'
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf class disk requests 40\n' >"$rules.new"; mv "$rules.new" "$rules"
wait_for "what the rules allow" 'allowed: web may lend store/shelf'
hub() { "$umbra" bus --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'; }
moved() { "$umbra" bus --json | python3 -c 'import json, sys; print(sum(p["packets"] for p in json.load(sys.stdin)["ports"]))' || echo 0; }
for n in 1 2; do
	for ((k = 0; k < 1000; k++)); do [ "$(moved)" -gt 10 ] && break; sleep 0.02; done
	killed=$(hub); kill -KILL "$killed"
	wait_for "another hub" 'store serves store/shelf (disk): open with web'
	[ "$(hub)" != "$killed" ] || fail "the same hub"
done
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf\n' >"$rules.new"; mv "$rules.new" "$rules"
for pid in $pids; do wait "$pid"; done
pids=
for m in store web; do grep -q '^1\.\.[1-9]' "$where/$m.log" && ! grep -q '^not ok' "$where/$m.log" || fail "$m"; done
grep -q "^served disk 0: .* [2-9] hubs, 0 failed" "$where/web.log" || fail "hubs"
grep -q "^served disk 0: \([0-9]*\) requests, \1 answered, " "$where/web.log" || fail "not each request was answered"
