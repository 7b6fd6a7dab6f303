#!/bin/bash
# selftests-x86.sh DIRECTORY [MODEL]: Linux's own tools/testing/selftests/x86, from Debian's linux-source-6.1 (fetched through apt into DIRECTORY
# and unpacked there), built static for 64 and 32 bits (gcc-multilib, libc6-dev-i386), and run in a guest, one after the other. Prints pass, fail
# (with its exit code) or skip for each; the log is DIRECTORY/selftests.log. docs/foreign-kernels.md says what is expected.
set -eu
cd "$(dirname "$0")/../.."
umbra=${UMBRA:-build/umbra}
[ $# -ge 1 ] || { echo "usage: $0 DIRECTORY [MODEL]" >&2; exit 64; }
mkdir -p "$1/selftests/bin"
directory=$(cd "$1" && pwd)
model=${2:-default}
source=$directory/linux-source-6.1/tools/testing/selftests
both='single_step_syscall sysret_ss_attrs syscall_nt test_mremap_vdso check_initial_reg_state sigreturn iopl ioperm test_vsyscall
	mov_ss_trap syscall_arg_fault fsgsbase_restore sigaltstack ldt_gdt ptrace_syscall'
wide='fsgsbase sysret_rip syscall_numbering corrupt_xstate_header sigtrap_loop'
narrow='entry_from_vm86 test_syscall_vdso unwind_vdso test_FCMOV test_FCOMI test_FISTTP vdso_restorer'

if [ ! -d "$source" ]; then
	(cd "$directory" && apt-get download -qq -o APT::Sandbox::User=root linux-source-6.1)
	dpkg-deb --fsys-tarfile "$directory"/linux-source-6.1_*.deb | tar -xO ./usr/src/linux-source-6.1.tar.xz |
		tar -xJ -C "$directory" linux-source-6.1/tools/testing/selftests linux-source-6.1/tools/include linux-source-6.1/arch/x86/include
fi

build() { # BITS NAME [MORE-SOURCES]
	local entry=

	[ "$2" != check_initial_reg_state ] || entry=-Wl,-ereal_start
	(cd "$source/x86" && gcc $entry "-m$1" "-DCAN_BUILD_$1" -O2 -g -std=gnu99 -pthread -w -no-pie -static -o "$directory/selftests/bin/$2_$1" "$2.c" ${3:-} -lrt -ldl -lm) ||
		echo "$2_$1 cannot be built"
}

thunk() { # BITS NAME: the assembly that it needs
	case $2-$1 in
	sysret_ss_attrs-64) echo thunks.S ;;
	test_syscall_vdso-32) echo thunks_32.S ;;
	ptrace_syscall-32) echo raw_syscall_helper_32.S ;;
	esac
}
for name in $both $wide; do build 64 "$name" "$(thunk 64 "$name")"; done
for name in $both $narrow; do build 32 "$name" "$(thunk 32 "$name")"; done

cat >"$directory/selftests/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
cd /bin
for program in *_32 *_64; do
	timeout 120 ./$program >/tmp/said 2>&1
	status=$?
	sed "s/^/$program: /" /tmp/said
	echo "RESULT $program $status"
done
poweroff -f
INIT
tools/fetch-guest "$directory/selftests/init" "$directory/selftests/image.gz" "$directory"/selftests/bin/*
timeout -s KILL 1205 "$umbra" run --time-limit 1200 --kernel build/guest/vmlinuz --initrd "$directory/selftests/image.gz" --memory 1G --cpus 2 --cpu-model "$model" \
	--append "console=ttyS0 quiet" </dev/null 2>&1 | tr -d '\r' >"$directory/selftests.log"
grep -a '^RESULT' "$directory/selftests.log" | while read -r _ name status; do
	case $status in
	0) echo "pass $name" ;;
	4) echo "skip $name" ;;
	*) echo "fail $name ($status)" ;;
	esac
done
tail -n 1 "$directory/selftests.log" | grep -a '^umbra:' || true
