#!/usr/bin/env python3
"""guest_forks.py UMBRA GUEST: a bare-metal guest has itself forked, by requests of Umbra's extension. Each of its machines finds every check good; one child says that it
is one by the call, one by the ring, one by a packet; the parent has had as many as it may. (Without permission: tests/guest/wrong; who loses whoever may: tests/broker/control_test.c.)"""
import atexit, os, re, subprocess, sys, tempfile, time

umbra, guest, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)
MACHINES = os.path.join(work.name, "umbra")


def check(what, good, *more):
    global failed
    if not good:
        print("guest-forks:", what, *more)
        failed = 1


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)


def consoles():
    found = {}
    for name in os.listdir(MACHINES):
        if name.startswith(".console-"):
            with open(os.path.join(MACHINES, name), errors="replace") as f:
                found[name[len(".console-"):]] = f.read().replace("\r", "")
    return found


def is_whole(said):
    return re.search(r"^1\.\.[1-9]", said, re.M)


machine = subprocess.Popen([umbra, "run", "--name", "one", "--kernel", guest, "--memory", "64M", "--cpus", "2", "--debug-exit", "0xf4", "--statistics", "--guest-forks", "12,100"],
                           env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
atexit.register(machine.kill)
said, errors = machine.communicate(timeout=200)
said = said.replace("\r", "")
check("the parent's checks are good", machine.returncode == 1 and is_whole(said) and "not ok" not in said and "PARENT" in said, machine.returncode, said[-600:], errors[-600:])
check("what was refused is counted", re.search(r"refused.*13", errors + said) or "0x13" in errors, errors[-1500:])
end = time.time() + 100
while time.time() < end and (len(consoles()) < 12 or not all(is_whole(s) for s in consoles().values())):
    time.sleep(0.05)
children = consoles()
check("as many as permitted", len(children) == 12, sorted(children))
for name, text in children.items():
    check("the checks of " + name, is_whole(text) and "not ok" not in text, text[-600:])
    check("it is called after the first", re.fullmatch(r"one-guest-\d+", name), name)
for way in "call", "ring", "packet":
    check("one by the " + way, sum("CHILD by a %s\n" % way in s for s in children.values()) == 1, children)
sys.exit(failed)
