#!/bin/sh
# Linux's own hv_vmbus driver on every processor: it finds its device, sets up message and event pages, SINT and timers, and connects;
# without a bus there is no device, nobody waits for one, and the machine goes on.
set -eu
cd "$(dirname "$0")/../.."
cat >build/guest/vmbus.init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox insmod /bin/hv_vmbus.ko
/bin/busybox dmesg | /bin/busybox grep -i vmbus
[ -e /sys/bus/acpi/devices/VMBUS:00 ] && echo VMBUS DEVICE
[ -e /sys/bus/acpi/devices/UMBR0001:00 ] && echo INFORMATION DEVICE
/bin/busybox sleep 1
echo STILL WELL
/bin/busybox poweroff -f
INIT
tools/fetch-guest build/guest/vmbus.init build/guest/vmbus.cpio.gz build/guest/modules/hv_vmbus.ko
begin() { # LOG OPTION...
	log=$1 status=0
	shift
	timeout -s KILL 60 "${UMBRA:-build/umbra}" run --time-limit 55 --kernel build/guest/vmlinuz --initrd build/guest/vmbus.cpio.gz --memory 512M --cpus 4 \
		--append "console=ttyS0" --statistics "$@" </dev/null >"$log" 2>&1 || status=$?
	[ "$status" = 0 ] || { echo "vmbus-driver: $*: ended with $status"; exit 1; }
}
says() { # LINE...
	for line in "$@"; do
		grep -qa "$line" "$log" || { echo "vmbus-driver: no line '$line' in $log"; exit 1; }
	done
}
begin build/guest/vmbus.log
says "hv_vmbus: Vmbus version:5" "VMBUS DEVICE" "INFORMATION DEVICE" "STILL WELL"
begin build/guest/vmbus-none.log --no-bus
says "INFORMATION DEVICE" "STILL WELL"
! grep -qa "VMBUS DEVICE\|Unable to connect" "$log" || { echo "vmbus-driver: a device without a bus, in $log"; exit 1; }
