#!/bin/bash
# sharing-forked.sh: who uses a channel, or a disk, that another machine serves is forked meanwhile. It goes on as if nothing had been, and each
# request is done once; in what was forked each that was under way is answered, as failed, and nobody is there. What is forked with a port of its own has
# whoever serves there.
set -u
test=sharing-forked guest=guest-share
. "$(dirname "$0")/sharing-machines.sh"

# fork_web [OPTION VALUE]: once something moves; and until what was forked has ended
fork_web() {
	wait_until_moved 60 # more than passes before the rate holds
	"$umbra" fork web --name twin --console "$where/twin.log" "$@" >/dev/null || fail "the fork"
	for ((k = 0; k < 6000; k++)); do grep -qs '^1\.\.[1-9]' "$where/twin.log" && break; sleep 0.02; done
}
# check_all: of all three
check_all() {
	wait_for_all
	for m in store web twin; do grep -q '^1\.\.[1-9]' "$where/$m.log" && ! grep -q '^not ok' "$where/$m.log" || fail "$1: $m"; done
	"$umbra" kill twin 2>/dev/null
	rm -f "$where/twin.log"
}

# one machine with two ports
printf 'allow both offer,see,open */*\n' >"$rules"
guest=$(dirname "$umbra")/tests/guest/guest-resting
run both --serve one --bind store/shelf
wait_for "the port that serves" 'both serves both/one (packet): alone'
wait_for "and the other" 'both binds store/shelf (packet): alone'
"$umbra" kill both
wait_for_all
guest=$(dirname "$umbra")/tests/guest/guest-share
printf 'allow store offer,pass store/*\nallow web see,open,lend store/*\nallow web pass store/* requests 10\n' >"$rules.new"; mv "$rules.new" "$rules"
run store --serve shelf
guest=$(dirname "$umbra")/tests/guest/guest-share-forked
run web --bind store/shelf
fork_web
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/*\n' >"$rules.new"; mv "$rules.new" "$rules"
check_all packets
wait_until_gone
printf 'allow store offer,pass store/*\nallow web see,open,lend store/*\nallow web pass store/* requests 10\n' >"$rules.new"; mv "$rules.new" "$rules"
guest=$(dirname "$umbra")/tests/guest/guest-share-disk
run web --bind store/shelf=disk
run store --serve shelf=disk
fork_web
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/*\n' >"$rules.new"; mv "$rules.new" "$rules"
check_all disk
grep -q "^served disk 0: \([0-9]*\) requests, \1 answered, " "$where/web.log" || fail "not each request was answered"
wait_until_gone

# a child that has a port: run_told is run, whose guest finds something at its serial port, and so do its children
run_told() { timeout -s KILL 250 "$umbra" run --name "$1" --kernel "$guest" --memory 64M --debug-exit 0xf4 "${@:2}" <<<told >"$where/$1.log" 2>&1 & pids="$pids $!"; }
# fork_joined CLASS GUEST...: who serves, and who uses
fork_joined() {
	printf 'allow * offer,see,open,lend */*\nallow twin pass */*\nallow second pass */*\nallow * pass */* requests 10\n' >"$rules.new"; mv "$rules.new" "$rules"
	guest=$(dirname "$umbra")/tests/guest/guest-$2
	run store --serve "shelf=$1"
	run second --serve "shelf=$1"
	guest=$(dirname "$umbra")/tests/guest/guest-$3
	run_told web --bind "store/shelf=$1"
	"$umbra" fork web --name twin --serve shelf >/dev/null 2>&1 && fail "$1: another end of a port"
	fork_web --bind "second/shelf=$1"
	grep -q '^1\.\.[1-9]' "$where/twin.log" && ! grep -q '^not ok' "$where/twin.log" || fail "$1 of a child that is joined"
	for m in web twin second store; do "$umbra" kill $m 2>/dev/null; done
	wait_for_all
	rm -f "$where/twin.log"
	wait_until_gone
}
fork_joined disk share-disk share-disk
grep -q . "$where/web.log" || fail "nothing was said"
fork_joined packet share share-forked
