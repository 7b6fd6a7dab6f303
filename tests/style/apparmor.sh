#!/bin/sh
# The AppArmor profiles parse, as apparmor_parser has it; one that does not is refused. Nothing is loaded.
set -u
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/sbin:/sbin
parses() { apparmor_parser --skip-kernel-load --skip-cache --quiet "$1" >/dev/null 2>&1; }
failed=0
for profile in packaging/apparmor/*; do
	parses "$profile" || { echo "apparmor: $profile:"; apparmor_parser --skip-kernel-load --skip-cache "$profile"; failed=1; }
done
wrong=$(mktemp); trap 'rm -f "$wrong"' EXIT
sed 's/^  network unix stream,$/  network unix stream/' packaging/apparmor/usr.bin.umbrad >"$wrong"
! parses "$wrong" || { echo "apparmor: a line without its end parses"; failed=1; }
exit $failed
