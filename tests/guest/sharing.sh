#!/bin/bash
# sharing.sh: two machines with a channel between them. Nothing passes before the rules allow it, which are read anew while the machines run; the
# hub is killed in between, and each packet comes once; pages are lent, and come back.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guest=$(dirname "$umbra")/tests/guest/guest-share
where=$(mktemp -d)
export XDG_RUNTIME_DIR=$where XDG_CONFIG_HOME=$where/config
mkdir -p "$where/config/umbra"
rules=$where/config/umbra/share.rules
pids=
trap 'kill $pids 2>/dev/null; wait; rm -rf "$where"' EXIT
fail() { echo "sharing: $*"; cat "$rules"; "$umbra" bus; for l in "$where"/*.log; do echo "$l:"; grep -v '^ok' "$l" | tail -n 5; done; exit 1; }
# wait_for WHAT PATTERN: until umbra bus says so
wait_for() { for ((k = 0; k < 3000; k++)); do "$umbra" bus | grep -q "$2" && return; sleep 0.02; done; fail "$1"; }
run() { timeout -s KILL 250 "$umbra" run --name "$1" --kernel "$guest" --memory 64M --debug-exit 0xf4 --statistics "$2" "$3" </dev/null >"$where/$1.log" 2>&1 & pids="$pids $!"; }

echo '# nothing yet' >"$rules"
run store --serve shelf
run web --bind store/shelf
wait_for "nothing is allowed" 'denied: web may not see store/shelf: no rule allows it'
wait_for "not joined without a rule" 'store serves store/shelf (packet): alone'
printf 'allow store offer,pass shelf\n' >"$rules.new"; mv "$rules.new" "$rules"
wait_for "another name" 'denied: store may not offer store/shelf'
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf class packet requests 10\n' >"$rules.new"; mv "$rules.new" "$rules"
wait_for "what the rules allow" 'store serves store/shelf (packet): open with web'
hub() { "$umbra" bus --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'; }
moved() { "$umbra" bus --json | python3 -c 'import json, sys; print(sum(p["packets"] for p in json.load(sys.stdin)["ports"]))'; }
for n in 1 2; do
	for ((k = 0; k < 3000; k++)); do [ "$(moved)" -gt 5 ] && break; sleep 0.02; done
	killed=$(hub); kill -KILL "$killed"
	wait_for "another hub" 'store serves store/shelf (packet): open with web'
	[ "$(hub)" != "$killed" ] || fail "the same hub"
done
# so slow that both were still at it; now the rest, as fast as it goes
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf\n' >"$rules.new"; mv "$rules.new" "$rules"
for pid in $pids; do wait "$pid"; done
pids=
for m in store web; do grep -q '^1\.\.[1-9]' "$where/$m.log" && ! grep -q '^not ok' "$where/$m.log" || fail "$m"; grep -q "^share 0: .* [2-9] hubs, 0 failed" "$where/$m.log" || fail "$m: one hub"; done
grep -q "^share 0: .* 11 pages lent, 11 ended" "$where/web.log" || fail "not all pages came back"
