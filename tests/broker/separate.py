#!/usr/bin/env python3
"""The processes of a machine with a disk and a name, seen from outside: each is a program of its own with an empty environment, what lies
at random places lies elsewhere in each, none maps anything of another but what its row says, holds no descriptor beyond its row, no
capability, and its own namespaces.   usage: separate.py UMBRA KERNEL INITRD"""
import atexit, os, re, signal, subprocess, sys, tempfile, time

import observed
from observed import all_of, expect, is_reaper, read, role_of

umbra, kernel, initrd = sys.argv[1:4]


def is_forker(pid):
    return role_of(pid) == "machine" and len(os.listdir("/proc/%d/task" % pid)) == 1


def namespaces(pid):
    return {n: os.readlink("/proc/%d/ns/%s" % (pid, n)) for n in ["user", "net", "ipc", "mnt", "uts", "cgroup", "pid"]}


class Process:
    def __init__(self, pid):
        self.pid = pid
        self.maps = [line.split(None, 5) for line in read(pid, "maps").splitlines()]
        self.environment = read(pid, "environ")
        self.status = dict(line.split(":", 1) for line in read(pid, "status").splitlines())
        self.descriptors = {int(n): os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)}
        self.namespaces = namespaces(pid)
        self.root = os.listdir("/proc/%d/root" % pid)

    def place(self, name):
        return [m[0].split("-")[0] for m in self.maps if len(m) > 5 and m[5].startswith(name)][:1]

    def shared(self):
        return {re.sub(r" \(deleted\)", "", m[5]) for m in self.maps if "s" in m[1]}


def start(where):
    disk = os.path.join(where, "disk.raw")
    with open(disk, "wb") as f:
        f.truncate(8 << 20)
    console = os.path.join(where, "console")
    machine = subprocess.Popen([umbra, "run", "--name", "separate", "--kernel", kernel, "--initrd", initrd, "--append", "console=ttyS0 halt=1",
                                "--console", console, "--disk", disk + ",format=raw"], stdin=subprocess.DEVNULL,
                               env={**os.environ, "XDG_RUNTIME_DIR": where, "SECRET_OF_THE_USER": "x"})
    end = time.time() + 40
    while time.time() < end and not (os.path.exists(console) and b"READY" in open(console, "rb").read()):
        time.sleep(0.05)
    return machine


with tempfile.TemporaryDirectory() as where:
    machine = start(where)
    atexit.register(machine.kill)
    roles = {role_of(pid): Process(pid) for pid in all_of(machine.pid) if role_of(pid) != "supervisor" and not is_forker(pid) and not is_reaper(pid)}
    expect("broker, machine, disk process, keeper and relay", sorted(roles) == ["broker", "disk", "keeper", "machine", "relay"], roles.keys())
    for name, p in roles.items():
        expect("%s: an empty environment" % name, p.environment == "")
        expect("%s: no capability" % name, all(int(p.status[c], 16) == 0 for c in ["CapInh", "CapPrm", "CapEff", "CapAmb"]))
        expect("%s: no new privileges, and a list of calls" % name, p.status["NoNewPrivs"].strip() == "1" and p.status["Seccomp"].strip() == "2")
        expect("%s: nothing is writable and executable" % name, not [m for m in p.maps if "w" in m[1] and "x" in m[1]])
    for what in ["[heap]", "[stack]", "[vdso]", "/usr/lib/x86_64-linux-gnu/libc.so", os.path.realpath(umbra)]:
        places = [tuple(p.place(what)) for p in roles.values()]
        expect("%s lies elsewhere in each" % what, len(set(places)) == len(places) and () not in places, places)
    shared = {name: {s for s in p.shared() if "umbra-code" not in s} for name, p in roles.items()}
    expect("the broker maps rings only", shared.get("broker") == {"/memfd:umbra-rings"}, shared)
    expect("the disk process maps slots, and what the keeper is told", {s for s in shared.get("disk", ()) if "io_uring" not in s} ==
           {"/memfd:umbra-slots", "/memfd:umbra-side"}, shared)
    expect("the keeper maps what it is told", shared.get("keeper") == {"/memfd:umbra-side"}, shared)
    expect("the relay maps its connections", shared.get("relay") == {"/memfd:umbra-connections"}, shared)
    expect("the machine process maps rings and slots", shared.get("machine") == {"/memfd:umbra-rings", "/memfd:umbra-slots", "/memfd:umbra-connections"}, shared)
    for name, p in roles.items():
        files = [m[5] for m in p.maps if len(m) > 5 and m[5].startswith("/") and ("s" in m[1] or "disk.raw" in m[5])]
        expect("%s: maps no file that another can change" % name, all(f.startswith(("/memfd:", "/dev/shm")) or "io_uring" in f for f in files), files)
    kinds = {name: sorted({re.sub(r"\d+", "", t) for t in p.descriptors.values()}) for name, p in roles.items()}
    expect("the machine process holds events only", kinds["machine"] == ["anon_inode:[eventfd]"], kinds["machine"])
    expect("the broker keeps nothing that it only passed on", not re.search("umbra-slots|umbra-side|umbra-plan|vmlinuz|cpio|bin/umbra|build/umbra", str(roles["broker"].descriptors)),
           roles["broker"].descriptors)
    expect("it has five of them", len(roles["machine"].descriptors) == 5, roles["machine"].descriptors)
    expect("the broker holds no disk", "disk.raw" not in str(roles["broker"].descriptors.values()))
    expect("the disk process holds no console, and one socket", not re.search("console|socket.*socket", str(roles["disk"].descriptors) if "disk" in roles else "console"))
    own = namespaces(os.getpid())
    if roles["machine"].namespaces["user"] != own["user"]: # a host that permits it
        for name, p in roles.items():
            same = [n for n in own if p.namespaces[n] == own[n] and n != "pid"]
            expect("%s: namespaces of its own" % name, not same, same)
        for name in ["broker", "machine", "disk"]:
            expect("%s: an empty root" % name, not roles[name].root, roles[name].root)
        expect("relay: a root with its own socket alone", roles["relay"].root == ["s"], roles["relay"].root)
        expect("no two of them share one", all(len({p.namespaces[n] for p in roles.values()}) == 5 for n in own if n != "pid"))
    refused = subprocess.run([umbra, "fork", "separate"], capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": where})
    expect("a machine with a raw disk is not forked", refused.returncode == 65 and "has to be VHDX" in refused.stderr, refused)
    machine.send_signal(signal.SIGINT)
    expect("it ends in order", machine.wait(60) == 0)
sys.exit(observed.failed != 0)
