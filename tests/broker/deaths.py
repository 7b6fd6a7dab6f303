#!/usr/bin/env python3
"""Each process that serves a machine is killed: another one is there soon, which serves the same, and the machine goes on; without its disks,
or what lies beside them, it ends and says why. What a guest sees of it: linux-net, linux-exec, share-guests.   usage: deaths.py UMBRA GUEST"""
import collections, ctypes, os, re, signal, subprocess, sys, tempfile

import observed
from observed import all_of, expect, is_there, role_of, wait_for

umbra, guest = sys.argv[1:3]
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) # who has lost its parent is this process's child: so all of them are found
GOES_ON = ["net", "line", "relay", "supervisor", "switch", "hub", "joiner"]


def here():
    found = {pid: role_of(pid) for pid in all_of(os.getpid())[1:] if is_there(pid)}
    return {pid: role for pid, role in found.items() if role and role != "gone"}


def roles():
    return collections.Counter(here().values())


def start(where):
    disk = os.path.join(where, "disk.raw")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    broker = subprocess.Popen([umbra, "run", "--name", "deaths", "--kernel", guest, "--console", "none", "--disk", disk + ",format=raw",
                               "--net", "user", "--net", "switch=deaths", "--serve", "shelf"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    want = collections.Counter(broker=1, machine=2, disk=2, keeper=2, supervisor=6, net=1, line=1, relay=1, joiner=2, switch=1, hub=1)
    if not wait_for(lambda: roles() == want): # the machine's process, and who would fork it
        sys.exit("a machine with one of each did not begin: %s" % roles())
    expect("and its broker answers", wait_for(answers))
    expect("no process that serves it, or starts who does, has a capability", wait_for(lambda: not with_rights()), with_rights())
    return broker, want


def with_rights():
    return {pid: role for pid, role in here().items() if role != "broker" and not is_without_rights(pid)}


def is_without_rights(pid):
    """Of root one keeps the ports below 1024; and where the host has no other way to namespaces for them, what these take."""
    with open("/proc/%d/status" % pid) as f:
        held = re.search(r"CapPrm:\s+(\w+)", f.read()).group(1)
    return int(held, 16) & ~((1 << 10 | 1 << 21 | 1 << 18) if os.geteuid() == 0 else 0) == 0


def answers():
    return subprocess.run([umbra, "info", "deaths"], capture_output=True).returncode == 0


def reap(broker):
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) != broker.pid:
            try:
                os.waitpid(int(pid), os.WNOHANG)
            except ChildProcessError:
                pass


def kill_each(role, broker, want):
    killed = [pid for pid, its in here().items() if its == role]
    for pid in killed: # of two where one stands by, each
        before = {p for p, its in here().items() if its == role} - {pid}
        if not is_there(pid):
            continue
        os.kill(pid, signal.SIGKILL)
        good = wait_for(lambda: not is_there(pid) and roles() == want)
        expect("%s: there is another" % role, good and broker.poll() is None, (pid, before, here()))
        reap(broker)
    expect("%s: the machine goes on" % role, answers() and broker.poll() is None)


def hub_dies_while_it_is_joined(broker, want): # as soon as there is another, whatever has come to it until then
    killed = set()
    for _ in range(6):
        wait_for(lambda: [pid for pid, its in here().items() if its == "hub" and pid not in killed])
        for pid in [pid for pid, its in here().items() if its == "hub"]:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    expect("a hub that is killed while a port joins it: there is another", wait_for(lambda: roles() == want), here())
    shown = lambda: subprocess.run([umbra, "bus"], capture_output=True, text=True).stdout
    expect("which has the port", wait_for(lambda: "deaths serves deaths/shelf" in shown()) and broker.poll() is None, shown())
    reap(broker)


def ends_without(role, where):
    broker, _ = start(where)
    for pid in [pid for pid, its in here().items() if its == role]:
        os.kill(pid, signal.SIGKILL)
    said = broker.communicate(timeout=60)[1].decode()
    expect("without its %s it ends, and says why" % role, broker.returncode == 70 and role in said and said.count("\n") == 1, (broker.returncode, said))
    expect("and nothing is left of it", wait_for(lambda: not set(roles()) - {"switch", "hub"}), here())


with tempfile.TemporaryDirectory() as where:
    os.environ["XDG_RUNTIME_DIR"] = where
    os.environ["XDG_CONFIG_HOME"] = os.path.join(where, "config")
    broker, want = start(where)
    for role in GOES_ON:
        kill_each(role, broker, want)
    hub_dies_while_it_is_joined(broker, want)
    subprocess.run([umbra, "stop", "deaths"], timeout=60, capture_output=True)
    expect("stop ends it after all that", broker.wait(60) == 0, broker.returncode)
    expect("with all who went on", wait_for(lambda: not set(roles()) - {"switch", "hub"}), here())
    for role in "disk", "keeper":
        ends_without(role, where)
    for pid in here():
        os.kill(pid, signal.SIGKILL)
sys.exit(observed.failed != 0)
