"""What the tests that look at processes from outside share: expectations, files of /proc, and who belongs to a machine."""
import os, time

failed = 0


def expect(what, good, detail=""):
    global failed
    print("ok  " if good else "FAIL", what, "" if good else detail)
    failed += not good


def read(pid, name):
    with open("/proc/%d/%s" % (pid, name), "rb") as f:
        return f.read().decode(errors="replace")


def role_of(pid):
    try:
        return read(pid, "cmdline").replace("\0", " ").strip().partition("umbra --role=")[2]
    except OSError:
        return "gone"


def children(pid):
    try:
        return [int(p) for p in read(pid, "task/%d/children" % pid).split()]
    except OSError:
        return []


def is_reaper(pid): # it has no program of its own: its name is its parent's
    try:
        parent = int(read(pid, "stat").rpartition(")")[2].split()[1])
    except OSError:
        return False
    return role_of(pid) in ("disk", "keeper") and role_of(parent) == role_of(pid)


def all_of(pid):
    return [pid] + [c for child in children(pid) for c in all_of(child)]


def state(pid):
    try:
        return read(pid, "stat").rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def is_there(pid):
    return state(pid) not in ("gone", "Z", "X")


def descriptors(pid):
    try:
        return {int(n): os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)}
    except OSError:
        return {}


def wait_for(condition):
    for _ in range(6000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def meeting(where, role): # who serves several machines, and is nobody's child: those that listen at a socket in this folder
    inodes = {line.split()[6] for line in read(os.getpid(), "net/unix").splitlines() if where in line}
    return [int(p) for p in os.listdir("/proc") if p.isdigit() and is_there(int(p)) and role_of(int(p)) == role and
            any(t == "socket:[%s]" % n for n in inodes for t in descriptors(int(p)).values())]
