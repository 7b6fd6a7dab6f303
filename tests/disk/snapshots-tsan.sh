#!/bin/bash
# Snapshots of a disk that a client uses, with ThreadSanitizer: its reports end it with 66.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
timeout -s KILL 200 build/snapshot_bench_tsan "$work" "${1:-12}" >"$work/log" 2>&1 || { head -30 "$work/log"; exit 1; }
