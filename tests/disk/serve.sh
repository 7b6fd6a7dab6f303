#!/bin/bash
# umbra disk serve with other programs' clients, the chain changing under them: tests/disk/serve.sh [SECONDS]
set -u
umbra=${UMBRA:-$PWD/build/umbra}
work=$(mktemp -d); trap 'kill $server 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
failed=0 server=
must() { timeout -s KILL 100 "$@" >out.log 2>&1 || { echo "serve: failed ($?): $*"; tail -3 out.log; failed=1; }; }
start() {
	"$umbra" disk serve "$1" --socket s "${@:2}" 2>serve.log & server=$!
	for _ in $(seq 1200); do [ -S s.control ] && break; sleep 0.05; done
}
end() { kill -TERM $server; wait $server || { echo "serve: the server ended with $?"; cat serve.log; failed=1; }; server=; }
uri='nbd+unix:///?socket=s'

must "$umbra" disk create a.vhdx --size 256M
start a.vhdx
must nbdinfo "$uri"
nbdinfo --json "$uri" >info.json || failed=1
grep -q '"export-size": 268435456' info.json || { echo "serve: nbdinfo sees another size"; cat info.json; failed=1; }
head -c 20M /dev/urandom >data; truncate -s 256M data
must nbdcopy data "$uri"
must qemu-io -f raw -c "write -P 7 100M 3M" -c "write -z 1M 2M" -c "discard 5M 1M" -c "flush" -c "read -P 7 100M 3M" -c "read -P 0 1M 2M" "nbd+unix:///?socket=s"
nbdinfo --map "$uri" >map.log || failed=1
grep -q 'hole,zero' map.log || { echo "serve: no holes in the map"; cat map.log; failed=1; }
# somebody writes and verifies; meanwhile: snapshots, a commit, more snapshots, a stream
fio --name=w --ioengine=nbd --uri="$uri" --rw=randwrite --bs=4k --iodepth=16 --size=64M --offset=128M --verify=crc32c --do_verify=1 --verify_backlog=512 \
	--time_based --runtime="${1:-6}" --output=fio.log & client=$!
sleep 1
must "$umbra" disk snapshot b.vhdx --socket s
sleep 0.5
must "$umbra" disk snapshot c.vhdx --socket s
sleep 0.5
must "$umbra" disk commit --socket s
sleep 0.5
must "$umbra" disk resize --size 300M --socket s
must "$umbra" disk stream --socket s
sleep 0.3
must "$umbra" disk snapshot d.vhdx --socket s
wait $client || { echo "serve: fio failed"; tail -5 fio.log; failed=1; }
grep -q 'err= 0' fio.log || { echo "serve: fio found errors"; grep err fio.log; failed=1; }
must nbdcopy "$uri" out.raw
end
must "$umbra" disk check d.vhdx --chain
must "$umbra" disk compare d.vhdx out.raw --other-format raw
cmp -n 1048576 data out.raw || { echo "serve: what was copied in is not there"; failed=1; }
for f in a b c; do must "$umbra" disk check $f.vhdx; done
"$umbra" disk info c.vhdx | grep -q 'type *dynamic' || { echo "serve: a streamed child still has a parent"; failed=1; }
must qemu-img check -f vhdx c.vhdx

# read only; a second server at the same socket; a client that talks nonsense
start d.vhdx --read-only
qemu-io -f raw -c "write 0 4k" "nbd+unix:///?socket=s" >out.log 2>&1 && { echo "serve: wrote to a read-only export"; failed=1; }
"$umbra" disk serve a.vhdx --socket s >out.log 2>&1; [ $? = 65 ] || { echo "serve: two servers at a socket"; failed=1; }
python3 - <<'P'
import os, random, socket, struct
random.seed(4)
def connect():
    c = socket.socket(socket.AF_UNIX); c.connect('s'); c.settimeout(0.05); return c
def hello(c):
    c.recv(18); c.sendall(struct.pack('>I', 3))
def quietly(act):
    try: act()
    except OSError: pass
for n in range(200):
    c = connect(); quietly(lambda: c.sendall(os.urandom(random.randrange(200)))); c.close()
for n in range(200):  # options that lie
    c = connect(); hello(c)
    quietly(lambda: c.sendall(struct.pack('>QII', 0x49484156454f5054, random.choice([1, 3, 6, 7, 8, 9, 10, 99]), random.choice([0, 4, 20, 65536, 0xffffffff])) + os.urandom(40)))
    quietly(lambda: c.recv(100)); c.close()
for n in range(300):  # requests that lie
    c = connect(); hello(c)
    c.sendall(struct.pack('>QII', 0x49484156454f5054, 8, 0)); c.recv(20)
    c.sendall(struct.pack('>QIIIH', 0x49484156454f5054, 7, 6, 0, 0)); c.recv(200)
    for k in range(random.randrange(1, 8)):
        quietly(lambda: c.sendall(struct.pack('>IHHQQI', 0x25609513, random.randrange(16), random.randrange(9), k, random.choice([0, 511, 1 << 28, (1 << 64) - 512, random.getrandbits(64)]), random.choice([0, 1, 512, 4096, 1 << 25, 0xffffffff]))))
    quietly(lambda: c.recv(1000)); c.close()
for n in range(100):
    c = socket.socket(socket.AF_UNIX); c.connect('s.control')
    quietly(lambda: c.sendall(random.choice([b'\n', b'{}\n', b'[]\n', b'{"do":5}\n', b'{"do":"snapshot"}\n', b'{"do":"commit"}\n', os.urandom(50), b'{' * 20000]))); c.close()
P
must nbdinfo "$uri"
end
exit $failed
