#!/bin/bash
# sharing-saved.sh: a machine with a port is saved while it uses a channel, or a disk, that another machine serves, and goes on from the file. At a port of
# its own it goes on with its disk, each request done once, whatever was under way; its channel has whoever serves there then. Without one what was under
# way is answered, as failed, and nobody is there. What was saved and goes on does so as if nothing had been.
set -u
test=sharing-saved guest=guest-share-disk
. "$(dirname "$0")/sharing-machines.sh"
slowly() { printf 'allow store offer,pass store/*\nallow web see,open,lend store/*\nallow web pass store/* requests %s\n' "$1" >"$rules.new"; mv "$rules.new" "$rules"; }
at_once() { printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/*\n' >"$rules.new"; mv "$rules.new" "$rules"; }
# restore NAME FILE [OPTION VALUE]
restore() { timeout -s KILL 250 "$umbra" run --name "$1" --restore "$where/$2" --statistics "${@:3}" </dev/null >>"$where/$1.log" 2>&1 & pids="$pids $!"; }
# wait_for_end PID
wait_for_end() { wait "$1"; pids=${pids/ $1/}; }
good() { for m in "$@"; do grep -q '^1\.\.[1-9]' "$where/$m.log" && ! grep -q '^not ok' "$where/$m.log" || fail "$m"; done; }
use_guest() { guest=$(dirname "$umbra")/tests/guest/guest-$1; }

# a disk, whose user is saved again and again, and goes on at its port
slowly 20
run web --bind store/shelf=disk
web=$!
run store --serve shelf=disk
for n in 1 2 3; do
	wait_until_moved $(($(moved) + 30))
	"$umbra" save --replace --stop web "$where/web.saved" || fail "save"
	wait_for_end $web
	"$umbra" run --name web --restore "$where/web.saved" --bind store/shelf </dev/null >"$where/other.log" 2>&1 && fail "another class of port"
	"$umbra" run --name web --restore "$where/web.saved" --serve shelf=disk </dev/null >"$where/other.log" 2>&1 && fail "the other end of a port"
	restore web web.saved --bind store/shelf=disk
	web=$!
	wait_for "it joins anew" 'web binds store/shelf (disk): open with store'
done
# and one that goes on, beside what is restored of it without a port
wait_until_moved $(($(moved) + 30))
"$umbra" save --replace web "$where/web.saved" || fail "save of one that goes on"
restore twin web.saved
twin=$!
wait_until_moved $(($(moved) + 10))
at_once
wait_for_end $twin
good twin
wait_for_all
good store web twin
wait_until_gone
rm -f "$where"/*.log

# packets
slowly 10
use_guest share
run store --serve shelf
store=$!
use_guest share-forked
run web --bind store/shelf
web=$!
wait_until_moved 60
"$umbra" save web "$where/packets.saved" || fail "save of a channel"
restore twin packets.saved
wait_for_end $!
good twin
"$umbra" save --stop --replace web "$where/packets.saved" || fail "save of a channel that ends"
wait_for_end $web
wait_for_end $store
at_once
use_guest share
run store --serve shelf
restore web packets.saved --bind store/shelf
wait_for_all
good web
