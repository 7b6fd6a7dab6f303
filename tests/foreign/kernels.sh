#!/bin/bash
# kernels.sh DIRECTORY [MODEL...]: kernels as others built them, on each processor model: Debian's 6.1 and 6.12, cloud and generic, memtest86+ and
# Xen's hypervisor, through apt into DIRECTORY. The model "masks" is each row of tests/boot/models.sh on each of the four Linux kernels. Prints for
# each how it went; logs are in DIRECTORY/logs. docs/foreign-kernels.md says what is expected.
set -eu
cd "$(dirname "$0")/../.."
umbra=$(realpath "${UMBRA:-build/umbra}")
[ $# -ge 1 ] || { echo "usage: $0 DIRECTORY [MODEL...]" >&2; exit 64; }
mkdir -p "$1/logs"
directory=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- umbra-amd umbra-intel host masks
failed=0

package() { # PACKAGE FILE: the file in it, unpacked; downloaded once
	local root=$directory/$1

	if [ ! -d "$root" ]; then
		(cd "$directory" && apt-get download -qq -o APT::Sandbox::User=root "$1")
		mkdir "$root.new"
		dpkg-deb --fsys-tarfile "$directory/$1"_*.deb | tar -x -C "$root.new" --wildcards './boot/*'
		mv "$root.new" "$root"
	fi
	ls "$root"/boot/$2 | head -n 1
}

newest() { # PATTERN: the package's name
	apt-cache search --names-only "$1" | cut -d' ' -f1 | sort -V | tail -n 1
}

report() { # NAME MODEL GOOD TEXT
	printf '%-4s %-14s %-12s %s\n' "$([ "$3" = 1 ] && echo pass || echo fail)" "$1" "$2" "$4"
	[ "$3" = 1 ] || failed=1
}

linux() { # NAME MODEL KERNEL
	local log=$directory/logs/$1-$2.log status=0 good=0

	timeout -s KILL 130 "$umbra" run --time-limit 120 --kernel "$3" --initrd build/guest/work.cpio.gz --memory 512M --cpus 2 --cpu-model "$2" \
		--append "console=ttyS0" </dev/null 2>&1 | tr -d '\r' >"$log" || status=$?
	[ "$status" != 0 ] || ! grep -q '^LOOP 20000' "$log" || ! grep -q 'THIRTYTWO 3257f041' "$log" || grep -qE 'WARNING:|BUG:|Oops' "$log" || good=1
	report "$1" "$2" $good "/init after $(sed -n 's/^\[ *\([0-9.]*\)\] Run \/init as init process.*/\1/p' "$log") s of the guest's"
}

memtest() { # MODEL KERNEL: it tests for ever
	local log=$directory/logs/memtest-$1.log good=0

	timeout -s KILL 70 "$umbra" run --time-limit 60 --kernel "$2" --memory 128M --cpu-model "$1" --append "console=ttyS0,115200" </dev/null >"$log" 2>&1 || true
	! grep -qa 'Status: Testing' "$log" || grep -qa 'Errors: [1-9]' "$log" || good=1
	report memtest86+ "$1" $good "$(grep -oa 'Pass: *[0-9]*' "$log" | tail -n 1), $(grep -oa 'Errors: *[0-9]*' "$log" | tail -n 1)"
}

xen() { # MODEL HYPERVISOR KERNEL: the kernel would be its first guest's; it wants the 8254's interrupt, which there is not
	local log=$directory/logs/xen-$1.log good=0

	timeout -s KILL 70 "$umbra" run --time-limit 60 --kernel "$2" --initrd "$3" --memory 1G --cpu-model "$1" --append "xen console=com1 com1=115200,8n1 sync_console" \
		</dev/null 2>&1 | tr -d '\r' >"$log" || true
	! grep -q "IO-APIC + timer doesn't work" "$log" || good=1
	report xen "$1" $good "$(grep -c '^(XEN)' "$log") lines, up to its timer"
}

masks() { # NAME KERNEL: models and what hosts lack
	local good=1 said

	said=$(UMBRA=$umbra KERNEL=$2 LOGS=$directory/logs/$1 tests/boot/models.sh) || good=0
	report "$1" masks $good "$(grep -c '^row [a-z]' tests/boot/models.sh) rows${said:+: $said}"
}

tools/fetch-guest tests/boot/work.init build/guest/work.cpio.gz tests/boot/thirty-two.S
hypervisor=$directory/xen
gzip -dc "$(package xen-hypervisor-4.17-amd64 'xen-*.gz')" >"$hypervisor"
generic=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/{print $2; exit}')
cloud=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}')
new_generic=$(newest '^linux-image-6\.12.*deb12-amd64-unsigned$')
new_cloud=$(newest '^linux-image-6\.12.*deb12-cloud-amd64-unsigned$')
for model in "$@"; do
	if [ "$model" = masks ]; then
		masks 6.1-cloud "$(package "$cloud" 'vmlinuz-*')"
		masks 6.1-generic "$(package "$generic" 'vmlinuz-*')"
		masks 6.12-cloud "$(package "$new_cloud" 'vmlinuz-*')"
		masks 6.12-generic "$(package "$new_generic" 'vmlinuz-*')"
		continue
	fi
	linux 6.1-cloud "$model" "$(package "$cloud" 'vmlinuz-*')"
	linux 6.1-generic "$model" "$(package "$generic" 'vmlinuz-*')"
	linux 6.12-cloud "$model" "$(package "$new_cloud" 'vmlinuz-*')"
	linux 6.12-generic "$model" "$(package "$new_generic" 'vmlinuz-*')"
	memtest "$model" "$(package memtest86+ 'memtest86+x64.bin')"
	xen "$model" "$hypervisor" "$(package "$generic" 'vmlinuz-*')"
done
exit $failed
