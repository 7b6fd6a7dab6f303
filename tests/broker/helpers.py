#!/usr/bin/env python3
"""The processes that serve a machine, seen from outside: none has the terminal, none waits on an event that another can fill, no card has
anything in common with another, and all end with the machine, also one that does not listen, and with a broker that is killed.
usage: helpers.py UMBRA GUEST"""
import os, pty, re, signal, subprocess, sys, tempfile

import observed
from observed import all_of, children, descriptors, expect, is_there, meeting, read, role_of, state, wait_for

umbra, guest = sys.argv[1:3]
NONBLOCK = 0o4000


def flags(pid, fd):
    return int(re.search(r"flags:\s*(\d+)", read(pid, "fdinfo/%d" % fd)).group(1), 8)


def start(where):
    disk = os.path.join(where, "disk.raw")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    ours, theirs = pty.openpty()
    broker = subprocess.Popen([umbra, "run", "--name", "helpers", "--kernel", guest, "--console", "none", "--disk", disk + ",format=raw",
                               "--net", "user", "--net", "user", "--net", "switch=helpers"], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    here = wait_for(lambda: subprocess.run([umbra, "info", "helpers"], capture_output=True).returncode == 0)
    expect("a machine with a disk and three cards begins", here and wait_for(lambda: len(all_of(broker.pid)) == 19), all_of(broker.pid))
    return broker, ours, {pid: role_of(pid) for pid in all_of(broker.pid) + meeting(where, "switch")}


def tree(pid):
    """What its root has, and whether that is another one than ours."""
    root = "/proc/%d/root/" % pid
    return sorted(os.path.relpath(os.path.join(where, name), root) for where, folders, files in os.walk(root) for name in folders + files)


def of_role(roles, role):
    return [pid for pid in roles if roles[pid] == role]


def look(roles):
    helpers = [pid for pid in roles if roles[pid] not in ("broker", "machine")]
    held = {pid: descriptors(pid) for pid in roles}
    expect("its processes", sorted(roles.values()) == sorted(["broker", "machine", "machine", "disk", "disk", "keeper", "keeper", "line", "relay", "switch"] + ["net"] * 2 + ["supervisor"] * 8), roles)
    nets = [pid for pid, role in roles.items() if role == "net"]
    if os.path.exists("/etc/resolv.conf") and os.readlink("/proc/%d/ns/mnt" % nets[0]) != os.readlink("/proc/self/ns/mnt"):
        expect("a net process has a copy of what names the name servers, and nothing else",
               all(tree(pid) == ["etc", "etc/resolv.conf"] for pid in nets), [tree(pid) for pid in nets])
    for pid in helpers:
        expect("%s: no terminal" % roles[pid], not [f for f in held[pid].values() if "/dev/pts" in f or "/dev/tty" in f], held[pid])
    for pid in of_role(roles, "disk") + of_role(roles, "net") + of_role(roles, "line"):
        events = [fd for fd, what in held[pid].items() if what == "anon_inode:[eventfd]"]
        expect("%s: its events do not block" % roles[pid], all(flags(pid, fd) & NONBLOCK for fd in events), events)
    for role in "disk", "keeper":
        reapers = [pid for pid in of_role(roles, role) if not children(pid)]
        expect("the %s process has one that ends it when it does not by itself" % role,
               len(reapers) == 1 and wait_for(lambda: len(descriptors(reapers[0])) == 2), [held[pid] for pid in reapers])
    machine = of_role(roles, "machine")[0]
    expect("the machine process: of cards it has pipes, that do not block",
           len([fd for fd, what in held[machine].items() if what.startswith("pipe:") and flags(machine, fd) & NONBLOCK]) == 6, held[machine])
    cards = of_role(roles, "net") + of_role(roles, "line")
    common = {pid: {what for fd, what in held[pid].items() if fd > 2 and what.startswith(("pipe:", "anon_inode:[eventfd]"))} for pid in cards}
    expect("no two cards have an event in common", all(not common[a] & common[b] for a in cards for b in cards if a != b), common)
    expect("nor an end of what the machine process has",
           not [pid for pid in cards for fd, what in held[pid].items() for other, same in held[machine].items()
                if what == same and what.startswith("pipe:") and flags(pid, fd) & 3 == flags(machine, other) & 3])
    own = os.readlink("/proc/self/ns/net")
    line = of_role(roles, "line")[0]
    if os.readlink("/proc/%d/ns/user" % line) != os.readlink("/proc/self/ns/user"): # a host that permits it
        expect("who serves a switch's line has a network of its own", os.readlink("/proc/%d/ns/net" % line) != own)
    switch = of_role(roles, "switch")[0]
    expect("the switch says nothing to anybody", held[switch].get(2) == "/dev/null", held[switch])
    os.kill(switch, signal.SIGKILL)
    expect("a switch that ends is no zombie of whoever started it", wait_for(lambda: not is_there(switch)) and
           wait_for(lambda: not [c for pid in roles if is_there(pid) for c in children(pid) if state(c) == "Z"]))


with tempfile.TemporaryDirectory() as where:
    os.environ["XDG_RUNTIME_DIR"] = where
    broker, terminal, roles = start(where)
    look(roles)
    rest = [pid for pid in roles if roles[pid] != "switch"]
    for pid in of_role(roles, "net"): # one that does not hear of the end
        os.kill(pid, signal.SIGSTOP)
    subprocess.run([umbra, "stop", "helpers"], timeout=60, capture_output=True)
    expect("stop ends it, also when net processes do not listen", broker.wait(60) == 0, broker.returncode)
    expect("and nothing is left", wait_for(lambda: all(state(pid) == "gone" for pid in rest)), {roles[p]: state(p) for p in rest})
    os.close(terminal)
    broker, terminal, roles = start(where)
    rest = [pid for pid in roles if roles[pid] != "switch"]
    for pid in of_role(roles, "net"):
        os.kill(pid, signal.SIGSTOP)
    os.kill(broker.pid, signal.SIGKILL)
    broker.wait(60)
    # who adopts them may not look after them
    expect("a broker that is killed takes all with it", wait_for(lambda: not any(is_there(pid) for pid in rest)), {roles[p]: state(p) for p in rest})
    os.close(terminal)
sys.exit(observed.failed != 0)
