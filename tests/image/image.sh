#!/bin/bash
# umbra image: sections, scan, history, signatures, kept files, policies, catalog and queries, on small images made here.
set -u
umbra=${UMBRA:-$PWD/build/umbra}
schema=$PWD/docs/image.schema.json
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
export HOME=$work/home XDG_CONFIG_HOME= XDG_DATA_HOME=
mkdir home
failed=0
bad() { echo "image: $*"; failed=1; }
must() { timeout -s KILL 60 "$@" >out.log 2>&1 || { bad "failed ($?): $*"; tail -3 out.log; }; }
ends() { # CODE COMMAND...
	local code=$1 is; shift
	timeout -s KILL 60 "$@" >out.log 2>&1; is=$?
	[ $is = "$code" ] || { bad "ended $is, not $code: $*"; tail -3 out.log; }
}
says() { grep -q -- "$1" out.log || { bad "does not say '$1'"; head -5 out.log; }; }
field() { "$umbra" image get "$1" "$2"; }

# a root file system: NAME, packages as "name version"
make_root() {
	local name=$1; shift
	mkdir -p root/etc/nginx root/var/lib/dpkg root/boot root/etc/network
	printf 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n' >root/etc/os-release
	echo "$name" >root/etc/hostname
	[ $name = plain ] || echo 'worker_processes 1;' >root/etc/nginx/nginx.conf
	echo kernel >root/boot/vmlinuz-6.1.0-18-amd64
	: >root/var/lib/dpkg/status
	for p in "$@"; do
		printf 'Package: %s\nStatus: install ok installed\nArchitecture: amd64\nVersion: %s\n\n' "${p% *}" "${p#* }" >>root/var/lib/dpkg/status
	done
	printf 'Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n' >>root/var/lib/dpkg/status
	rm -f fs; truncate -s 24M fs
	mke2fs -q -t ext4 -L "$name" -d root fs || bad "mke2fs"
	rm -f "$name.raw"; truncate -s 32M "$name.raw"
	/sbin/sgdisk -n 1:2048:0 -c 1:root "$name.raw" >/dev/null || bad "sgdisk"
	dd if=fs of="$name.raw" bs=1M seek=1 conv=notrunc status=none
}
mkdir shelf
make_root web "openssl 3.0.14-1" "nginx 1.22.1-9"
must "$umbra" disk convert web.raw shelf/web.vhdx --from raw
rm root/etc/nginx/nginx.conf
make_root plain "openssl 3.0.15-1" "bash 5.2"
must "$umbra" disk convert plain.raw shelf/plain.vhdx --from raw
data_id() { "$umbra" disk info "$1" | sed -n 's/^data-id *//p'; }

# ---- scan ----
before=$(data_id shelf/web.vhdx)
must "$umbra" image scan shelf/web.vhdx --digests
must "$umbra" image scan shelf/plain.vhdx
says 'Debian GNU/Linux 12 (bookworm), 2 packages'
[ "$before" = "$(data_id shelf/web.vhdx)" ] || bad "annotating changed the data identifier"
[ "$(field shelf/web.vhdx os.hostname)" = web ] || bad "host name"
"$umbra" image get shelf/web.vhdx kernels | grep -q 6.1.0-18-amd64 || bad "kernel"
"$umbra" image get shelf/web.vhdx partitions | grep -q '"label": "web"' || bad "label"
must "$umbra" image packages shelf/web.vhdx
[ "$(cat out.log)" = $'openssl 3.0.14-1\nnginx 1.22.1-9' ] || bad "packages: $(cat out.log)"
must "$umbra" image files shelf/web.vhdx '/etc/nginx/*'
says "$(printf 'worker_processes 1;\n' | python3 -c 'import hashlib,sys; print(hashlib.blake2b(sys.stdin.buffer.read(), digest_size=32).hexdigest())')"
must "$umbra" image scan shelf/web.vhdx --digests; says 'not changed since'
must "$umbra" disk write shelf/web.vhdx --offset 31M --from /dev/null
printf x | must "$umbra" disk write shelf/web.vhdx --offset 31M
must "$umbra" image scan shelf/web.vhdx --digests; says '^scanned'
must qemu-img check -f vhdx shelf/web.vhdx
# the package list of rpm, made by rpm
mkdir -p root/var/lib/rpm spec
for p in "alpha 1.2 3" "beta 2:4.5~rc1 1.el9"; do
	set -- $p; version=${2#*:} epoch=; case $2 in *:*) epoch="Epoch: ${2%%:*}" ;; esac
	printf 'Name: %s\nVersion: %s\nRelease: %s\n%s\nSummary: x\nLicense: x\nBuildArch: noarch\n%%description\nx\n%%files\n' "$1" "$version" "$3" "$epoch" >spec/$1.spec
	rpmbuild -bb --define "_topdir $work/rpm" spec/$1.spec >out.log 2>&1 || { bad "rpmbuild"; tail -3 out.log; }
done
must rpm --dbpath "$work/root/var/lib/rpm" -i --nodeps --justdb rpm/RPMS/noarch/*.rpm
mv root/var/lib/dpkg dpkg.away
make_root red
rm -rf root/var/lib/dpkg; mv dpkg.away root/var/lib/dpkg
must "$umbra" image scan red.raw --format raw; says '2 packages'
must "$umbra" image packages red.raw --format raw
sort out.log | cmp -s - <(rpm --dbpath "$work/root/var/lib/rpm" -qa --qf '%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n' | sort) || bad "the packages of rpm: $(cat out.log)"
rm -rf root/var/lib/rpm
# other file systems are recognised; a raw image keeps what it says beside it
truncate -s 40M fat.raw; /sbin/mkfs.vfat -F 32 -n FATLABEL fat.raw >/dev/null || bad "mkfs.vfat"
must "$umbra" image scan fat.raw --format raw
"$umbra" image get fat.raw --format raw | grep -q '"file-system": "fat"' || bad "fat is not recognised"
"$umbra" image get fat.raw --format raw | grep -q FATLABEL || bad "no label"
[ -f fat.raw.umbra ] || bad "no side file"

# ---- sections, history, kept files ----
must "$umbra" image set shelf/web.vhdx title="The web" 'network={"zones":["dmz"]}' extensions.org.example.x=7
[ "$(field shelf/web.vhdx extensions.org.example.x)" = 7 ] || bad "vendor's value"
must "$umbra" image set shelf/web.vhdx title="A web server"
[ "$(field shelf/web.vhdx extensions.org.example.x)" = 7 ] || bad "vendor's value was not kept"
ends 64 "$umbra" image set shelf/web.vhdx os.id=other
ends 64 "$umbra" image set shelf/web.vhdx nonsense=1
printf '{"rights": {"fork": ["*"]}, "patches": {"level": "2026-10"}}' >terms.json
must "$umbra" image set shelf/web.vhdx --from terms.json
must "$umbra" image tag shelf/web.vhdx web production
must "$umbra" image tag shelf/web.vhdx -production staging
[ "$("$umbra" image tag shelf/web.vhdx | tr -d ' \n')" = '["web","staging"]' ] || bad "tags: $("$umbra" image tag shelf/web.vhdx)"
head -c 3000000 /dev/urandom >state
must "$umbra" image keep shelf/web.vhdx saved.state --from state
"$umbra" image fetch shelf/web.vhdx saved.state | cmp - state || bad "a kept file is another"
must "$umbra" image drop shelf/web.vhdx saved.state
ends 65 "$umbra" image fetch shelf/web.vhdx saved.state
ends 65 "$umbra" image keep shelf/web.vhdx ../x --from state
must "$umbra" image history shelf/web.vhdx
for e in converted scanned tagged kept; do says " $e:"; done
# what a scan could not read, it says
mkdir -p odd/etc odd/dir && cp root/etc/os-release odd/etc && : >"odd/$(printf 'caf\351')"
truncate -s 8M odd.raw && mke2fs -q -t ext4 -d odd odd.raw || bad "mke2fs"
must "$umbra" image scan odd.raw --format raw
"$umbra" image files odd.raw --format raw '*caf*' | grep -q 'caf\\xe9' || bad "a name that is no UTF-8"
debugfs -w -R 'link / /dir/again' odd.raw >/dev/null 2>&1
ends 65 "$umbra" image scan odd.raw --format raw; says 'another name'
dd if=fs of=cut.raw bs=1M count=4 status=none
ends 65 "$umbra" image scan cut.raw --format raw; says 'cut off'
truncate -s 32M xfs.raw && printf XFSB | dd of=xfs.raw conv=notrunc status=none
ends 65 "$umbra" image scan xfs.raw --format raw; says 'xfs: its superblock is not sound'
printf 'LUKS\272\276' | dd of=luks.raw conv=notrunc status=none && truncate -s 32M luks.raw
must "$umbra" image scan luks.raw --format raw; says 'luks is not looked into'
rm -f odd.raw* cut.raw* xfs.raw* luks.raw*
# as many words as fit, and one more (the sanitized build looks at where they go)
cp shelf/web.vhdx many.vhdx
must "$umbra" image tag many.vhdx $(seq -f tag-%g 255)
[ "$("$umbra" image tag many.vhdx | wc -l)" = 259 ] || bad "255 tags: $("$umbra" image tag many.vhdx | wc -l) lines"
ends 64 "$umbra" image tag many.vhdx $(seq -f tag-%g 256)
ends 64 "$umbra" image get many.vhdx $(seq -f --parents=%g 17)
rm many.vhdx
must "$umbra" disk check shelf/web.vhdx
must "$umbra" image export shelf/web.vhdx --to spdx; says 'pkg:deb/debian/openssl@3.0.14-1?arch=amd64'
python3 -c 'import json; d=json.load(open("out.log")); assert d["spdxVersion"]=="SPDX-2.3" and len(d["packages"])==2 and len(d["relationships"])==2' || bad "spdx"
must "$umbra" image export shelf/web.vhdx --to cyclonedx
python3 -c 'import json; d=json.load(open("out.log")); assert d["bomFormat"]=="CycloneDX" and len(d["components"])==2' || bad "cyclonedx"

# ---- what follows the data: into children, copies, and back by a commit; what does not ----
must "$umbra" image keep shelf/web.vhdx note --from terms.json
must "$umbra" disk create heir.vhdx --parent shelf/web.vhdx --parents shelf
[ "$("$umbra" image get heir.vhdx title --parents shelf)" = "A web server" ] || bad "a child does not inherit what its parent says"
"$umbra" image packages heir.vhdx --parents shelf | grep -q nginx || bad "a child does not inherit the packages"
ends 1 "$umbra" image get heir.vhdx kept --parents shelf
"$umbra" image history heir.vhdx --parents shelf | grep -q scanned && bad "a child inherits a history"
must "$umbra" image set heir.vhdx title="The heir" --parents shelf
cp shelf/web.vhdx web.copy
must "$umbra" disk commit heir.vhdx --parents shelf
[ "$(field shelf/web.vhdx title)" = "The heir" ] || bad "a commit does not take what the child says"
"$umbra" image get shelf/web.vhdx kept | grep -q note || bad "a commit took a kept file away"
must "$umbra" disk check heir.vhdx --parents shelf --chain
must qemu-img check -f vhdx shelf/web.vhdx
mv web.copy shelf/web.vhdx; rm heir.vhdx
for format in vhdx vhd raw; do
	must "$umbra" disk convert shelf/web.vhdx copy.$format --to $format
	[ "$("$umbra" image get copy.$format title --format $format)" = "A web server" ] || bad "a copy in $format does not say what its original says"
	"$umbra" image packages copy.$format --format $format | grep -q nginx || bad "a copy in $format has no packages"
done
must "$umbra" image scan copy.vhdx --digests; says 'not changed since'
rm copy.*
must "$umbra" image drop shelf/web.vhdx note
for verb in get packages files history policy verify scan; do
	"$umbra" image $verb shelf/web.vhdx --json 2>&1 | python3 -c 'import json,sys; json.load(sys.stdin)' || bad "$verb --json is no JSON"
done
must "$umbra" image scan shelf/web.vhdx --digests
# other programs understand it by the published schema
/usr/bin/python3 - "$schema" <(for f in web plain; do "$umbra" image get shelf/$f.vhdx --json; echo ,; done) <<'P' || bad "the schema"
import json, jsonschema, sys
schema = json.load(open(sys.argv[1])); jsonschema.Draft7Validator.check_schema(schema)
for about in json.loads('[' + open(sys.argv[2]).read().rstrip().rstrip(',') + ']'):
    jsonschema.validate(about, schema)
for wrong in [{"umbra-image": 1, "tags": "x"}, {"umbra-image": 1, "policy": {"no-such-rule": 1}}, {"umbra-image": 1, "expires": "soon"}, {"umbra-image": 2}]:
    try: jsonschema.validate(wrong, schema)
    except jsonschema.ValidationError: continue
    sys.exit("the schema accepts %s" % wrong)
P

# ---- signatures ----
must "$umbra" image key id
ends 1 "$umbra" image verify shelf/plain.vhdx
must "$umbra" image sign shelf/plain.vhdx --key id
must "$umbra" image verify shelf/plain.vhdx --key id.pub
must "$umbra" image key other
ends 1 "$umbra" image verify shelf/plain.vhdx --key other.pub; says 'another key'
cp shelf/plain.vhdx signed.vhdx
must "$umbra" image tag signed.vhdx evil
ends 1 "$umbra" image verify signed.vhdx; says 'says about itself'
# a bit of its data, by a program that keeps no rules
cp shelf/plain.vhdx signed.vhdx
python3 - <<'P'
b = bytearray(open('signed.vhdx', 'rb').read()); at = b.rindex(b'Package: bash'); b[at] ^= 1; open('signed.vhdx', 'wb').write(b)
P
ends 1 "$umbra" image verify signed.vhdx; says 'its data'
# an entry of the history taken out of the middle: found by the chain
cp shelf/web.vhdx torn.vhdx
python3 - <<'P'
b = bytearray(open('torn.vhdx', 'rb').read()); open('torn.vhdx', 'wb').write(b.replace(b'"event":"scanned"', b'"event":"skanned"'))
P
ends 65 "$umbra" image history torn.vhdx; says 'not the one that was written'

# ---- policies ----
policy() { must "$umbra" image set p.vhdx "$@"; }
cp shelf/web.vhdx p.vhdx
refused() { local rule=$1; shift; ends 78 "$@"; says "$rule"; }
policy policy.no-export=true
refused no-export "$umbra" disk read p.vhdx --offset 0 --length 512
refused no-export "$umbra" disk convert p.vhdx out.raw --to raw
refused no-export "$umbra" disk serve p.vhdx --socket s
must "$umbra" disk compare p.vhdx shelf/web.vhdx
must "$umbra" disk create child.vhdx --parent p.vhdx
refused no-export "$umbra" disk read child.vhdx --offset 0 --length 512
refused no-export "$umbra" disk read child.vhdx --offset 0 --length 512 --override "because"
refused no-export "$umbra" disk stream child.vhdx
must "$umbra" disk create other.vhdx --size 32M
refused no-export "$umbra" disk rebase child.vhdx --parent other.vhdx
rm child.vhdx
policy 'policy={"no-fork":true}'
refused no-fork "$umbra" disk create other.child.vhdx --parent p.vhdx
must "$umbra" disk create grown.vhdx --parent other.vhdx
refused no-fork "$umbra" disk rebase grown.vhdx --parent p.vhdx
rm grown.vhdx other.vhdx
refused no-fork "$umbra" disk create child.vhdx --parent p.vhdx
refused no-fork "$umbra" disk snapshot p.vhdx child.vhdx
policy 'policy={"read-only":true}'
printf x | refused read-only "$umbra" disk write p.vhdx --offset 0
refused read-only "$umbra" disk resize p.vhdx --size 64M
must "$umbra" disk read p.vhdx --offset 0 --length 512
policy policy= expires=2020-01-01
refused not-after "$umbra" disk read p.vhdx --offset 0 --length 512
policy 'policy={"overridable":["not-after"]}'
refused 'not-after' "$umbra" disk read p.vhdx --offset 0 --length 512
must "$umbra" disk read p.vhdx --offset 0 --length 512 --override "the last look"
must "$umbra" image history p.vhdx; says 'policy overridden: reason "the last look"'
policy expires=2999-01-01 policy=
must "$umbra" disk read p.vhdx --offset 0 --length 512
policy 'compatible={"hosts":["nobody-*"]}'
refused hosts "$umbra" disk read p.vhdx --offset 0 --length 512
policy 'compatible={"hosts":["*"],"hardware":{"vendor":"NobodysChips"}}'
refused hardware "$umbra" disk read p.vhdx --offset 0 --length 512
policy 'compatible={"hardware":{"features":["avx9"]}}'
refused hardware "$umbra" disk read p.vhdx --offset 0 --length 512
policy compatible= 'policy={"minimum-patches":["openssl>=3.0.15"]}'
refused minimum-patches "$umbra" disk read p.vhdx --offset 0 --length 512
policy 'policy={"minimum-patches":["openssl>=3.0.14","bash>=9"],"patch-level":"2026-09","require-tags":["web"]}'
must "$umbra" disk read p.vhdx --offset 0 --length 512
policy 'policy={"patch-level":"2026-11"}'
refused patch-level "$umbra" disk read p.vhdx --offset 0 --length 512
policy 'policy={"require-tags":["approved"]}'
refused require-tags "$umbra" disk read p.vhdx --offset 0 --length 512
policy 'policy={"users":["nobody-else"]}'
refused users "$umbra" disk read p.vhdx --offset 0 --length 512
refused users "$umbra" image tag p.vhdx x
cp shelf/web.vhdx p.vhdx
# what is not of the right shape is not kept
for wrong in 'policy={"no-such-rule":1}' policy.no-export=7 policy.hosts=all expires=soon 'tags=["a",1]' tags=x 'rights={"fork":"me"}' \
	'compatible={"hardware":{"memory":-1}}' network=7 'title={}'; do
	ends 64 "$umbra" image set p.vhdx "$wrong"
done
# the user's policy
mkdir -p home/.config/umbra
echo '{"no-such-rule": 1}' >home/.config/umbra/policy.json
refused 'does not know' "$umbra" disk read p.vhdx --offset 0 --length 512
printf '{"require-signature": ["%s"]}' "$(cat id.pub)" >home/.config/umbra/policy.json
refused require-signature "$umbra" disk read shelf/web.vhdx --offset 0 --length 512
must "$umbra" disk read shelf/plain.vhdx --offset 0 --length 512
cp shelf/plain.vhdx signed.vhdx
must "$umbra" image tag signed.vhdx evil
refused require-signature "$umbra" disk read signed.vhdx --offset 0 --length 512
echo '{broken' >home/.config/umbra/policy.json
refused policy "$umbra" disk read shelf/plain.vhdx --offset 0 --length 512
rm home/.config/umbra/policy.json
# a clock that was set back against a time-out: the history is of the future
policy policy= expires=2999-01-01
python3 - <<'P'
b = bytearray(open('p.vhdx', 'rb').read()); year = str(__import__('time').gmtime().tm_year)
open('p.vhdx', 'wb').write(b.replace(b'"time":"' + year.encode(), b'"time":"2998'))
P
refused 'clock' "$umbra" disk read p.vhdx --offset 0 --length 512

# ---- what a refused chain says ----
must "$umbra" disk create kid.vhdx --parent shelf/plain.vhdx
printf x | must "$umbra" disk write shelf/plain.vhdx --offset 8M
must "$umbra" disk resize shelf/plain.vhdx --size 40M
ends 65 "$umbra" disk read kid.vhdx --parents shelf --offset 0 --length 512; says 'its history ends with resized by umbra disk'
ends 65 "$umbra" disk check kid.vhdx --parents shelf --chain --json
python3 -c 'import json; d=json.load(open("out.log")); f=d["findings"]; assert not d["sound"] and any(x.get("fault")=="identifier" for x in f) and any(x.get("affected") for x in f)' ||
	bad "check --json"
rm kid.vhdx

# ---- catalog ----
c="--catalog c.db"
must "$umbra" image index shelf $c; says '2 images: 2 new'
must "$umbra" image index shelf $c; says '0 new, 0 changed'
finds() { # QUERY NAME...
	local query=$1; shift
	"$umbra" image search "$query" $c --json >found.json 2>&1
	[ "$(python3 -c 'import json,os; print(*sorted(os.path.basename(i["path"]) for i in json.load(open("found.json"))["images"]))' 2>&1)" = "$*" ] || bad "query $query does not find '$*': $(head -c 300 found.json)"
}
finds os:debian plain.vhdx web.vhdx
finds 'os:debian pkg:"openssl<3.0.15" file:/etc/nginx/* tag:web not:expired' web.vhdx
finds 'pkg:openssl>=3.0.15' plain.vhdx
finds 'pkg:open*' plain.vhdx web.vhdx
finds 'pkg:gone'
finds 'file:*/nginx.conf' web.vhdx
finds 'file:/etc/hostname -tag:web' plain.vhdx
finds '(tag:web or pkg:bash) os:deb*' plain.vhdx web.vhdx
finds 'server' web.vhdx
finds 'bookw*' plain.vhdx web.vhdx
finds 'extensions.org.example.x:7' web.vhdx
finds 'kernel:6.1.* label:web' web.vhdx
finds 'not:(tag:web or pkg:bash)'
for q in '(' 'a)' '"x' 'os:' 'pkg:<3' '' 'or' "$(printf 'x%.0s' $(seq 5000))" "$(printf '(%.0s' $(seq 40))" "$(printf 'a %.0s' $(seq 100))"; do ends 64 "$umbra" image search "$q" $c; done
must "$umbra" image search 'tag:web' $c --explain; says '1 images, by one term'; says '^IMAGE  *SYSTEM  *TAGS  *UNTIL$'; says '/web.vhdx  *Debian.* web,staging '
mv shelf/web.vhdx shelf/moved.vhdx
must "$umbra" image index shelf $c; says '1 moved'
finds tag:web moved.vhdx
must "$umbra" image tag shelf/moved.vhdx -web
must "$umbra" image set shelf/moved.vhdx expires=2020-01-01
must "$umbra" image index shelf $c; says '1 changed'
finds tag:web
finds expired moved.vhdx
rm shelf/moved.vhdx
must "$umbra" image index shelf $c; says '1 gone'
finds os:debian plain.vhdx
finds bookworm plain.vhdx
# a parent that moved is found where the catalog has seen it, below an allowed place
must "$umbra" disk create kid.vhdx --parent shelf/plain.vhdx
mkdir -p shelf/deep/er; mv shelf/plain.vhdx shelf/deep/er/renamed.vhdx
ends 65 "$umbra" disk check kid.vhdx --parents shelf
must "$umbra" image index shelf
must "$umbra" disk check kid.vhdx --parents shelf
must "$umbra" disk check kid.vhdx
mkdir far; mv kid.vhdx far
ends 78 "$umbra" disk check far/kid.vhdx; says 'renamed.vhdx'
mv shelf/deep/er/renamed.vhdx shelf/plain.vhdx
head -c 100000 /dev/urandom >shelf/noise.vhdx
must "$umbra" image index shelf $c; says '1 unreadable'
head -c 100000 /dev/urandom >noise.db
ends 65 "$umbra" image search x --catalog noise.db
exit $failed
