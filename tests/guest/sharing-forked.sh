#!/bin/bash
# sharing-forked.sh: who uses a channel, or a disk, that another machine serves is forked meanwhile. It goes on as if nothing had been, and each
# request is done once; in what was forked each that was under way is answered, as failed, and nobody is there.
set -u
test=sharing-forked guest=guest-share
. "$(dirname "$0")/sharing-machines.sh"

# fork_web: once something moves; and until what was forked has ended
fork_web() {
	wait_until_moved 60 # more than passes before the rate holds
	"$umbra" fork web --name twin --console "$where/twin.log" >/dev/null || fail "the fork"
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
