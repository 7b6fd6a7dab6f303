#!/bin/bash
# From the package to a Debian's shell in two commands, on a Debian 12 with nothing but its essential packages and apt: the first as root, the
# second as a user. Needs root, for the Debian; it has no /dev/kvm.   usage: fresh.sh PACKAGES [DEBIAN], of which a copy is taken
set -euo pipefail
packages=$(realpath "$1")
[ "$(id -u)" = 0 ] || { echo "fresh: needs root"; exit 1; }
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
chmod 755 "$root"
if [ -n "${2-}" ]; then
	cp -a "$2/." "$root/"
else
	mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "$root" || { echo "fresh: no Debian"; exit 1; }
	# mmdebstrap leaves no lists of packages; they come from where this host's come
	rm -rf "$root/etc/apt" && cp -a /etc/apt "$root/etc/apt"
	cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
	[ ! -d /usr/local/share/ca-certificates ] || cp -a /usr/local/share/ca-certificates "$root/usr/local/share/"
	wants_lists=1
fi
useradd --root "$root" --create-home --shell /bin/bash user
cp "$packages"/umbra_*.deb "$root/home/user/"
inside() { # COMMAND, as root in the new Debian, with processes and devices of its own
	unshare --mount --pid --uts --ipc --fork bash -c '
		root=$1
		mount --bind "$root" "$root"; mount -t proc p "$root/proc"; mount -t sysfs -o ro s "$root/sys"; mount -t tmpfs d "$root/dev"
		for n in null zero full random urandom tty; do touch "$root/dev/$n"; mount --bind "/dev/$n" "$root/dev/$n"; done
		mkdir "$root/dev/pts" "$root/dev/shm"; mount -t tmpfs s "$root/dev/shm"; mount -t devpts -o newinstance,ptmxmode=0666 p "$root/dev/pts"
		ln -s pts/ptmx "$root/dev/ptmx"; ln -s /proc/self/fd "$root/dev/fd"
		# not chroot alone: in one nobody gets a user namespace, which mmdebstrap takes for the demo as on any other host
		mkdir -p "$root/before"; cd "$root"; pivot_root . before; umount -l before; rmdir before
		exec chroot . /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
			DEBIAN_FRONTEND=noninteractive bash -c "$2"
	' _ "$root" "$1"
}
[ -z "${wants_lists-}" ] || inside 'update-ca-certificates && apt-get update' </dev/null >"$root/lists.log" 2>&1 || { tail -n 5 "$root/lists.log"; exit 1; }
echo "fresh: apt install ./umbra_*.deb"
inside 'cd /home/user && apt install -y ./umbra_*.deb' </dev/null >"$root/install.log" 2>&1 || { tail -n 20 "$root/install.log"; exit 1; }
sed -n '/^The following NEW packages/,/newly installed/p' "$root/install.log"
echo "fresh: as user: umbra demo"
touch "$root/said"
until_said() { # PATTERN
	for _ in $(seq 300); do
		if grep -aq "$1" "$root/said"; then return; fi
		sleep 1
	done
}
{
	until_said 'root@demo:'
	echo 'echo $((6*7)) $(id -u)'
	until_said '^42 0'
	echo 'exit'
} | timeout 900 bash -c "$(declare -f inside); root=$root; inside 'su user -c \"cd && script -qec \\\"umbra demo\\\" /dev/null\"'" >"$root/said" 2>"$root/errors" || { tail -n 20 "$root/said" "$root/errors"; exit 1; }
tr -d '\r' <"$root/said" | grep -aq '^42 0' || { tail -n 20 "$root/said" "$root/errors"; exit 1; }
tr -d '\r' <"$root/said" | grep -a '^kernel \|^hypervisor \|^network \|A page of the guest'
[ ! -e "$root/boot/vmlinuz" ] && [ -z "$(ls "$root/boot")" ] || { echo "fresh: a kernel was installed"; exit 1; }
