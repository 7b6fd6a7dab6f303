#!/usr/bin/env python3
"""Forks that end badly: who takes part is stopped or killed at a step, or at any moment; processes, descriptors, memory or room on the disk run out in the middle. The others
live on and can be forked, whoever asked hears of it, the disks' files are without a fault, and in the end nothing is left.   
usage: forked_ends.py UMBRA GUEST PART,PART... TIMES [SEED]     of more than 10 TIMES all that runs out does so in smaller steps, too"""
import atexit, ctypes, json, os, random, resource, shutil, signal, subprocess, sys, tempfile, time

import observed
from observed import all_of, expect, is_there, read, role_of, state

times = int(sys.argv[4])
seed = int(sys.argv[5]) if len(sys.argv) > 5 else random.randrange(1 << 30)
random.seed(seed)
print("# seed", seed)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) # who has lost its parent is this process's child: so all of them are found
LIVE_ON = {"switch", "hub", "balancer"} # they serve other machines, too
WAIT_S, ASKED_S, SILENT_MOST_S = 20, 45, 160
OTHER_USER, PROCESSES_OF_ONE = 65534, 40


def wait_for(condition):
    end = time.time() + WAIT_S
    while not condition():
        if time.time() > end:
            return False
        time.sleep(0.01)
    return True


class Place:
    """A folder with a disk, of which NAME is a machine; all that was started in it."""
    def __init__(self, umbra, guest, disks=None, user=None):
        self.where = tempfile.TemporaryDirectory()
        self.umbra, self.guest, self.user = umbra, guest, user
        self.files = disks or os.path.join(self.where.name, "disks")
        os.makedirs(self.files, exist_ok=True)
        self.environment = dict(os.environ, XDG_RUNTIME_DIR=self.where.name, XDG_CONFIG_HOME=os.path.join(self.where.name, "config"))
        if user is not None: # what the program needs has to be where he may look
            programs = os.path.join(self.where.name, "programs")
            os.mkdir(programs)
            self.umbra, self.guest = (shutil.copy(path, programs) for path in (umbra, guest))
            for path in (self.where.name, self.files, programs):
                os.chown(path, user, user)
                os.chmod(path, 0o700)
        self.run("disk", "create", self.disk("disk"), "--size", "16M")

    def disk(self, name):
        return os.path.join(self.files, name + ".vhdx")

    def popen(self, *arguments, limits=(), **more):
        def limit():
            for what, most in limits:
                resource.setrlimit(what, (most, most))
        who = {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}
        return subprocess.Popen([self.umbra, *arguments], env=self.environment, stdin=subprocess.DEVNULL, text=True, preexec_fn=limit if limits else None, **who, **more)

    def run(self, *arguments, limits=()):
        process = self.popen(*arguments, limits=limits, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.out, process.err = process.communicate(timeout=ASKED_S)
        except subprocess.TimeoutExpired:
            expect("an end of umbra %s" % " ".join(arguments), False, [(p, role_of(p) or read(p, "cmdline"), state(p), read(p, "wchan")) for p in here()])
            process.kill()
            process.out, process.err = process.communicate()
        return process

    def begin(self, name="one", limits=()):
        self.popen("run", "--name", name, "--kernel", self.guest, "--memory", "64M", "--console", "none", "--disk", self.disk("disk"), "--net", "user",
                   limits=limits, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = wait_for(lambda: "guest" in self.info(name) or "process" in self.info(name))
        if not begun:
            sys.exit("forked-ends: no machine runs")
        wait_for(lambda: self.parts(name).get("forker"))

    def info(self, name):
        asked = self.run("info", name, "--json")
        return json.loads(asked.out) if asked.returncode == 0 else {}

    def names(self):
        return [m["name"] for m in json.loads(self.run("ps", "--json").out or "[]")]

    def parts(self, name):
        """Whoever belongs to this machine, by what he is."""
        about = self.info(name)
        if "process" not in about:
            return {}
        machine = about["process"]
        parts = {"machine": machine, "broker": about["pid"]}
        for pid in all_of(os.getpid())[1:]:
            if pid == machine or not is_there(pid) or observed.is_reaper(pid):
                continue
            try:
                if role_of(pid) == "machine" and read(pid, "maps") == read(machine, "maps"):
                    parts["forker"] = pid
            except OSError:
                pass
        for pid in all_of(about["pid"])[1:]:
            if is_there(pid) and role_of(pid) in ("disk", "keeper", "net", "relay", "supervisor") and not observed.is_reaper(pid):
                parts[role_of(pid)] = pid
        return parts

    def all_answer(self, what): # those that are ending are gone soon
        expect("%s: all that are there answer" % what, wait_for(lambda: all("process" in self.info(n) for n in self.names())), self.names())

    def lives_on(self, what, name="one", can_fork=True):
        expect("%s: %s lives on" % (what, name), "process" in self.info(name), self.names())
        if not can_fork:
            return
        forked = self.run("fork", name, "--name", "later", "--json")
        expect("%s: %s can be forked" % (what, name), forked.returncode == 0, (forked.returncode, forked.err))
        if forked.returncode == 0:
            expect("%s: its child runs" % what, "process" in self.info("later"))
        self.run("kill", "later")

    def end(self, what, fills=None):
        """No process, no file of a name, no disk with a fault is left."""
        for name in self.names():
            self.run("kill", name)
        gone = wait_for(lambda: not here())
        expect("%s: no process is left" % what, gone, [(p, role_of(p) or read(p, "cmdline"), state(p), read(p, "wchan"), observed.descriptors(p)) for p in here()])
        for pid in here():
            os.kill(pid, signal.SIGKILL)
        expect("%s: no name is left" % what, self.names() == [])
        left = [n for _, folders, files in os.walk(os.path.join(self.where.name, "umbra")) for n in folders + files if not n.startswith(".")]
        expect("%s: no file of a name is left" % what, not left, left)
        for file in sorted(os.listdir(self.files)):
            path = os.path.join(self.files, file)
            if path == fills or os.path.getsize(path) == 0: # a file that umbra fork had just made when it was killed
                continue
            checked = self.run("disk", "check", path, "--chain")
            expect("%s: %s is without a fault" % (what, file), checked.returncode == 0, checked.out + checked.err)

    def close(self):
        self.where.cleanup()


def end_all(): # a test that fails leaves nobody who holds its output
    for pid in all_of(os.getpid())[1:]:
        kill(pid)


def here():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    return [p for p in all_of(os.getpid())[1:] if is_there(p) and role_of(p) not in LIVE_ON | {"gone"}]


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


# ---- who is waited for says nothing, or ends just then ----

def silent(umbra, guest):
    """Nobody waits long for one who is stopped, and what he does when he goes on harms nobody. All at once, since that takes its time."""
    cases = []
    for whom, word in [("forker", "forker does not answer"), ("machine", "does not answer"), ("disk", "disks do not answer")]:
        place = Place(umbra, guest)
        place.begin()
        part = place.parts("one")[whom]
        kill(part, signal.SIGSTOP)
        cases.append((whom, word, place, part, place.popen("fork", "one", "--name", "two", stdout=subprocess.PIPE, stderr=subprocess.PIPE)))
    for whom, word, place, part, asked in cases:
        what = "a silent %s" % whom
        said = asked.communicate(timeout=SILENT_MOST_S)[1]
        expect("%s: who asks is told" % what, asked.returncode == 65 and word in said, (asked.returncode, said))
        if whom == "forker":
            place.lives_on(what, can_fork=False)
            again = place.run("fork", "one", "--name", "two")
            expect("%s: it is forked no more" % what, again.returncode == 65 and word in again.err, (again.returncode, again.err))
        machines = [p for p in here() if role_of(p) == "machine"]
        kill(part, signal.SIGCONT)
        if whom == "forker":
            expect("%s: what it makes then ends" % what, wait_for(lambda: [p for p in here() if role_of(p) == "machine"] == machines))
        else:
            expect("%s: then it can be forked" % what, wait_for(lambda: place.run("fork", "one", "--name", "again").returncode == 0))
        place.lives_on(what, can_fork=whom != "forker")
        for name in place.names():
            place.run("kill", name)
    for whom, word, place, part, asked in cases:
        place.end("a silent %s" % whom)
        place.close()


def at_a_step(umbra, guest, whom, is_lost):
    """He is stopped, so that the fork comes as far as that; and is killed there."""
    what = "a %s that is killed at its step" % whom
    place = Place(umbra, guest)
    place.begin()
    part = place.parts("one")[whom]
    kill(part, signal.SIGSTOP)
    asked = place.popen("fork", "one", "--name", "two", "-n", "2", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.3)
    kill(part)
    said = asked.communicate(timeout=ASKED_S)[1]
    expect("%s: who asks is told" % what, asked.returncode in ((0,) if is_lost is None else (65,)), (asked.returncode, said))
    if is_lost:
        expect("%s: its machine ends" % what, wait_for(lambda: "one" not in place.names()))
    else:
        place.lives_on(what, can_fork=whom != "forker")
    place.end(what)
    place.close()


def machines():
    return sorted(p for p in here() if role_of(p) == "machine")


def without_a_forker(umbra, guest):
    """Of those that are made first, who stands for many children, and his forker, the latter is killed."""
    what = "who stands loses his forker"
    place = Place(umbra, guest)
    place.begin()
    own = machines()
    asked = place.popen("fork", "one", "--name", "two", "-n", "200", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: len(machines()) >= len(own) + 2)
    kill([p for p in machines() if p not in own][1])
    said = asked.communicate(timeout=ASKED_S)[1]
    expect("%s: who asks is told" % what, asked.returncode == 65, (asked.returncode, said))
    place.all_answer(what)
    for name in place.names():
        if name != "one":
            place.run("kill", name)
    expect("%s: he ends" % what, wait_for(lambda: machines() == own), (own, machines()))
    place.lives_on(what)
    place.end(what)
    place.close()


def steps(umbra, guest):
    without_a_forker(umbra, guest)
    for whom, is_lost in [("machine", True), ("forker", False), ("disk", True), ("broker", True), ("net", None), ("relay", None), ("supervisor", None)]:
        at_a_step(umbra, guest, whom, is_lost)


def askers(umbra, guest):
    for whom in ("broker", "machine", "disk"):
        what = "who asks is killed while the %s is to answer" % whom
        place = Place(umbra, guest)
        place.begin()
        part = place.parts("one")[whom]
        kill(part, signal.SIGSTOP)
        asked = place.popen("fork", "one", "--name", "two", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        asked.kill()
        asked.wait()
        kill(part, signal.SIGCONT)
        expect("%s: it can be forked" % what, wait_for(lambda: place.run("fork", "one", "--name", "again").returncode == 0))
        place.lives_on(what)
        place.end(what)
        place.close()


# ---- at any moment ----

def at_any_moment(umbra, guest, turn):
    """Of all who are there at a moment of a fork of several one is killed; who belongs to NAME takes it along, and nobody else does."""
    place = Place(umbra, guest)
    place.begin()
    more = random.choice([["-n", "3"], [], ["--suspend-parent"], ["-n", "2", "--end-parent"]])
    own = place.parts("one")
    asked = place.popen("fork", "one", "--name", "two", *more, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(random.random() ** 2 * 0.25)
    victim = random.choice([p for p in all_of(os.getpid())[1:] if is_there(p)] or [asked.pid])
    whose = [part for part in own if own[part] == victim]
    what = "turn %d, %s, %s %s is killed" % (turn, " ".join(more) or "one child", "NAME's" if whose or victim in all_of(own["broker"]) else "another's", role_of(victim) or "asker")
    kill(victim)
    try:
        asked.wait(ASKED_S)
    except subprocess.TimeoutExpired:
        expect("%s: who asks waits without end" % what, False)
        asked.kill()
    place.all_answer(what)
    ends = "--end-parent" in more
    if not set(whose) & {"machine", "broker", "disk", "keeper"} and victim not in all_of(own["broker"]) and not ends:
        place.run("resume", "one")
        place.lives_on(what, can_fork=not whose)
    place.end(what)
    place.close()


def moments(umbra, guest):
    for turn in range(times):
        at_any_moment(umbra, guest, turn)


# ---- what runs out ----

def some(sparse, dense):
    return dense if times > 10 else sparse



def tasks_of(user):
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat("/proc/" + pid).st_uid == user:
                count += len(os.listdir("/proc/%s/task" % pid))
        except OSError:
            pass
    return count


def few_processes(umbra, guest):
    """Root has no limit of processes: there another user does it."""
    user = OTHER_USER if os.getuid() == 0 else None
    for more in some((3, 20, 140), (0, 1, 2, 3, 5, 8, 12, 20, 30, 45, 60, 90, 140)):
        what = "room for %d processes" % more
        place = Place(umbra, guest, user=user)
        limit = [(resource.RLIMIT_NPROC, tasks_of(os.getuid() if user is None else user) + PROCESSES_OF_ONE + more)]
        place.begin(limits=limit)
        asked = place.run("fork", "one", "--name", "many", "-n", "20", limits=limit)
        made = [n for n in place.names() if n.startswith("many-")]
        print("# %s: %d children; %s" % (what, len(made), asked.err.strip().splitlines()[-1:]))
        expect("%s: of 20 children not all" % what, asked.returncode == 65, (asked.returncode, asked.err, len(made)))
        place.all_answer(what)
        for name in made:
            place.run("kill", name)
        place.lives_on(what, can_fork=more > 60)
        place.end(what)
        place.close()


def least_kib(umbra):
    """The addresses with which the program begins at all, and says who it is: what it is linked with has its share of them."""
    low, high = 0, 1 << 20
    while high - low > 64:
        middle = (low + high) // 2
        begun = subprocess.run([umbra, "--version"], capture_output=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (middle << 10, middle << 10)))
        low, high = (low, middle) if begun.returncode == 0 else (middle, high)
    return high


def little_memory(umbra, guest):
    """Of who asks, which all brokers come of; then of the machine, which its children have as well."""
    place = Place(umbra, guest)
    place.begin()
    least = least_kib(umbra)
    print("# %d KiB for its begin" % least)
    for kib in (least + more for more in some((1 << 10, 2 << 10, 4 << 10), range(0, 5 << 10, 128))):
        asked = place.run("fork", "one", "--name", "two", "-n", "2", limits=[(resource.RLIMIT_AS, kib << 10)])
        print("# %d KiB for who asks: %s %s" % (kib, asked.returncode, asked.err.strip().splitlines()[-1:]))
        expect("%d KiB for who asks: an end with a word" % kib, asked.returncode == 0 or asked.err, (asked.returncode, asked.err))
        for name in place.names():
            if name != "one":
                place.run("kill", name)
    place.lives_on("little memory of who asks")
    parts = place.parts("one")
    size = int(read(parts["machine"], "statm").split()[0]) * resource.getpagesize()
    for percent in some((50, 99), (1, 20, 50, 60, 70, 80, 90, 95, 98, 99, 100)):
        what = "a child may have %d %% of its parent's addresses" % percent
        for part in ("machine", "forker"):
            resource.prlimit(parts[part], resource.RLIMIT_AS, (size * percent // 100, resource.RLIM_INFINITY))
        asked = place.run("fork", "one", "--name", "two")
        print("# %s: %s %s" % (what, asked.returncode, asked.err.strip().splitlines()[-1:]))
        expect("%s: an end with a word" % what, asked.returncode == 0 or asked.err, (asked.returncode, asked.err))
        for part in ("machine", "forker"):
            resource.prlimit(parts[part], resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        place.run("kill", "two")
    place.lives_on("little memory of a child")
    place.end("little memory")
    place.close()


def few_descriptors(umbra, guest):
    place = Place(umbra, guest)
    place.begin()
    for most in some(range(4, 329, 36), range(4, 330, 3)):
        asked = place.run("fork", "one", "--name", "two", "-n", "2", limits=[(resource.RLIMIT_NOFILE, most)])
        print("# %d descriptors: %s %s" % (most, asked.returncode, asked.err.strip().splitlines()[-1:]))
        expect("%d descriptors: an end with a word" % most, asked.returncode == 0 or asked.err, (asked.returncode, asked.err))
        expect("%d descriptors: a child that is named is there" % most, asked.returncode or {"two-1", "two-2"} <= set(place.names()), place.names())
        for name in place.names():
            if name != "one":
                place.run("kill", name)
    place.lives_on("few descriptors")
    place.end("few descriptors")
    place.close()


def mount_small(where):
    return os.getuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64M", "none", where], capture_output=True).returncode == 0


def full_disk(umbra, guest):
    """So many KiB are left: for NAME's layer, for what is written into the frozen one, for a child's file."""
    with tempfile.TemporaryDirectory() as small:
        if not mount_small(small):
            print("# no file system can be mounted: a full one is not tried")
            return
        try:
            for kib in some((0, 64, 512, 16384), (0, 4, 8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1500, 2048, 3072, 4096, 8192, 16384)):
                what = "a disk with %d KiB left" % kib
                place = Place(umbra, guest, disks=small)
                place.begin()
                filler = os.path.join(small, "filler")
                space = os.statvfs(small)
                with open(filler, "wb") as f:
                    os.posix_fallocate(f.fileno(), 0, space.f_bavail * space.f_bsize - (kib << 10))
                asked = place.run("fork", "one", "--name", "two", "-n", "2")
                made = [n for n in place.names() if n != "one"]
                print("# %s: %s, %d children; %s" % (what, asked.returncode, len(made), asked.err.strip().splitlines()[-1:]))
                expect("%s: an end with a word" % what, asked.returncode == 0 or asked.err, (asked.returncode, asked.err))
                os.unlink(filler)
                for name in made:
                    place.run("kill", name)
                place.lives_on(what)
                place.end(what, filler)
                place.close()
                for file in os.listdir(small):
                    os.unlink(os.path.join(small, file))
        finally:
            subprocess.run(["umount", "-l", small])


PARTS = {"silent": silent, "steps": steps, "askers": askers, "processes": few_processes, "memory": little_memory, "descriptors": few_descriptors, "disk": full_disk, "moments": moments}
atexit.register(end_all)
for part in sys.argv[3].split(","):
    begun = time.time()
    PARTS[part](os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]))
    print("# %s: %.1f s" % (part, time.time() - begun), flush=True)
sys.exit(observed.failed != 0)
