# Sourced: two machines that share, with the rules, the hub and the names of this test alone. $guest: what both run; $test: what it is called.
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
guest=$(dirname "$umbra")/tests/guest/$guest
where=$(mktemp -d)
export XDG_RUNTIME_DIR=$where XDG_CONFIG_HOME=$where/config
mkdir -p "$where/config/umbra"
rules=$where/config/umbra/share.rules
pids=
trap 'kill $pids 2>/dev/null; wait; rm -rf "$where"' EXIT
fail() { echo "$test: $*"; cat "$rules"; "$umbra" bus; for l in "$where"/*.log; do echo "$l:"; grep -v '^ok' "$l" | tail -n 40; done; exit 1; }
# wait_for WHAT PATTERN: until umbra bus says so
wait_for() { for ((k = 0; k < 3000; k++)); do "$umbra" bus | grep -q "$2" && return; sleep 0.02; done; fail "$1"; }
# run NAME OPTION VALUE
run() { timeout -s KILL 250 "$umbra" run --name "$1" --kernel "$guest" --memory 64M --debug-exit 0xf4 --statistics "${@:2}" </dev/null >"$where/$1.log" 2>&1 & pids="$pids $!"; }
hub() { "$umbra" bus --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])'; }
moved() { "$umbra" bus --json | python3 -c 'import json, sys; print(sum(p["packets"] for p in json.load(sys.stdin)["ports"]))' || echo 0; }
# wait_until_gone: until the hub has heard of the ends of all machines that were run before
wait_until_gone() { for ((k = 0; k < 3000; k++)); do [ "$(moved)" = 0 ] && return; sleep 0.02; done; fail "ports of machines that have ended"; }
pids_live() { for pid in $pids; do kill -0 "$pid" 2>/dev/null || return 1; done; }
# wait_until_moved PACKETS: more than so many, or a machine that has done all
wait_until_moved() { for ((k = 0; k < 3000; k++)); do { [ "$(moved)" -gt "$1" ] || ! pids_live; } && return; sleep 0.02; done; fail "nothing moves"; }
# lose_hub PATTERN: it is killed, and another one serves as umbra bus says then
lose_hub() { local killed; killed=$(hub); kill -KILL "$killed"; wait_for "another hub" "$1"; [ "$(hub)" != "$killed" ] || fail "the same hub"; }
joints() { "$umbra" bus --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["joints"])'; }
# lose_joiner PID: that of a machine which was run as PID; packets go on to pass, and nobody was parted from anybody
lose_joiner() {
	local before joiner
	before=$(joints)
	joiner=$(pgrep -P "$(pgrep -P "$1")" -f role=joiner) || fail "no joiner"
	kill -KILL "$joiner"
	wait_until_moved $(($(moved) + 3))
	[ "$(joints)" = "$before" ] || fail "who has lost its joiner was parted"
}
# by itself, each: a signal that ends one stands in its status, be it an assertion's, a sanitizer's or that of the list of calls
wait_for_all() { for pid in $pids; do wait "$pid"; [ $? -lt 128 ] || fail "a machine was ended by a signal"; done; pids=; }
