"""What benches of memory look at from outside: how much of the host's memory a machine process has, each millisecond, and what a machine says of itself. Its
folder is one of its own, so that the balancer is one of its own as well."""
import os, re, socket, subprocess, sys, tempfile, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/boot"))
folder = tempfile.TemporaryDirectory()
os.environ["XDG_RUNTIME_DIR"] = folder.name
import memory_guest
from memory_guest import MIB, Guest, umbra


def command(*words):
    return subprocess.run([umbra, *words], capture_output=True, text=True, timeout=60)


def children(pid):
    return [int(c) for c in open("/proc/%d/task/%d/children" % (pid, pid)).read().split()]


def occupied(pid):
    return int(open("/proc/%d/statm" % pid).read().split()[1]) * 4096


def machine_process(pid):
    """Of all below the broker the one that occupies most."""
    below = [pid]
    for p in below:
        below += children(p)
    return max(below, key=occupied)


def available():
    """Of the host."""
    return int(re.search(r"MemAvailable: *(\d+)", open("/proc/meminfo").read()).group(1)) << 10


def set_reserve(bytes):
    """As umbra memory --reserve does, without the time that starting it takes. When the balancer was told."""
    with socket.socket(socket.AF_UNIX) as balancer:
        balancer.connect(folder.name + "/umbra/.balancer")
        told = time.monotonic()
        balancer.sendall(b'{"id":1,"do":"reserve","bytes":%d}\n' % bytes)
        balancer.recv(4096)
    return told


class Watch:
    """What the machine says of itself, with the time at which it was heard."""
    def __init__(self, name):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect("%s/umbra/%s" % (folder.name, name))
        self.socket.sendall(b'{"id":1,"do":"watch"}\n')
        self.heard = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.socket.makefile():
            found = re.search(r'"assigned": ?(\d+)', line)
            if found:
                self.heard.append((time.monotonic(), int(found.group(1))))

    def assigned(self):
        return self.heard[-1][1] if self.heard else 0


class Occupied:
    """What a process occupies of the host, each millisecond until it is stopped, with the time at which it was seen."""
    def __init__(self, pid):
        self.pid, self.seen, self.stopped = pid, [], False
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.stopped:
            self.seen.append((time.monotonic(), occupied(self.pid)))
            time.sleep(0.001)

    def stop(self):
        self.stopped = True
        self.thread.join()


def first_above(seen, bytes):
    """When it was first so much, or infinity."""
    return next((at for at, was in seen if was >= bytes), float("inf"))


def until(good, seconds=60):
    """When that was so, or infinity."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if good():
            return time.monotonic()
        time.sleep(0.001)
    return float("inf")
