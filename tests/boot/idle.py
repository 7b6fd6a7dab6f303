#!/usr/bin/env python3
"""A machine that has booted and has nothing to do gives back what it made for booting: what its process occupies beside the guest's memory.
usage: idle.py UMBRA [MIB]: at most so much (24); prints what it is"""
import os, re, subprocess, sys, tempfile, time

umbra, most_mib = os.path.abspath(sys.argv[1]), int((sys.argv[2:] or ["24"])[0])
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
subprocess.run(["tools/fetch-guest", "tests/boot/spin.init", "build/guest/spin.cpio.gz"], check=True)
MEMORY_KIB = 512 << 10


def beside_kib(pid): # the guest's memory is the largest mapping, and whole
    found = []
    with open("/proc/%d/smaps" % pid) as f:
        for line in f:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                begin, end = (int(n, 16) for n in line.split()[0].split("-"))
            elif line.startswith("Rss:") and (end - begin) >> 10 != MEMORY_KIB:
                found.append(int(line.split()[1]))
    return sum(found)


with tempfile.TemporaryDirectory() as where:
    os.environ["XDG_RUNTIME_DIR"] = where
    console = os.path.join(where, "console")
    machine = subprocess.Popen([umbra, "run", "--name", "idle", "--time-limit", "240", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/spin.cpio.gz", "--memory", "512M",
                                "--append", "console=ttyS0 halt=1", "--console", console], stdin=subprocess.DEVNULL)
    until = time.time() + 200
    while time.time() < until and not (os.path.exists(console) and b"READY" in open(console, "rb").read()):
        time.sleep(0.1)
    said = subprocess.run([umbra, "info", "idle", "--json"], capture_output=True, timeout=60).stdout.decode()
    pid = int(re.search(r'"process": ?(\d+)', said).group(1))
    before = now = beside_kib(pid)
    while time.time() < until and now > most_mib << 10:
        time.sleep(0.5)
        now = beside_kib(pid)
    said = subprocess.run([umbra, "info", "--code", "idle"], capture_output=True, timeout=60).stdout.decode()
    given = int(re.search(r"regions-given-back +(\d+)", said).group(1))
    print("%d regions given back" % given)
    print("booted %.1f MiB, idle %.1f MiB" % (before / 1024, now / 1024))
    subprocess.run([umbra, "stop", "idle"], timeout=60, capture_output=True)
    sys.exit(machine.wait(60) != 0 or now > most_mib << 10 or not given)
