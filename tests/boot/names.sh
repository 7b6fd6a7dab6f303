#!/bin/bash
# Machines by name: ps, info, stop, kill, save, and what is refused, each with one line and its exit code.
set -u
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
where=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$where"' EXIT
export XDG_RUNTIME_DIR=$where
failed=0
fail() { echo "names: $*"; failed=1; }
refused() { # CODE TEXT COMMAND...
	local code=$1 text=$2 said; shift 2
	said=$("$@" 2>&1 </dev/null); local got=$?
	[ $got = "$code" ] && [ "$(grep -c . <<<"$said")" = 1 ] && [[ $said == umbra:*"$text"*";"* ]] || fail "'$*' ended with $got and said '$said'"
}
begin() { # NAME
	rm -f "$where/$1.log" # what an earlier one said
	"$umbra" run --no-bus --time-limit 240 --name "$1" --kernel build/guest/vmlinuz --initrd build/guest/spin.cpio.gz --append "console=ttyS0 halt=1" </dev/null >"$where/$1.log" 2>&1 &
	for ((k = 0; k < 3000; k++)); do grep -q READY "$where/$1.log" 2>/dev/null && return; sleep 0.02; done
	fail "$1 does not run"
}
tools/fetch-guest tests/boot/spin.init build/guest/spin.cpio.gz
[ "$("$umbra" ps --json)" = "[]" ] || fail "machines where none is"
begin one; one=$!
begin two; two=$!
[ "$("$umbra" ps | awk 'NR > 1 { print $1 }' | xargs)" = "one two" ] || fail "ps: $("$umbra" ps)"
"$umbra" ps --json | python3 -c '
import json, sys
rows = json.load(sys.stdin)
assert [r["name"] for r in rows] == ["one", "two"] and all(r["cpus"] == 1 and r["memory"] == 512 << 20 and r["pid"] > 1 for r in rows)' || fail "ps --json"
[ "$("$umbra" info one | awk '$1 == "pid" { print $2 }')" = $one ] || fail "info: $("$umbra" info one)"
# the kernel's own symbols, from its memory: it is halted
"$umbra" info one | grep -q '^processor 0 .* rip 0xffffffff[0-9a-f]* ([A-Za-z_][A-Za-z0-9_.]*+[0-9a-fx]*), last' || fail "no symbol: $("$umbra" info one)"
"$umbra" info --json one | python3 -c 'import json, sys; assert json.load(sys.stdin)["from"] == "build/guest/vmlinuz"' || fail "info --json"
refused 64 "a machine of that name runs" "$umbra" run --name one --kernel build/guest/vmlinuz
refused 64 "not a name" "$umbra" run --name ../one --kernel build/guest/vmlinuz
refused 64 "not a name" "$umbra" run --name .one --kernel build/guest/vmlinuz
refused 64 "not a name" "$umbra" run --name "" --kernel build/guest/vmlinuz
refused 65 "no machine of that name" "$umbra" info three
refused 65 "no machine of that name" "$umbra" stop three
refused 65 "no machine of that name" "$umbra" kill ../one
refused 65 "no machine of that name" "$umbra" save three "$where/x"
refused 64 "wrong number of arguments" "$umbra" save one
echo kept >"$where/file"
refused 64 "File exists" timeout 20 "$umbra" run --socket "$where/file" --kernel build/guest/vmlinuz
[ "$(cat "$where/file")" = kept ] || fail "a file was taken for a socket that nobody listens at"
refused 64 "another machine's guest" timeout 20 "$umbra" run --socket "$where/s_5" --kernel build/guest/vmlinuz
refused 64 "brings these itself" "$umbra" run --restore "$where/x" --memory 512M
refused 65 "No such file" "$umbra" run --restore "$where/x"
refused 65 "damaged" "$umbra" run --restore build/guest/vmlinuz
refused 65 "No such file" "$umbra" save one "$where/nowhere/x"
: >"$where/there"
refused 65 "File exists" "$umbra" save one "$where/there"
[ ! -s "$where/there" ] || fail "a file that was there was written"
"$umbra" save --replace one "$where/there" || fail "save --replace"
[ "$(stat -c %a "$where/there")" = 600 ] || fail "others may read a saved machine"
refused 65 "" "$umbra" save one /dev/full
[ "$(ls "$where" | grep -c "there")" = 1 ] || fail "something was left: $(ls "$where")"
# a file system that is full: nothing is left, and the machine goes on
if mkdir "$where/small" && mount -t tmpfs -o size=1M none "$where/small" 2>/dev/null; then
	refused 65 "No space" "$umbra" save one "$where/small/x"
	[ -z "$(ls "$where/small")" ] || fail "a file was left where there was no room"
	umount "$where/small"
fi
timeout 20 "$umbra" save one "$where/second" || fail "a save after one that failed"
# a saver that is killed lets the machine go on
"$umbra" save one "$where/third" & saver=$!
sleep 0.02; kill -KILL $saver 2>/dev/null; wait $saver 2>/dev/null
timeout 20 "$umbra" save one "$where/fourth" || fail "a save after one that was killed"
"$umbra" save one "$where/interrupted" & saver=$!
sleep 0.04; kill -TERM $saver 2>/dev/null; wait $saver 2>/dev/null
[ -e "$where/interrupted" ] || [ -z "$(ls "$where" | grep interrupted)" ] || fail "a save that was interrupted left something: $(ls "$where")"
# one that sleeps keeps nobody else from the machine
"$umbra" save one "$where/fifth" 2>/dev/null & saver=$!
sleep 0.02; kill -STOP $saver
[ "$(timeout 20 "$umbra" info one | awk '$1 == "name" { print $2 }')" = one ] || fail "info while a saver sleeps"
timeout 20 "$umbra" stop one || fail "stop while a saver sleeps"
kill -KILL $saver; kill -CONT $saver 2>/dev/null; wait $saver 2>/dev/null
wait $one; [ $? = 0 ] || fail "a machine that was stopped did not end with 0"
"$umbra" kill two || fail "kill"
wait $two; [ $? = 0 ] || fail "a machine that was killed did not end with 0"
[ "$("$umbra" ps --json)" = "[]" ] || fail "machines where none is any more"
[ -z "$(ls "$where/umbra")" ] || fail "names of machines that are gone stay: $(ls "$where/umbra")"
begin one; one=$!
kill -KILL $one; wait $one 2>/dev/null
begin one; one=$! # the socket of the one that was killed is still there
"$umbra" save --stop one "$where/last" || fail "save --stop"
wait $one; [ $? = 0 ] || fail "a machine that was saved and stopped did not end with 0"
# one that never ends what it says fills no disk
python3 - "$where/umbra/liar" 2>/dev/null <<'LIAR' & liar=$!
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
peer = s.accept()[0]
peer.recv(64)
peer.sendall(b'{"id":1,"ok":true,"machine":{"name":"liar","memory":1048576}}\n')
peer.recv(64)
while True:
    peer.sendall(b'{"id":1,"data":8192}\n' + bytes(8192))
LIAR
for ((k = 0; k < 3000; k++)); do [ -S "$where/umbra/liar" ] && break; sleep 0.02; done
sleep 0.1
refused 65 "File too large" timeout 60 "$umbra" save liar "$where/lies"
[ -z "$(ls "$where" | grep lies)" ] || fail "a file of lies was left"
wait $liar 2>/dev/null
chmod 755 "$where/umbra"
refused 64 "not yours alone" "$umbra" run --name four --kernel build/guest/vmlinuz
exit $failed
