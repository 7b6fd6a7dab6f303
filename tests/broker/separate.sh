#!/bin/bash
# tests/broker/separate.py with a guest that halts.
set -eu
cd "$(dirname "$0")/../.."
[ -f build/guest/spin.cpio.gz ] || tests/boot/stop.sh
exec tests/broker/separate.py "${UMBRA:-build/umbra}" build/guest/vmlinuz build/guest/spin.cpio.gz
