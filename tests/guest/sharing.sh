#!/bin/bash
# sharing.sh: two machines with a channel between them. Nothing passes before the rules allow it, which are read anew while the machines run; the
# hub is killed in between, and who joins each to it, and each packet comes once; pages are lent, and come back.
set -u
test=sharing guest=guest-share
. "$(dirname "$0")/sharing-machines.sh"

echo '# nothing yet' >"$rules"
run store --serve shelf
run web --bind store/shelf
wait_for "nothing is allowed" 'denied: web may not see store/shelf: no rule allows it'
wait_for "not joined without a rule" 'store serves store/shelf (packet): alone'
printf 'allow store offer,pass shelf\n' >"$rules.new"; mv "$rules.new" "$rules"
wait_for "another name" 'denied: store may not offer store/shelf'
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf class packet requests 4\n' >"$rules.new"; mv "$rules.new" "$rules"
wait_for "what the rules allow" 'store serves store/shelf (packet): open with web'
for n in 1 2; do
	wait_until_moved 5
	lose_hub 'store serves store/shelf (packet): open with web'
done
for pid in $pids; do
	lose_joiner "$pid"
done
# so slow that both are still at it on a busy host; now the rest, as fast as it goes
printf 'allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf\n' >"$rules.new"; mv "$rules.new" "$rules"
wait_for_all
for m in store web; do grep -q '^1\.\.[1-9]' "$where/$m.log" && ! grep -q '^not ok' "$where/$m.log" || fail "$m"; grep -q "^share 0: .* [2-9] hubs, 0 failed" "$where/$m.log" || fail "$m: one hub"; done
grep -q "^share 0: .* 12 pages lent, 12 ended" "$where/web.log" || fail "not all pages came back"
