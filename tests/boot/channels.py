#!/usr/bin/env python3
# Linux whose network card and disk have a channel for each processor: how many there are, that they are used, that they come again after the device is
# opened anew (another MTU, another driver), and that all goes on while the machine is saved and forked with them open. channels.py UMBRA AGENT [CPUS...]
import os, subprocess, sys

import net_machine, several_machine
from net_machine import check, guest, run, umbra, until, work
from several_machine import begin


def several(name, cpus):
    want = {"hv_netvsc": cpus, "hv_storvsc": cpus}
    have = lambda: {l.split()[0]: int(l.split()[1]) for l in guest(name, "channels").split("\n") if l}
    check("channels of " + name, until("the channels of %s" % name, lambda: have() == want), have())


def rounds(name, cpus):
    return [int(guest(name, "cat /tmp/rounds%d 2>/dev/null" % n) or 0) for n in range(cpus)]


def goes_on(name, cpus):
    before = rounds(name, cpus)
    until("every processor of %s uses the disk" % name, lambda: all(a > b for a, b in zip(rounds(name, cpus), before)))


def ends_well(name, cpus):
    guest(name, "touch /tmp/enough")
    until("%s has used its disk" % name, lambda: guest(name, "pidof use-disk") == "")
    used = guest(name, "cat /tmp/used").split("\n")
    check("its disk as it was used", len(used) == cpus and all(l.startswith("PART") for l in used), used)
    several_machine.is_well(name)


def talks(name):
    return until(name + " reaches its network", lambda: "1 packets received" in guest(name, "ping -c 1 -W 2 10.0.2.2"))


def machine(cpus):
    disk, one, saved = (os.path.join(work.name, "%s%d" % (n, cpus)) for n in ("disk.vhdx", "one", "saved"))
    subprocess.run([umbra, "disk", "create", disk, "--size", "64M"], check=True, stdout=subprocess.DEVNULL)
    first = begin("one", *boots, "--cpus", str(cpus), "--net", "user", "--disk", disk)
    guest("one", "join")
    several("one", cpus)
    # opened anew
    for what in "ifconfig eth0 mtu 1400", "ifconfig eth0 down; rmmod hv_netvsc; insmod /bin/hv_netvsc.ko; join", "rmmod hv_storvsc; insmod /bin/hv_storvsc.ko":
        guest("one", what)
        several("one", cpus)
    check("the network answers", talks("one"))
    # in use, and saved
    until("there is a disk", lambda: guest("one", "[ -b /dev/sda ] && echo there") == "there")
    guest("one", "use-disk %d >/tmp/use 2>&1 &" % cpus)
    goes_on("one", cpus)
    busy = guest("one", "for n in 1 2 3 4 5 6 7 8; do ping -c 2 -s 3000 10.0.2.2 >/dev/null & done; wait; channels").split("\n")
    check("each channel of the disk was used", ["hv_storvsc", str(cpus), str(cpus)] in [l.split() for l in busy], busy)
    done = run("save", "--stop", "one", saved)
    check("saved", done.returncode == 0 and first.wait(60) == 0, done.stderr)
    second = begin("two", "--restore", saved)
    several("two", cpus)
    goes_on("two", cpus)
    check("the network answers again", talks("two"))
    guest("two", "ifconfig eth0 mtu 1300")
    several("two", cpus)
    # forked
    done = run("fork", "two", "--name", "three", "--console", os.path.join(work.name, "three.log"))
    check("forked", done.returncode == 0, done.stderr)
    for name in "two", "three":
        several(name, cpus)
        goes_on(name, cpus)
        check("the network of %s answers" % name, talks(name))
        ends_well(name, cpus)
    run("kill", "three")
    run("kill", "two")
    second.wait(60)


boots = several_machine.build()
for cpus in sys.argv[3:] or ["2", "4"]:
    machine(int(cpus))
sys.exit(net_machine.failed)
