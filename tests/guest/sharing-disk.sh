#!/bin/bash
# sharing-disk.sh: one machine serves a disk to another. Its user waits until the rules allow it and somebody serves; the hub is killed in between,
# the rule is taken away under way and comes back, and the server closes its channel with answers on their way; each request is done once.
set -u
test=sharing-disk guest=guest-share-disk
. "$(dirname "$0")/sharing-machines.sh"

printf 'allow store offer,pass store/*\nallow web see,open,pass store/shelf class disk\n' >"$rules"
run web --bind store/shelf=disk
wait_for "who uses it is there alone" 'web binds store/shelf (disk): alone'
run store --serve shelf=disk
wait_for "its pages may not be lent" 'denied: web may not lend store/shelf: no rule allows it'
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf class disk requests 8\n' >"$rules.new"; mv "$rules.new" "$rules"
wait_for "what the rules allow" 'allowed: web may lend store/shelf'
for n in 1 2; do
	wait_until_moved 10
	lose_hub 'store serves store/shelf (disk): open with web'
done
# denied TIMES: the hub has said so so often; this one has denied nothing yet
denied() { [ "$("$umbra" bus | grep -c 'denied: web may not lend store/shelf: no rule allows it')" -ge "$1" ]; }
for n in 1 2; do
	printf 'allow store offer,pass store/*\nallow web see,open,pass store/shelf class disk requests 8\n' >"$rules.new"; mv "$rules.new" "$rules"
	for ((k = 0; k < 3000; k++)); do denied $n && break; pids_live || break; sleep 0.02; done
	denied $n || fail "who may not lend any more is asked nothing more"
	printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf class disk requests 8\n' >"$rules.new"; mv "$rules.new" "$rules"
	wait_until_moved $(($(moved) + 10))
done
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf\n' >"$rules.new"; mv "$rules.new" "$rules"
wait_for_all
for m in store web; do grep -q '^1\.\.[1-9]' "$where/$m.log" && ! grep -q '^not ok' "$where/$m.log" || fail "$m"; done
grep -q "^served disk 0: .* [2-9] hubs, 0 failed" "$where/web.log" || fail "hubs"
grep -q "^served disk 0: \([0-9]*\) requests, \1 answered, " "$where/web.log" || fail "not each request was answered"
