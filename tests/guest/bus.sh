#!/bin/sh
# bus.sh CPUS: the bare-metal guests of the partition bus with two disks: one of zeros, one read only whose sectors begin with their number.
set -eu
cd "$(dirname "$0")/../.."
work=$(mktemp -d -p build); trap 'rm -rf "$work"' EXIT
umbra=${UMBRA:-build/umbra}
python3 -c 'import struct, sys; sys.stdout.buffer.write(b"".join(struct.pack("<I", n) + bytes(508) for n in range(4096)))' >"$work/numbered.raw"
for guest in bus bus-wrong; do
	"$umbra" disk create "$work/$guest.vhdx" --size 64M
	tests/guest/run "$guest" "$1" --disk "$work/$guest.vhdx" --disk "$work/numbered.raw,format=raw,readonly" --display
	"$umbra" disk check "$work/$guest.vhdx" >/dev/null
done
