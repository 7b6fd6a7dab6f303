#!/usr/bin/env python3
"""paused.py UMBRA GUEST: a machine that stands for seconds, paused or with a child that was forked of it, has clocks and timers that stand as well. What the guest says between two keys has to fit into
what the host counts from before the first to after the second, less what the machine stood: that is so however slow the host is, and not so where a clock goes on."""
import atexit, os, re, subprocess, sys, tempfile, threading, time

umbra, guest, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)
STAND_S = 3
MOST_S = 100
ROUNDING = 1.001 # of the host's clocks and what it takes for the TSC's rate
said = ""


def check(what, good, *more):
    global failed
    if not good:
        print("paused:", what, *more)
        failed = 1


def run(*words):
    done = subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MOST_S)
    if done.returncode:
        sys.exit("paused: umbra %s: %s" % (" ".join(words), done.stderr))


def hear():
    global said
    for line in machine.stdout:
        said += line.decode(errors="replace").replace("\r", "")


def wait_for(count, text):
    end = time.time() + MOST_S
    while said.count(text) < count:
        if time.time() > end:
            sys.exit("paused: it does not say %s: %s" % (text, said[-600:]))
        time.sleep(0.01)


def key(byte):
    machine.stdin.write(byte)
    machine.stdin.flush()


def clocks():
    return [{name: int(value, 16) for name, value in re.findall(r"(\w+) 0x([0-9a-f]+)", line)} for line in re.findall("^CLOCKS (.*)$", said, re.M)]


def stand(ask, name):
    """From one key to the next, with a standstill that `ask` begins."""
    before = len(clocks())
    begun = time.monotonic()
    key(b"k")
    wait_for(before + 1, "SET")
    ask()
    stands = time.monotonic()
    time.sleep(STAND_S)
    stood = time.monotonic() - stands
    run("resume", "one")
    key(b"q" if name == "forked" else b"k")
    wait_for(before + 2, "CLOCKS")
    while len(clocks()) < before + 2:
        time.sleep(0.01)
    most = (time.monotonic() - begun - stood) * ROUNDING
    first, second = clocks()[before:before + 2]
    for clock, hz in {"time": 1e7, "page": 1e7, "tsc": tsc_hz, "pm": 3579545}.items():
        went = (second[clock] - first[clock]) % (1 << 32 if clock == "pm" else 1 << 64) / hz
        check("%s: %s has stood" % (name, clock), 0 < went < most, "went on by %.3f s in %.3f s beside %.3f" % (went, most, stood))


# what a guest takes for a second: its reference time says so of its TSC
machine = subprocess.Popen([umbra, "run", "--name", "one", "--kernel", guest, "--memory", "64M", "--cpus", "2", "--debug-exit", "0xf4"], env=env, stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
atexit.register(machine.kill)
threading.Thread(target=hear, daemon=True).start()
wait_for(1, "READY")
key(b"k")
wait_for(1, "SET")
time.sleep(0.2)
key(b"k")
wait_for(2, "SET")
one, two = clocks()
tsc_hz = (two["tsc"] - one["tsc"]) / ((two["time"] - one["time"]) / 1e7)
stand(lambda: run("pause", "one"), "paused")
wait_for(4, "SET")
stand(lambda: (run("fork", "one", "--name", "child", "--suspend-parent"), run("kill", "child")), "forked")
check("the guest's checks", machine.wait(MOST_S) == 1 and "not ok" not in said and re.search(r"^1\.\.[1-9]", said, re.M), machine.returncode, said[-1500:])
sys.exit(failed)
