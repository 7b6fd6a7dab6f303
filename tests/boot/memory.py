#!/usr/bin/env python3
"""memory.py UMBRA [told|needs|more|without]...: Linux's own hv_balloon driver gives memory up and takes it back, as it is told and as it needs; the host's use of memory follows,
and what the guest keeps in its memory stays as it is."""
import json, os, subprocess, sys, tempfile, time

import memory_guest
from memory_guest import MIB, check, umbra

class Guest(memory_guest.Guest):
    def __init__(self, *options):
        super().__init__("memory-%d" % os.getpid(), "--cpus", "2", *options)
        self.hear("READY")

    @staticmethod
    def forked(parent, name):
        child = Guest.__new__(Guest)
        child.name = name
        subprocess.run([umbra, "fork", parent.name, "--name", name], check=True, timeout=60, capture_output=True)
        return child

    def info(self):
        return json.loads(subprocess.run([umbra, "info", "--json", self.name], capture_output=True, text=True).stdout)

    def memory(self, *arguments):
        return subprocess.run([umbra, "memory", self.name, *arguments], capture_output=True, text=True)

    def state(self):
        p = self.memory("--json")
        return json.loads(p.stdout) if p.returncode == 0 else {}

    def wait(self, what, condition):
        for _ in range(3000): # five minutes: a busy host
            s = self.state()
            if s and condition(s):
                check(what, True)
                return s
            time.sleep(0.1)
        check("%s: %s" % (what, s), False)
        return s

    def resident(self):
        """What the machine process has of the host's memory, MiB."""
        pids = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        return max(int(open("/proc/%s/statm" % p).read().split()[1]) * 4 >> 10 for p in pids)

def told():
    """As it is told."""
    g = Guest("--memory", "512M", "--memory-min", "512M")
    s = g.wait("the driver is there", lambda s: s["memory-mode"] == "set" and s["assigned"] == 512 * MIB)
    for _ in range(600):
        i = json.loads(subprocess.run([umbra, "info", "--json", g.name], capture_output=True, text=True).stdout)
        if i.get("guest") == "answers":
            break
        time.sleep(0.1)
    check("its heart beats", i.get("guest") == "answers" and i["assigned"] == s["assigned"])
    check("everything is the guest's at first", s["target"] == 512 * MIB)
    g.do("fill", 250)
    check("the host has what the guest has filled", g.resident() > 250)
    g.do("empty")
    free = g.do("look")
    check("--set", g.memory("--set", "200M").returncode == 0)
    g.wait("the guest gives memory up", lambda s: s["assigned"] <= 201 * MIB)
    check("and has it no more", g.do("look") < free - 250)
    check("and the host has it back: %d MiB" % g.resident(), g.resident() < 280)
    g.do("fill", 30)
    check("--set, more than there is", g.memory("--set", "8G").returncode == 0)
    g.wait("all of it comes back", lambda s: s["assigned"] == 512 * MIB)
    g.do("check")
    g.do("empty")
    g.do("fill", 250)
    g.do("check")
    # forked: each side's driver talks to its own machine
    child = Guest.forked(g, g.name + "-child")
    child.wait("a child says at once what it has", lambda s: s["assigned"] == 512 * MIB)
    check("--set of a child", child.memory("--set", "200M").returncode == 0)
    child.wait("it gives memory up, and says so itself", lambda s: s["assigned"] < 500 * MIB)
    child.wait("its heart beats", lambda s: child.info().get("guest") == "answers")
    check("the one that was forked does not", g.state()["assigned"] == 512 * MIB)
    g.do("check")
    check("a child is asked to power off", subprocess.run([umbra, "stop", child.name], timeout=60).returncode == 0)

    for n in range(3): # to and fro, with data in it that has to stay
        g.memory("--set", "%dM" % (380 + 37 * (n % 2) - 20 * n))
        time.sleep(0.7)
        g.do("check")
    check("less than the guest can give", g.memory("--set", "64M").returncode == 0)
    time.sleep(3)
    g.do("check")
    check("leaves what it needs", g.state()["assigned"] > 250 * MIB)
    for wrong in ("lots", "0", "-1", ""):
        p = g.memory("--set", wrong)
        check("--set %r is refused" % wrong, p.returncode == 64 and p.stderr.count("\n") == 1)
    g.end()

def needs():
    """As it needs."""
    g = Guest("--memory", "1G", "--memory-min", "200M")
    s = g.wait("it is adjusted by itself", lambda s: s["memory-mode"] == "automatic" and "committed" in s and s["assigned"] < 500 * MIB)
    check("not below what was said", s["assigned"] >= 200 * MIB)
    small = s["assigned"]
    free = g.do("look")
    g.do("commit", 500)
    s = g.wait("a program that wants memory gets it", lambda s: s["assigned"] > small + 400 * MIB)
    g.do("kill")
    g.wait("and it is taken back", lambda s: s["assigned"] < small + 100 * MIB)
    g.end()

def more():
    """More than it began with: what is added is there, keeps what is put into it, and goes into the balloon as the rest does."""
    g = Guest("--memory", "start=256M,min=200M,max=768M")
    s = g.wait("it has what it starts with", lambda s: s["memory-mode"] in ("automatic", "balanced") and "committed" in s)
    check("and no more", s["held"] <= 384 * MIB)
    check("--set, more than it has", g.memory("--set", "768M").returncode == 0)
    s = g.wait("regions are added", lambda s: s["held"] == 768 * MIB and s["assigned"] == 768 * MIB)
    check("and used", g.do("look") > 600)
    g.do("fill", 500)
    g.do("check")
    check("the host has what the guest has filled", g.resident() > 500)
    g.do("empty")
    g.memory("--set", "256M")
    g.wait("what was added goes into the balloon", lambda s: s["assigned"] <= 258 * MIB)
    check("and the host has it back: %d MiB" % g.resident(), g.resident() < 400)
    g.memory("--set", "auto")
    g.do("commit", 600)
    g.wait("what a program wants comes back", lambda s: s["assigned"] > 600 * MIB)
    g.do("kill")
    g.end()

def without():
    """Without a bus."""
    p = subprocess.Popen([umbra, "run", "--name", "memory-none-%d" % os.getpid(), "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/memory.cpio.gz", "--no-bus"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while b"READY" not in p.stdout.readline():
        pass
    r = subprocess.run([umbra, "memory", "memory-none-%d" % os.getpid()], capture_output=True, text=True)
    check("a machine without a bus says so", r.returncode == 65 and "--no-bus" in r.stderr)
    p.kill()

for part in sys.argv[2:] or ["told", "needs", "more", "without"]:
    globals()[part]()
sys.exit(1 if memory_guest.failures else 0)
