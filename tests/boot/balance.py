#!/usr/bin/env python3
"""balance.py UMBRA: two Linux guests and their balancer: what they have follows what they need and what the host has left, the data in them stays, and
without the balancer each follows its own guest again."""
import atexit, json, os, re, signal, subprocess, sys, tempfile, time, xml.dom.minidom

import memory_guest
from memory_guest import MIB, check, umbra

folder = tempfile.TemporaryDirectory()
os.environ["XDG_RUNTIME_DIR"] = folder.name # a balancer of its own

def memory(*arguments):
    return subprocess.run([umbra, "memory", *arguments], capture_output=True, text=True, timeout=60)

def all_machines():
    p = memory("--json")
    return {m["name"]: m for m in json.loads(p.stdout)["machines"]} if p.returncode == 0 else {}

def wait(what, condition):
    machines = {}
    for _ in range(600): # a minute: a busy host
        machines = all_machines()
        if condition(machines):
            check(what, True)
            return machines
        time.sleep(0.1)
    check("%s: %s" % (what, machines), False)
    return machines

class Guest(memory_guest.Guest):
    def __init__(self, name, words):
        super().__init__(name, "--memory", words)
        atexit.register(self.process.kill) # the machine ends with its broker

def holds(pid, sockets):
    try:
        return any(os.readlink("/proc/%d/fd/%s" % (pid, fd)) in sockets for fd in os.listdir("/proc/%d/fd" % pid))
    except OSError:
        return False

def balancers(): # that listen in this test's folder: others may run their own
    sockets = {"socket:[%s]" % line.split()[6] for line in open("/proc/net/unix") if folder.name in line}
    found = subprocess.run(["pgrep", "-f", "role=balancer"], capture_output=True, text=True).stdout.split()
    return [int(p) for p in found if holds(int(p), sockets)]

def tells_of_none():
    none = memory()
    return none.returncode == 0 and "no machine whose memory is adjusted runs" in none.stdout

check("without machines there is nothing to tell", tells_of_none())
before = set(balancers())
one = Guest("one", "start=256M,min=128M,max=512M")
two = Guest("two", "start=256M,min=128M,max=256M,weight=1000")
one.hear("READY")
two.hear("READY")
started = set(balancers()) - before
check("one balancer was started", len(started) == 1)
machines = wait("both are balanced", lambda m: set(m) == {"one", "two"} and all(v["mode"] == "balanced" for v in m.values()))
one.do("fill", 20)
wait("they have what they need, and not much more", lambda m: all(v["assigned"] <= v["demand"] * 5 // 4 + 160 * MIB for v in m.values()))
check("no less than they use", all(v["assigned"] >= v["working-set"] for v in all_machines().values()))

# more in one
small = all_machines()["one"]["assigned"]
one.do("fill", 150)
wait("who begins to use more gets it, also beyond what it started with", lambda m: m["one"]["assigned"] > small + 50 * MIB and m["one"]["assigned"] > 256 * MIB)

# a host that is short
check("--reserve", memory("--reserve", "%dM" % (int(re.search(r"MemTotal: *(\d+)", open("/proc/meminfo").read()).group(1)) >> 10)).returncode == 0)
wait("on a host that is short nobody has what he does not use", lambda m: any(v["reason"] == "the host is short" for v in m.values()) and m["two"]["assigned"] <= 200 * MIB)
one.do("check")
check("--reserve auto", memory("--reserve", "auto").returncode == 0)
one.do("empty")
two.do("commit", 150)
wait("there is room again", lambda m: m["two"]["assigned"] > 210 * MIB)
two.do("kill")

# a fork: what both have is counted in part
p = subprocess.run([umbra, "fork", "two", "--name", "three"], capture_output=True, text=True, timeout=60)
check("fork", p.returncode == 0)
wait("a forked machine is balanced, too, and what it shares is known", lambda m: "three" in m and m["three"]["mode"] == "balanced" and
     m["three"]["shared"] > 20 * MIB and m["two"]["shared"] > 20 * MIB)
check("it is killed", subprocess.run([umbra, "kill", "three"], timeout=60).returncode == 0)

# what is shown
shown = memory()
check("it is shown with reasons", "one" in shown.stdout and "ago" in shown.stdout and "MiB" in shown.stdout)
svg = os.path.join(folder.name, "memory.svg")
check("--svg", memory("--svg", svg).returncode == 0 and len(xml.dom.minidom.parse(svg).getElementsByTagName("polyline")) in (10, 14))
check("--svg does not write over a file", memory("--svg", svg).returncode == 65)
check("--reserve of nothing", memory("--reserve", "0").returncode == 64)
check("a set target is left alone", memory("one", "--set", "300M").returncode == 0)
wait("and shown as such", lambda m: m["one"]["mode"] == "set" and m["one"]["assigned"] == 300 * MIB)
memory("one", "--set", "auto")

# another one, soon
def of_machine(name):
    found = set(balancers()) - before
    return found and all_machines().get(name, {}).get("mode") == "balanced" and found
for pid in started:
    os.kill(pid, signal.SIGKILL)
for _ in range(600):
    now = of_machine("one") and of_machine("two")
    if now and not now & started:
        break
    time.sleep(0.1)
check("a balancer that dies is started again, and has all machines: %s after %s" % (now, started), now and len(now) == 1 and not now & started)

# without it, and without who would join again
def joins_again(guest):
    children = open("/proc/%d/task/%d/children" % (guest.process.pid, guest.process.pid)).read().split()
    return [int(p) for p in children if b"--role=" not in open("/proc/%s/cmdline" % p, "rb").read()]
for guest in one, two:
    check("one process stays to join again", len(joins_again(guest)) == 1)
    status = [open("/proc/%d/status" % pid).read() for pid in joins_again(guest)]
    check("under a list of calls", all(re.search(r"Seccomp:\s+2\n", text) for text in status))
    for pid in joins_again(guest):
        os.kill(pid, signal.SIGKILL)
for pid in now or ():
    os.kill(pid, signal.SIGKILL)
for _ in range(600):
    mode = json.loads(memory("one", "--json").stdout)["memory-mode"]
    if mode == "automatic":
        break
    time.sleep(0.1)
check("without a balancer each follows its own guest", mode == "automatic")
check("and there is nothing to tell of all", tells_of_none())
one.end()
two.end()
sys.exit(1 if memory_guest.failures else 0)
