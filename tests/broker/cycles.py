#!/usr/bin/env python3
"""Machines are made, forked, forked again and ended, each time in another way: by umbra kill, or by the death of the machine process, its broker, or
who asks for the fork. In the end there is no process, no mount, no descriptor and no file more than before.   usage: cycles.py UMBRA GUEST CYCLES [SEED [CHILDREN]]"""
import ctypes, json, os, random, signal, socket, subprocess, sys, tempfile, time

umbra, guest, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 1)
children = int(sys.argv[5]) if len(sys.argv) > 5 else 3
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
libc = ctypes.CDLL(None)


def fork(name, child, count):
    return subprocess.Popen([umbra, "fork", name, "--name", child, "-n", str(count)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def path(name):
    return os.path.join(os.environ["XDG_RUNTIME_DIR"], "umbra", name)


def about(name):
    """What umbra info says of it; {}: it is not there. No program is begun for it: ten thousand cycles ask a hundred thousand times."""
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.settimeout(60)
            peer.connect(path(name))
            peer.sendall(b'{"id":1,"do":"info"}\n')
            return json.loads(peer.makefile().readline())["machine"]
        except (OSError, ValueError, KeyError):
            return {}


def machines():
    names = [name for name in os.listdir(path("")) if not name.startswith(".")] if os.path.exists(path("")) else []
    return {name: found for name in names if "process" in (found := about(name))}


def until(what, good):
    end = time.time() + 60
    while not good():
        if time.time() > end:
            sys.exit("cycles: %s; left are %s" % (what, [read(p) for p in left()]))
        reap()
        time.sleep(0.01)


def read(pid):
    try:
        return open("/proc/%s/cmdline" % pid).read().replace("\0", " ")
    except OSError:
        return ""


def reap(): # what has lost its parent comes to this process
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def left():
    reap()
    return open("/proc/self/task/%d/children" % os.getpid()).read().split()


def counts():
    return {"processes": len(left()), "descriptors": len(os.listdir("/proc/self/fd"))}


def mounts(): # fewer are others' doing: whoever removes a folder takes away, also here, what is mounted there
    return {line.split()[0] for line in open("/proc/self/mountinfo")}


def part_from_mounts_of_others(): # what other programs of this host mount meanwhile is not counted; who may not leave them counts it
    if not libc.unshare(CLONE_NEWNS):
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def cycle():
    subprocess.Popen([umbra, "run", "--name", "parent", "--kernel", guest, "--memory", "64M", "--console", "none"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)
    until("no machine runs", lambda: "process" in about("parent"))
    asker = fork("parent", "child", children)
    if chance.randrange(4) == 0: # in the middle of it
        time.sleep(chance.random() * 0.05)
        asker.kill()
    asker.wait()
    if "process" in about("child-1" if children > 1 else "child") and chance.randrange(2):
        fork("child-1" if children > 1 else "child", "grandchild", 1).wait()
    for name, found in chance.sample(sorted(machines().items()), len(machines())):
        how = chance.randrange(3)
        if how == 0:
            kill(found["process"])
        elif how == 1:
            kill(found["pid"])
        else:
            subprocess.run([umbra, "kill", name], stderr=subprocess.DEVNULL, timeout=100)
    until("a machine goes on", lambda: not machines())
    until("a process goes on", lambda: not left())


libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
part_from_mounts_of_others()
with tempfile.TemporaryDirectory() as where:
    os.environ["XDG_RUNTIME_DIR"] = where
    cycle()
    before, mounted = counts(), mounts()
    for n in range(cycles):
        cycle()
        if n % 1000 == 999: # of a long run
            print("cycles: %d" % (n + 1), flush=True)
    if counts() != before:
        sys.exit("cycles: before %s, after %d cycles %s" % (before, cycles, counts()))
    if mounts() - mounted:
        sys.exit("cycles: more is mounted: %s" % [l for l in open("/proc/self/mountinfo") if l.split()[0] not in mounted])
    if sum(len(f) for _, _, f in os.walk(where)) > 2 * (children + 2): # of each name a socket that nobody has looked at yet, and why it ended
        sys.exit("cycles: files are left: %s" % [f for _, _, f in os.walk(where)])
