#!/usr/bin/env python3
"""A Debian that works is forked again and again, and what each child has been working at goes on, with right results: forked_load.py UMBRA FORKS [SECONDS].
   compile    a file, over and over: its object has always the same bytes
   disk       fio writes blocks and looks at each again, by checksums, over and over
   network    iperf3 to the host: the parent's goes on; a child's ends, as its connections do, and it can begin another
   stress     stress-ng --verify: memory, vm, processors, timers
A fork's child goes on for SECONDS (1) while its parent stands; then nothing in it may have failed since its machine began, and each must have come further. Of every
twentieth fork the parent goes on, there are two children, and one of these is forked itself. At the end the parent is asked the same, and there is no process left."""
import os, re, subprocess, sys, time

umbra, forks, seconds = os.path.abspath(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 1
from programs_machine import Machines

machines = Machines("forked-load", umbra)
check, guest = machines.check, machines.guest
LOADS = ("compile", "disk", "stress")
MOST_S = 600 # the host may be busy: who stands still for good is found by that, too
WORK = r"""#!/bin/bash
# load LOAD: over and over; a line of /run/load/LOAD for each time, "good" or what was wrong
mkdir -p /run/load /var/load; cd /var/load
say() { echo "$1" >>/run/load/$load; }
load=$1
case $load in
compile)
	while :; do
		gcc -O1 -w -c /var/load/work.c -o /tmp/load.o && sum=$(cksum </tmp/load.o) || { say "gcc: $?"; continue; }
		[ "${first:=$sum}" = "$sum" ] && say good || say "another object: $sum, not $first"
	done ;;
disk)
	while :; do
		fio --name=w --filename=/var/load/fio --size=2M --bs=4k --rw=randwrite --verify=crc32c --do_verify=1 --verify_fatal=1 --direct=1 --ioengine=libaio --iodepth=8 --output=/tmp/fio.out >/tmp/fio.err 2>&1 &&
			say good || say "fio: $? $(grep -ahE 'verify|error|bad' /tmp/fio.out /tmp/fio.err | head -n 3)"
	done ;;
stress)
	while :; do
		stress-ng --cpu 1 --vm 1 --vm-bytes 16M --memcpy 1 --timer 1 --timeout 2s --verify >/tmp/stress.out 2>&1
		status=$? # 3: one of them had no time, or no memory, to do anything
		[ $status = 0 -o $status = 3 ] && ! grep -q fail: /tmp/stress.out && say good || say "stress-ng: $status $(tr '\n' ' ' </tmp/stress.out)"
	done ;;
esac
"""


def done(name):
    """How often each load was good in this machine, and what was not."""
    said, status = guest(name, "cd /run/load; for n in %s; do touch $n; echo $n $(grep -c '^good$' $n); grep -v '^good$' $n; done; true" % " ".join(LOADS), MOST_S)
    counts = {m[1]: int(m[2]) for m in re.finditer(r"^(%s) (\d+)$" % "|".join(LOADS), said, re.M)}
    bad = [l for l in said.split("\n") if not re.fullmatch(r"(%s) \d+" % "|".join(LOADS), l)]
    return counts, bad if status == 0 or bad else ["ended with %d: %s" % (status, said)]


def has_gone_on(before, counts):
    return all(counts.get(load, 0) > before.get(load, 0) for load in LOADS)


def look_at(name, before):
    end = time.time() + MOST_S
    while time.time() < end:
        counts, bad = done(name)
        if bad or has_gone_on(before, counts):
            break
        time.sleep(0.3)
    check("%s: nothing failed" % name, not bad, bad)
    check("%s: it went on" % name, has_gone_on(before, counts), before, counts)
    machines.kernel_is_well(name, name)


def fork(name, child, count, *more):
    r = machines.run("fork", name, "--name", child, "-n", str(count), "--mac", "new", *more, timeout=MOST_S)
    return check("%s is forked" % name, r.returncode == 0, r)


def end(name):
    machines.run("kill", name)
    for file in os.listdir(machines.work.name):
        if re.search(r"\.%s\." % re.escape(name), file):
            os.unlink(machines.path(file))


def has_network(name):
    said, status = guest(name, "iperf3 -J -t 1 -c 10.0.2.2 -p %d | grep -c bits_per_second" % ports[1], MOST_S)
    check("%s: its network works" % name, status == 0, said[-300:])


def with_parent_and_kin(number):
    before, _ = done("one")
    if not fork("one", "c%d" % number, 2):
        return
    names = ["c%d-1" % number, "c%d-2" % number]
    time.sleep(seconds)
    if fork(names[0], "g%d" % number, 1):
        names.append("g%d" % number)
    for name in names:
        look_at(name, before)
    has_network(names[0])
    for name in reversed(names):
        end(name)


def alone(number):
    child = "c%d" % number
    before, _ = done("one")
    if not fork("one", child, 1, "--suspend-parent"):
        return
    time.sleep(seconds)
    look_at(child, before)
    if number % 5 == 0:
        has_network(child)
    end(child)
    check("the parent goes on", machines.run("resume", "one").returncode == 0)


def begin_loads():
    source = subprocess.run(["gcc", "-E", "-P", "-Isrc", "-D_GNU_SOURCE", "src/lib/crc32c.c"], check=True, stdout=subprocess.PIPE, text=True).stdout
    machines.put("one", "/root/load", WORK)
    guest("one", "mkdir -p /var/load")
    machines.put("one", "/var/load/work.c", source)
    for load in LOADS:
        said, status = guest("one", "chmod +x /root/load; systemd-run /root/load %s 2>&1" % load)
        check("%s begins" % load, status == 0, said)
    guest("one", "systemd-run sh -c 'while :; do iperf3 -t 5 -b 20M -c 10.0.2.2 -p %d >/run/iperf 2>&1 || sleep 1; done'" % ports[0])


ports = [5300 + os.getpid() % 1000 * 2 + n for n in range(2)] # the parent's, and the children's
servers = [subprocess.Popen(["sh", "-c", "while :; do iperf3 -s -1 -B 127.0.0.1 -p %d >/dev/null 2>&1; done" % port], start_new_session=True) for port in ports]
try:
    machines.begin("one", "--cpus", "2", "--memory", "1G", "--net", "user,host-loopback")
    begin_loads()
    look_at("one", {})
    for number in range(forks):
        if machines.failed:
            break
        if number % 20 == 0:
            with_parent_and_kin(number)
        else:
            alone(number)
        print("forked-load: %d forks" % (number + 1), flush=True)
    look_at("one", done("one")[0])
    machines.run("kill", "one")
finally:
    for server in servers:
        os.killpg(server.pid, 15)
sys.exit(machines.failed)
