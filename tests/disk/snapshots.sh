#!/bin/bash
# snapshots.sh PROGRAM COUNT: snapshots of a disk that a client uses. Built with ThreadSanitizer, whose reports end it with 66.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
timeout -s KILL 500 "$1" "$work" "$2" >"$work/log" 2>&1 || { head -30 "$work/log"; exit 1; }
