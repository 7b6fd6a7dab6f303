#!/usr/bin/env python3
"""What netem.py runs, as root of a machine of its own: netem_inside.py UMBRA LOOKS [ROUNDS]. Two network namespaces are two hosts, with a wire between them that is slow, loses
packets, doubles them, brings them in another order, or goes for seconds. A machine is forked from one to the other, which looks at all of its memory, there and here."""
import os, re, subprocess, sys, tempfile, threading, time

umbra, looks, rounds = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
work = tempfile.TemporaryDirectory(dir="/root")
ends = {"here": "10.77.0.1", "there": "10.77.0.2"}
PORT, MOST_S, failed = 4640, 300, 0
# what tc netem does on both ends; the wire goes for so many seconds while it is sent
WIRES = (("delay 1ms", 0), ("delay 20ms 5ms loss 1%", 0), ("delay 50ms loss 5% duplicate 2%", 0), ("delay 5ms 4ms reorder 20% 50%", 0), ("delay 2ms loss 0.5%", 8),
         ("delay 1ms corrupt 0.2%", 0), ("rate 20mbit delay 10ms", 3))


def check(what, good, *more):
    global failed
    if not good:
        print("netem:", what, *more, flush=True)
        failed = 1
    return good


def sh(text):
    r = subprocess.run(["sh", "-c", text], capture_output=True, text=True)
    check(text, r.returncode == 0, r.stderr)


def environment(end):
    path = os.path.join(work.name, end)
    os.makedirs(path, 0o700, exist_ok=True)
    return dict(os.environ, XDG_RUNTIME_DIR=path, TMPDIR=path)


def words(end, *more):
    return ["ip", "netns", "exec", end, umbra, *more]


def run(end, *more):
    return subprocess.run(words(end, *more), env=environment(end), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MOST_S)


def said(path):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def until(what, good):
    end = time.time() + MOST_S
    while not good():
        if time.time() > end:
            return check("waited in vain: " + what, False)
        time.sleep(0.05)
    return True


def set_wire(text):
    for end in ends:
        sh("ip netns exec %s tc qdisc replace dev wire root netem %s" % (end, text))


def cut(seconds, wire):
    time.sleep(1)
    set_wire("loss 100%")
    time.sleep(seconds)
    set_wire(wire)


def console(end, name):
    return said(os.path.join(work.name, end, "umbra", ".console-" + name))


def one_wire(number, wire, seconds):
    set_wire(wire)
    name = "child%d" % number
    begin = time.time()
    cutter = threading.Thread(target=cut, args=(seconds, wire))
    if seconds:
        cutter.start()
    sent = run("here", "fork", "looks", "--to", "%s:%d" % (ends["there"], PORT), "--key", key, "--name", name, "--limit", "100M", "--wait", "60", *(["--bandwidth", "4M"] if seconds else []))
    took = time.time() - begin
    if seconds:
        cutter.join()
    check("%s, cut for %d s: it is sent" % (wire, seconds), sent.returncode == 0, sent.returncode, sent.stderr)
    until("%s: it has looked at all of its memory there" % wire, lambda: console("there", name).count("ROUND") > 1 or "not ok" in console("there", name))
    check("%s: all of it was right" % wire, "not ok" not in console("there", name) and "BAD" not in console("there", name), console("there", name)[-300:])
    check("%s: it runs there" % wire, run("there", "kill", name).returncode == 0)
    print("netem: %-40s cut for %d s: sent in %.1f s" % (wire, seconds, took), flush=True)


for end in ends:
    sh("ip netns add %s; ip -n %s link set lo up" % (end, end))
sh("ip link add wire netns here type veth peer name wire netns there")
for end, address in ends.items():
    sh("ip -n %s address add %s/24 dev wire; ip -n %s link set wire up" % (end, address, end))
key = os.path.join(work.name, "key")
check("a key", run("here", "listen", "--make-key", key).returncode == 0)
listener = subprocess.Popen(words("there", "listen", "%s:%d" % (ends["there"], PORT), "--key", key, "--folder", os.path.join(work.name, "there"), "--wait", "60"), env=environment("there"),
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
check("it listens", "%s:%d" % (ends["there"], PORT) in listener.stdout.readline())
threading.Thread(target=listener.stdout.read, daemon=True).start()
begun = run("here", "run", "--detach", "--name", "looks", "--kernel", looks, "--memory", "64M", "--cpus", "2")
check("it begins", begun.returncode == 0, begun.stderr)
until("it looks at its memory here", lambda: "ROUND" in console("here", "looks"))
for number in range(rounds * len(WIRES)):
    one_wire(number, *WIRES[number % len(WIRES)])
before = console("here", "looks").count("ROUND")
until("it goes on here", lambda: console("here", "looks").count("ROUND") > before)
run("here", "kill", "looks")
listener.kill()
sys.exit(failed)
