#!/bin/sh
# Linux's own hv_vmbus driver on every processor: it finds its device, sets up message and event pages, SINT and timers, and is told
# that nobody is at the other end (there is no bus yet): it says so and the machine goes on.
set -eu
cd "$(dirname "$0")/../.."
cat >build/guest/vmbus.init <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox insmod /bin/hv_vmbus.ko
/bin/busybox dmesg | /bin/busybox grep -i vmbus
[ -e /sys/bus/acpi/devices/UMBR0001:00 ] && echo INFORMATION DEVICE
/bin/busybox sleep 1
echo STILL WELL
/bin/busybox poweroff -f
INIT
tools/fetch-guest build/guest/vmbus.init build/guest/vmbus.cpio.gz build/guest/modules/hv_vmbus.ko
status=0
timeout -s KILL 60 "${UMBRA:-build/umbra}" run --kernel build/guest/vmlinuz --initrd build/guest/vmbus.cpio.gz --memory 512M --cpus 4 \
	--append "console=ttyS0" --statistics </dev/null >build/guest/vmbus.log 2>&1 || status=$?
[ "$status" = 0 ] || { echo "vmbus-driver: ended with $status"; exit 1; }
for line in "hv_vmbus: Unable to connect to host" "INFORMATION DEVICE" "STILL WELL" "0x12: "; do
	grep -qa "$line" build/guest/vmbus.log || { echo "vmbus-driver: no line '$line' in build/guest/vmbus.log"; exit 1; }
done
