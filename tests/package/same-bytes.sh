#!/bin/bash
# Packages of two builds in different folders are the same bytes, and lintian finds nothing in them. What is committed is built, twice: minutes.
#   usage: same-bytes.sh FOLDER, where the packages are left in FOLDER/packages
set -euo pipefail
cd "$(dirname "$0")/../.."
sources=$PWD
folder=$(realpath -m "$1")
rm -rf "$folder/packages" "$folder/a" "$folder/another"
mkdir -p "$folder"
commit=$(git rev-parse HEAD)
build() { # CLONE
	git clone -q "$sources" "$1"
	git -C "$1" checkout -q "$commit"
	(cd "$1" && tools/deb "$1/build/deb" >/dev/null)
}
build "$folder/a"
(
	umask 077
	export TZ=Asia/Tokyo LANG=C LC_ALL= HOME="$folder/another" USER=somebody
	build "$folder/another/with-a-longer-name"
)
failed=0
mv "$folder/a/build/deb/packages" "$folder/packages"
for package in "$folder"/packages/*.deb; do
	cmp "$package" "$folder/another/with-a-longer-name/build/deb/packages/$(basename "$package")" || failed=1
done
[ "$(ls "$folder"/packages/*.deb | wc -l)" = 3 ] || { echo "same-bytes: not three packages"; failed=1; }
lintian --fail-on error,warning --display-info "$folder"/packages/*.deb || failed=1
[ $failed != 0 ] || rm -rf "$folder/a" "$folder/another"
exit $failed
