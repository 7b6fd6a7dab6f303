#!/usr/bin/env python3
"""guest-fork.py UMBRA AGENT: Linux has itself forked (umbra-guest fork), as fork(2) does: its parent prints the child's name, the child its own. So does a child; all
of a lineage have the same limit, in all and in a minute. Without permission, with secrets, with lines that are none, many at once: refused, and the machine goes on."""
import atexit, os, subprocess, sys, tempfile, time

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "vsock", "hv_sock")]
image = "build/guest/guest-fork.cpio.gz"
subprocess.run(["tools/fetch-guest", "tests/boot/forked.init", image] + modules + [agent], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)


def check(what, good, *more):
    global failed
    if not good:
        print("guest-fork:", what, *more)
        failed = 1
    return good


def run(*words, timeout=180):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def guest(name, text):
    done = run("exec", "-T", name, "--", "sh", "-c", text)
    return done.stdout.strip() + done.stderr.strip()


def until(what, good):
    end = time.time() + 100
    while time.time() < end:
        if good():
            return True
        time.sleep(0.05)
    return check("waited in vain: " + what, False)


def names():
    return [l.split()[0] for l in run("ps").stdout.split("\n")[1:] if l]


def end_all():
    for name in names():
        run("kill", name)


def begin(name, *more):
    machine = subprocess.Popen([umbra, "run", "--name", name, "--memory", "256M", "--kernel", "build/guest/vmlinuz", "--initrd", image, "--append", "console=ttyS0 quiet",
                                "--console", os.path.join(work.name, name + ".log"), *more], env=env, stdin=subprocess.DEVNULL)
    atexit.register(machine.kill)
    until("the agent of " + name, lambda: run("exec", "-T", name, "--", "true").returncode == 0)
    guest(name, "ln -s $(which umbra-agent) /bin/umbra-guest")
    return machine


atexit.register(end_all)
machine = begin("one", "--guest-forks", "3,3")
# in the background, since the connection of `umbra exec` is the parent's alone
FORK = "(umbra-guest fork >/tmp/said%d 2>&1; echo ended with $? >>/tmp/said%d) &"
SAID = "cat /tmp/said%d"


def has_forked(name, n, child):
    guest(name, FORK % (n, n))
    until("%s is answered" % name, lambda: "ended" in guest(name, SAID % n))
    said = guest(name, SAID % n)
    check("the parent is told of " + child, said == "parent %s\nended with 0" % child, said)
    until("%s is answered" % child, lambda: "ended" in guest(child, SAID % n))
    said = guest(child, SAID % n)
    check("the child is told that it is " + child, said == "child %s\nended with 0" % child, said)
    check("once", said == guest(child, SAID % n))


has_forked("one", 1, "one-guest-1")
has_forked("one-guest-1", 2, "one-guest-2")
check("both know what was before", guest("one-guest-2", "cat /tmp/said1") == "child one-guest-1\nended with 0")
check("three machines run", sorted(names()) == ["one", "one-guest-1", "one-guest-2"], names())

# what is no request is none, and costs nobody anything but its own connection
place = os.path.join(work.name, "umbra/.sockets-one/s_50112")
import socket
lines = []
for said in b"", b"fork\n", b"fork short\n", b"fork " + b"g" * 32 + b"\n", b"kill " + b"a" * 32 + b"\n", b"x" * 1000, b"\0\n", b"outcome " + b"0" * 33 + b"\n":
    line = socket.socket(socket.AF_UNIX)
    line.connect(place)
    line.sendall(said)
    lines.append(line)
for line in lines[1:]:
    line.settimeout(100)
    try:
        check("nothing is answered", line.recv(100) == b"")
    except ConnectionResetError:
        pass
line = socket.socket(socket.AF_UNIX)
line.connect(place)
line.sendall(b"outcome " + b"0" * 32 + b"\n")
check("a fork that nobody has asked for", line.recv(100) == b"unknown\n")
idle = []
for _ in range(40):  # more than it holds: the oldest make room
    idle.append(socket.socket(socket.AF_UNIX))
    idle[-1].connect(place)
check("and none was made", len(names()) == 3, names())

# at once: one is made, the others are refused, and then the number is
guest("one", "for n in 5 6 7 8; do (umbra-guest fork >/tmp/said$n 2>&1; echo ended with $? >>/tmp/said$n) & done")
until("all are answered", lambda: guest("one", "cat /tmp/said[5-8]").count("ended") == 4)
said = guest("one", "cat /tmp/said[5-8]")
check("one is made", said.count("parent one-guest-3") == 1 and said.count("not forked") == 3, said)
until("no more than permitted", lambda: "as many children" in guest("one", "umbra-guest fork"))
until("its children neither", lambda: "as many children" in guest("one-guest-2", "umbra-guest fork"))
check("four machines run", len(names()) == 4, names())
run("kill", "one")
until("its children live on", lambda: "one" not in names())
until("and are counted still", lambda: "as many children" in guest("one-guest-1", "umbra-guest fork"))
end_all()
machine.wait(100)

# in a minute
begin("two", "--guest-forks", "9,1")
has_forked("two", 1, "two-guest-1")
check("no more in a minute", "too many in a minute" in guest("two", "umbra-guest fork"))
end_all()

# without permission, and without a machine that could have it
begin("three")
said = guest("three", "umbra-guest fork; echo ended with $?")
check("nobody permits it", "nobody permits it" in said and "ended with 1" in said, said)
check("it goes on", guest("three", "echo here") == "here" and names() == ["three"])
said = guest("three", "umbra-guest; echo ended with $?")
check("what it is called with", "usage:" in said and "ended with 2" in said, said)
for more, why in ((["--secrets", "--name", "x", "--guest-forks", "2"], "secrets"), (["--guest-forks", "2"], "name"), (["--name", "x", "--guest-forks", "0"], "1 to 128"),
                  (["--name", "x", "--guest-forks", "2,"], "1 to 128"), (["--name", "x", "--guest-forks", "many"], "1 to 128"), (["--name", "x", "--guest-forks", "2,3,4"], "1 to 128")):
    refused = run("run", "--kernel", "build/guest/vmlinuz", *more)
    check("refused: %s" % more, refused.returncode in (2, 64) and why in refused.stderr, refused.returncode, refused.stderr)
end_all()

# nothing of theirs is left
until("nobody is left", lambda: not [f for f in os.listdir(os.path.join(work.name, "umbra")) if f.startswith(".sockets-") and
                                     any(n.startswith("s_") for n in os.listdir(os.path.join(work.name, "umbra", f)))])
sys.exit(failed)
