#!/usr/bin/env python3
# What lasts: Linux with cards and disks in use, while something is taken away from it. load.py UMBRA AGENT PART...
#   iperf    Debian's iperf3, both ways: in user mode against the host, on a switch against another machine; prints what went
#   flap     a stream between two machines, every byte of it looked at, while their switch is killed again and again
#   vlan     two machines on a switch: a VLAN, and frames of 9000 bytes, and both
#   reload   every driver of the bus's is taken away and comes again under load
#   kill     each process that helps a machine is killed under load: what can be started again is, and nothing else notices
import json, os, re, shutil, signal, subprocess, sys, time

import net_machine, several_machine
from net_machine import check, free_port, guest, run, until, work
from several_machine import begin, is_well

STREAM_SECONDS, FLAPS, RELOADS = int(os.environ.get("STREAM_SECONDS", "5")), 6, 2
switch = "load-%d" % os.getpid()
disk = os.path.join(work.name, "disk.vhdx")


def libraries(program):
    said = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+\.so\S*) \(", said)


def helpers(role):
    """The processes of this role that this test's machines have, by their control group of one parent: the test itself."""
    rows = [l.split(None, 2) for l in subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout.split("\n")[1:] if l]
    family = {str(os.getpid())}
    for _ in range(6):
        family |= {r[0] for r in rows if r[1] in family}
    return [int(r[0]) for r in rows if r[0] in family and r[2] == "umbra --role=" + role]


def switch_process():
    with open("/proc/net/unix") as f:
        sockets = {"socket:[%s]" % l.split()[6] for l in f if l.rstrip().endswith(switch)}
    for line in subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout.split("\n"):
        if line.endswith("umbra --role=switch"):
            fds = "/proc/%s/fd" % line.split()[0]
            try:
                if any(os.readlink(os.path.join(fds, fd)) in sockets for fd in os.listdir(fds)):
                    return int(line.split()[0])
            except OSError:
                pass # it has ended meanwhile
    return None


def two_on_a_switch(boots):
    for n, name in enumerate(("one", "two"), 1):
        begin(name, *boots, "--cpus", "2", "--net", "switch=" + switch)
        until("the card of " + name, lambda: guest(name, "ifconfig eth0 10.9.0.%d netmask 255.255.255.0 mtu 9000 up; cat /sys/class/net/eth0/carrier" % n) == "1")
    until("they meet", lambda: "1 packets received" in guest("one", "ping -c 1 -W 2 10.9.0.2"))


def end(*names):
    for name in names:
        is_well(name)
        run("kill", name)


# ---- iperf3 ----

def iperf(name, where, port, more):
    text = guest(name, "LD_LIBRARY_PATH=/bin iperf3 -J -c %s -p %d -t %d %s" % (where, port, STREAM_SECONDS, more))
    try:
        said = json.loads(text)
        return said["end"]["sum_received"]["bits_per_second"] / 1e6
    except (ValueError, KeyError):
        check("iperf3 of %s" % name, False, text[-300:])
        return 0


def both_ways(what, name, where, port):
    for way, more in ("out", ""), ("in", "-R"), ("in, four at once", "-R -P 4"):
        rate = iperf(name, where, port, more)
        check("%s, %s: something went" % (what, way), rate > 1, rate)
        print("iperf3 %s %s: %.0f Mbit/s" % (what, way, rate))


def part_iperf():
    if not shutil.which("iperf3"):
        check("Debian's iperf3 is installed", False)
        return
    boots = several_machine.build("iperf", [shutil.which("iperf3"), *libraries(shutil.which("iperf3"))])
    port = free_port()
    server = subprocess.Popen(["iperf3", "-s", "-B", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL)
    begin("user", *boots, "--cpus", "2", "--net", "user,host-loopback")
    guest("user", "join")
    both_ways("user mode", "user", "10.0.2.2", port)
    server.kill()
    server.wait()
    end("user")
    two_on_a_switch(boots)
    guest("two", "LD_LIBRARY_PATH=/bin iperf3 -s -D >/dev/null 2>&1")
    both_ways("switch", "one", "10.9.0.2", 5201)
    end("one", "two")


# ---- a stream while the link goes ----

def part_flap():
    two_on_a_switch(several_machine.build())
    guest("two", "net_peer listen 5001 >/dev/null 2>&1 &")
    guest("one", "(net_peer check-give-until 10.9.0.2 5001 /tmp/enough && echo WHOLE || echo CUT) >/tmp/given 2>&1 &")
    went = lambda: int(guest("one", "cat /sys/class/net/eth0/statistics/tx_bytes") or 0)
    for n in range(FLAPS):
        before = went()
        until("bytes go, %d" % n, lambda: went() > before + 2000000)
        process = switch_process()
        check("there is a switch", process)
        os.kill(process, signal.SIGKILL)
    before = went()
    until("bytes go at last", lambda: went() > before + 2000000)
    guest("one", "touch /tmp/enough")
    until("every byte came", lambda: "WHOLE" in guest("one", "cat /tmp/given"))
    # the driver shows what it hears of a link two seconds apart
    until("the link went down each time", lambda: int(guest("one", "cat /sys/class/net/eth0/carrier_down_count") or 0) >= FLAPS)
    end("one", "two")


# ---- VLANs and long frames ----

def part_vlan():
    two_on_a_switch(several_machine.build())
    for n, name in enumerate(("one", "two"), 1):
        guest(name, "for m in llc stp garp mrp 8021q; do insmod /bin/$m.ko; done; vconfig add eth0 5; ifconfig eth0.5 10.8.0.%d netmask 255.255.255.0 up; net_peer listen 5001 >/dev/null 2>&1 &" % n)
    for where in "10.9.0.2", "10.8.0.2":
        until("%s answers" % where, lambda: "1 packets received" in guest("one", "ping -c 1 -W 2 " + where))
        check("a frame of 8,900 bytes to " + where, "3 packets received" in guest("one", "ping -c 3 -s 8900 -W 2 " + where))
        for way in "give", "take":
            said = guest("one", "net_peer check-%s %s 5001 20000000 && echo GOOD" % (way, where))
            check("%s, every byte, %s" % (way, where), said.endswith("GOOD"), said)
    guest("two", "killall net_peer; ifconfig eth0.5 down; vconfig rem eth0.5; vconfig add eth0 6; ifconfig eth0.6 10.8.0.2 netmask 255.255.255.0 up")
    said = guest("one", "ping -c 2 -W 1 10.8.0.2; true")
    check("another VLAN is another network", " 0 packets received" in said, said)
    end("one", "two")


# ---- drivers that go and come ----

def begin_used():
    """A machine with a disk and a card in use; what to ask whether both go on."""
    if not os.path.exists(disk):
        subprocess.run([net_machine.umbra, "disk", "create", disk, "--size", "64M"], check=True, stdout=subprocess.DEVNULL)
    begin("used", *several_machine.build(), "--cpus", "2", "--net", "user", "--disk", disk)
    guest("used", "join")
    until("there is a disk", lambda: guest("used", "[ -b /dev/sda ] && echo there") == "there")
    begin_use()


def begin_use():
    guest("used", "rm -f /tmp/enough /tmp/rounds* /tmp/used; use-disk 2 >/tmp/use 2>&1 & while [ ! -e /tmp/enough ]; do ping -c 50 -i 0.02 -s 4000 10.0.2.2; done >/dev/null 2>&1 &")
    goes_on()


def goes_on():
    rounds = lambda: int(guest("used", "cat /tmp/rounds0") or 0)
    before = rounds()
    until("the disk is used", lambda: rounds() > before)
    until("the network answers", lambda: "1 packets received" in guest("used", "ping -c 1 -W 2 10.0.2.2"))


def end_use():
    guest("used", "touch /tmp/enough")
    until("the disk is at rest", lambda: guest("used", "pidof use-disk") == "")
    check("its bytes", "BAD" not in guest("used", "cat /tmp/used"), guest("used", "cat /tmp/used"))


def part_reload():
    begin_used()
    for _ in range(RELOADS):
        for module in "hv_netvsc", "hyperv-keyboard", "hv_utils": # hv_balloon stays, says Linux; who asks comes by hv_sock
            guest("used", "rmmod %s" % module.replace("-", "_"))
            check(module + " is away", module.replace("-", "_") not in guest("used", "cut -d' ' -f1 /proc/modules").split())
            guest("used", "insmod /bin/%s.ko; [ %s != hv_netvsc ] || join" % (module, module))
            goes_on()
        end_use()
        guest("used", "rmmod hv_storvsc; insmod /bin/hv_storvsc.ko")
        until("the disk is there again", lambda: guest("used", "[ -b /dev/sda ] && echo there") == "there")
        begin_use()
    end_use()
    end("used")


# ---- processes that end ----

def killed(role):
    before = helpers(role)
    check("there is a process: " + role, before)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    return before


def part_kill():
    begin_used()
    for role in "net", "relay", "net":
        before = killed(role)
        until("another one: " + role, lambda: helpers(role) and not set(helpers(role)) & set(before))
        until("the agent answers", lambda: guest("used", "echo here") == "here")
        goes_on()
    end_use()
    end("used")
    # without its disks a machine ends, and says so; what it has flushed is there
    begin_used()
    guest("used", "touch /tmp/enough; sleep 1; head -c 4096 /dev/zero | tr '\\0' U | dd of=/dev/sda bs=4096 seek=100 conv=fsync 2>/dev/null; sync")
    killed("disk")
    until("the machine ends", lambda: "used" not in run("ps").stdout)
    dump = os.path.join(work.name, "dump.raw")
    subprocess.run([net_machine.umbra, "disk", "convert", disk, dump, "--to", "raw"], check=True, stdout=subprocess.DEVNULL)
    with open(dump, "rb") as f:
        f.seek(100 * 4096)
        check("what it has flushed is there", f.read(4096) == b"U" * 4096)


for part in sys.argv[3:]:
    begun = time.time()
    globals()["part_" + part]()
    print("load: %s took %.0f s" % (part, time.time() - begun))
sys.exit(net_machine.failed)
