#!/bin/sh
# emission-whole.sh TEST [FIRST [COUNT]]: of 32 slices of all encodings, so many from this one on (all), one after the other, for at most
# $TIME seconds if that is set. Forms are counted together in build/emission.forms, which is made anew where the first slice is run. Ends
# 1 with the first slice that fails. Its last line says where to go on, or what was counted.
set -u
cd "$(dirname "$0")/../.."
slices=32 n=${2:-0} last=$((${2:-0} + ${3:-32})) end=$(($(date +%s) + ${TIME:-100000}))
[ "$n" != 0 ] || rm -f build/emission.forms
while [ "$n" -lt "$last" ] && [ "$n" -lt $slices ]; do
	[ "$(date +%s)" -lt "$end" ] || { echo "emission: the time is up; go on with FIRST=$n"; exit 0; }
	"$1" $slices "$n" build/emission.forms || exit 1
	n=$((n + 1))
done
echo "emission: slices up to $n of $slices, all good"
