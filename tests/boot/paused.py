#!/usr/bin/env python3
# Linux that works while its user has it stand for seconds: paused, as a parent that is suspended, or as a file. Its uptime stands as well, its kernel takes nobody for one that hangs, and its time of
# day is the host's again. What passes in the guest from one question to the next has to fit into what passes on the host, less what the machine stood.   paused.py UMBRA AGENT
import atexit, os, re, subprocess, sys, tempfile, time

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "vsock", "hv_sock")]
image = "build/guest/paused.cpio.gz"
subprocess.run(["tools/fetch-guest", "tests/boot/exec.init", image] + modules + [agent], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)
STAND_S = 15
LOCKUP_S = 4 # a kernel says so after twice as long, and after as long as it is told of RCU
MOST_S = 120
ROUNDING_S = 0.05 # of /proc/uptime, and of the rate that the TSC is taken to have
COMPLAINTS = "stall|lockup|stuck|BUG|WARNING|Oops|hung|unstable"


def check(what, good, *more):
    global failed
    if not good:
        print("paused:", what, *more)
        failed = 1


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MOST_S)


def does(*words):
    done = run(*words)
    if done.returncode:
        sys.exit("paused: umbra %s: %s" % (" ".join(words), done.stderr))


def guest(name, text):
    done = run("exec", "-T", "--wait", "60", name, "--", "sh", "-c", text)
    check("%s: %s" % (name, text), done.returncode == 0, done)
    return done.stdout


def uptime_s(name):
    return float(guest(name, "cat /proc/uptime").split()[0])


def has_time_of_day(name):
    end = time.monotonic() + MOST_S
    while time.monotonic() < end:
        before = time.time()
        now = int(guest(name, "date +%s"))
        if before - 1.5 < now < time.time() + 0.5:
            return True
        time.sleep(0.2)
    return False


def look_at(name, what):
    check(what + ": its time of day is the host's", has_time_of_day(name))
    said = [l for l in guest(name, "dmesg").split("\n") if re.search(COMPLAINTS, l)]
    check(what + ": its kernel is well", not said, said[:10])


def stand(what, begin, end):
    begun, up = time.monotonic(), uptime_s("one")
    begin()
    stands = time.monotonic()
    time.sleep(STAND_S)
    stood = time.monotonic() - stands
    end()
    went = uptime_s("one") - up
    most = time.monotonic() - begun - stood + ROUNDING_S
    check(what + ": its uptime has stood", 0 < went < most, "went on by %.2f s in %.2f s beside %.2f" % (went, most, stood))
    look_at("one", what)


def fork():
    does("fork", "one", "--name", "child", "--suspend-parent")
    look_at("child", "a child")
    does("kill", "child")


def end_all():
    for name in [l.split()[0] for l in run("ps").stdout.split("\n")[1:] if l]:
        run("kill", name)


atexit.register(end_all)
does("run", "--detach", "--name", "one", "--time-limit", "900", "--kernel", "build/guest/vmlinuz", "--initrd", image, "--cpus", "2", "--append", "console=ttyS0 quiet")
guest("one", "echo %d >/proc/sys/kernel/watchdog_thresh && echo %d >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout" % (LOCKUP_S, 2 * LOCKUP_S))
guest("one", "(while :; do :; done) </dev/null >/dev/null 2>&1 &")
look_at("one", "before")
stand("paused", lambda: does("pause", "one"), lambda: does("resume", "one"))
stand("suspended", fork, lambda: does("resume", "one"))
saved = os.path.join(work.name, "saved")
stand("saved", lambda: does("save", "--stop", "one", saved), lambda: does("run", "--detach", "--name", "one", "--restore", saved))
does("stop", "one")
sys.exit(failed)
