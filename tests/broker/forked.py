#!/usr/bin/env python3
"""A machine and what was forked of it, seen from outside: the same rights, no descriptor and no shared memory in common, each ends without
the other, and who loses its broker ends.   usage: forked.py UMBRA GUEST"""
import atexit, json, os, re, signal, subprocess, sys, tempfile, time

import observed
from observed import expect, read

umbra, guest = sys.argv[1:3]


def status(pid):
    return dict(line.split(":", 1) for line in read(pid, "status").splitlines())


def descriptors(pid):
    return {n: os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)}


def inodes(pid): # of what is mapped shared
    return {m.split()[4] for m in read(pid, "maps").splitlines() if "s" in m.split()[1]}


def is_there(pid):
    try:
        return status(pid)["State"].split()[0] not in "ZX"
    except (OSError, KeyError):
        return False


def gone(pid):
    for _ in range(6000):
        if not is_there(pid):
            return True
        time.sleep(0.01)
    return False


def ask(*arguments):
    return json.loads(subprocess.run([umbra, *arguments, "--json"], check=True, capture_output=True, timeout=60).stdout)


def fork(name, *arguments):
    return ask("fork", name, *arguments)


def info(name):
    return ask("info", name)


def shares(pid, process):
    try:
        return pid != process and is_there(pid) and read(pid, "cmdline") == read(process, "cmdline") and read(pid, "maps") == read(process, "maps")
    except OSError: # it has ended meanwhile
        return False


def sharers(process): # of its memory: its forker. Both may change what they have mapped while they are looked at
    for _ in range(6000):
        found = [int(p) for p in os.listdir("/proc") if p.isdigit() and shares(int(p), process)]
        if found:
            return found
        time.sleep(0.01)
    return []


def start():
    machine = subprocess.Popen([umbra, "run", "--name", "parent", "--kernel", guest, "--cpus", "2", "--memory", "256M", "--console", "none"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(machine.kill) # a test that fails leaves nobody who holds its output
    for _ in range(6000):
        if subprocess.run([umbra, "info", "parent"], capture_output=True).returncode == 0 and "process" in info("parent"):
            break
        time.sleep(0.01)
    time.sleep(0.3)
    return machine


with tempfile.TemporaryDirectory() as where:
    os.environ["XDG_RUNTIME_DIR"] = where
    machine = start()
    parent = info("parent")["process"]
    children = fork("parent", "--name", "child", "-n", "2")
    child = children[0]["process"]
    expect("as its parent: all limits", read(child, "limits") == read(parent, "limits"), (read(child, "limits"), read(parent, "limits")))
    memory = [l.split()[3] for l in read(child, "limits").splitlines() if l.startswith("Max data size")]
    expect("one is of memory", memory and memory[0].isdigit(), memory)
    expect("as its parent: its groups", read(child, "cgroup") == read(parent, "cgroup") or "umbra-machine" in read(child, "cgroup"))
    for key in ["NoNewPrivs", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp", "Uid", "Gid", "Threads"]:
        expect("as its parent: %s" % key, status(child)[key] == status(parent)[key], (status(child)[key], status(parent)[key]))
    expect("it has the parent's list of calls behind others", int(status(child)["Seccomp_filters"]) > int(status(parent)["Seccomp_filters"]))
    threads = ["task/%s/status" % thread for thread in os.listdir("/proc/%d/task" % child)]
    filters = {re.search(r"Seccomp_filters:\s*(\d+)", read(child, thread)).group(1) for thread in threads}
    expect("all its threads have it", len(threads) > 1 and filters == {status(child)["Seccomp_filters"].strip()}, filters)
    for name in os.listdir("/proc/self/ns"):
        expect("as its parent: namespace %s" % name, os.readlink("/proc/%d/ns/%s" % (child, name)) == os.readlink("/proc/%d/ns/%s" % (parent, name)))
    expect("it holds two events and nothing else", sorted(descriptors(child).values()) == ["anon_inode:[eventfd]"] * 2, descriptors(child))
    expect("no shared memory in common", not inodes(child) & inodes(parent), inodes(child) & inodes(parent))
    expect("nor with its sibling", not inodes(child) & inodes(children[1]["process"]))
    expect("nothing is writable and executable", not [m for m in read(child, "maps").splitlines() if re.match(r"\S+ .w.?x|\S+ .wx", m)])
    forkers = sharers(child)
    expect("one forker", len(forkers) == 1, forkers)
    expect("which has one thread and three descriptors", all(status(f)["Threads"].strip() == "1" and len(descriptors(f)) == 3 for f in forkers))
    grandchild = fork("child-1", "--name", "grandchild")[0]
    tree = {m["name"]: m for m in json.loads(subprocess.run([umbra, "ps", "--tree", "--json"], check=True, capture_output=True, timeout=60).stdout)}
    expect("ps --tree: lineage", [tree[n].get("parent") for n in ["parent", "child-1", "child-2", "grandchild"]] == [None, "parent", "parent", "child-1"], tree)
    expect("ps --tree: a child has less of its own than it shares", all(0 < tree[n]["unique"] < tree[n]["shared"] for n in ["child-1", "grandchild"]),
           [(tree[n]["unique"], tree[n]["shared"]) for n in tree])
    text = subprocess.run([umbra, "ps", "--tree"], check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    expect("ps --tree: a child stands below its parent", [len(l) - len(l.lstrip()) for l in text] == [0, 0, 2, 4, 2], text)
    # each ends without the others
    os.kill(parent, signal.SIGKILL)
    expect("the parent is killed, and its broker says so", machine.wait(60) == 70)
    expect("its children live on", is_there(child) and is_there(children[1]["process"]) and is_there(grandchild["process"]))
    os.kill(children[0]["pid"], signal.SIGKILL)
    expect("a broker is killed, and its machine ends", gone(child))
    expect("and its forker", all(gone(f) for f in forkers))
    expect("the others live on", is_there(children[1]["process"]) and is_there(grandchild["process"]))
    again = fork("grandchild", "--name", "again")[0]
    subprocess.run([umbra, "kill", "grandchild"], check=True, timeout=60)
    expect("one is ended by its broker", gone(grandchild["process"]) and gone(grandchild["pid"]))
    left = sharers(again["process"])
    os.kill(again["process"], signal.SIGKILL)
    expect("one is killed, and its broker and its forker end", gone(again["pid"]) and all(gone(f) for f in left))
    subprocess.run([umbra, "kill", "child-2"], check=True, timeout=60)
    expect("no machine is left", ask("ps") == [])
    machine = start()
    forkers = sharers(info("parent")["process"])
    os.kill(forkers[0], signal.SIGKILL)
    time.sleep(0.1)
    expect("without a forker nothing is forked", subprocess.run([umbra, "fork", "parent"], capture_output=True, timeout=60).returncode == 65)
    expect("and the machine lives on", is_there(info("parent")["process"]))
    parent = info("parent")["process"]
    machine.kill()
    expect("a broker that is killed takes its machine with it", gone(parent))
sys.exit(observed.failed != 0)
