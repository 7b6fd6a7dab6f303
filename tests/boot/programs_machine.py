"""A Debian with compilers, JITs, a debugger and loads, for programs.py and forked_load.py (and bench/everyday, which takes its tree). It is made once
(build/guest/programs-tree.tar, or $DEBIAN_TREE), in minutes. A machine of it is asked through its agent; begin() makes it."""
import os, re, subprocess, sys, tempfile, time

os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
PACKAGES = ("gcc", "g++", "make", "libc6-dev", "openjdk-17-jdk-headless", "nodejs", "luajit", "python3", "sqlite3", "xz-utils", "redis-server", "redis-tools", "rt-tests",
            "stress-ng", "gdb", "procps", "fio", "iperf3")
MOST_S = 1200
COMPLAINTS = r"BUG|Oops|WARNING:|general protection|soft lockup|rcu.*stall|segfault|trap invalid opcode|traps:|Machine Check|hung task|blocked for more"


def make_tree():
    os.environ.setdefault("DEBIAN_TREE", os.path.abspath("build/guest/programs-tree.tar"))
    return subprocess.run(["tests/image/debian-tree", *PACKAGES], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Machines:
    """Those of one test, in a folder of its own; `failed` is what the test ends with."""

    def __init__(self, test, umbra):
        self.test, self.umbra, self.failed = test, umbra, 0
        self.work = tempfile.TemporaryDirectory(dir="build")
        self.env = dict(os.environ, XDG_RUNTIME_DIR=os.path.abspath(self.work.name))

    def path(self, name):
        return os.path.join(self.work.name, name)

    def check(self, what, good, *more):
        if not good:
            print("%s:" % self.test, what, *more, flush=True)
            self.failed = 1
        return good

    def run(self, *words, **more):
        more = {"stdin": subprocess.DEVNULL, "timeout": MOST_S, **more}
        return subprocess.run([self.umbra, *words], env=self.env, capture_output=True, **more)

    def runs(self, name):
        return self.run("info", name).returncode == 0

    def guest(self, name, text, seconds=MOST_S):
        """What a shell in the guest says, and how it ends."""
        try:
            r = self.run("exec", "-T", "--wait", "60", name, "--", "sh", "-c", text, timeout=seconds)
        except subprocess.TimeoutExpired:
            self.check("%s does not come back" % name, False, text[:200])
            return "", 124
        if r.returncode and not self.runs(name):
            sys.exit("%s: %s has ended, in: %s\n%s" % (self.test, name, text[:300], self.console(name)[-2000:]))
        return (r.stdout + r.stderr).decode(errors="replace").strip(), r.returncode

    def console(self, name):
        """What its guest has printed, and what its broker has said."""
        text = ""
        for file in "umbra/.console-" + name, "umbra/.log-" + name:
            with open(self.path(file), "rb") as f:
                text += f.read().decode(errors="replace")
        return text

    def put(self, name, file, text):
        r = self.run("exec", "-T", name, "--", "sh", "-c", "cat >" + file, input=text.encode(), stdin=None)
        self.check("written: " + file, r.returncode == 0, r)

    def begin(self, name, *words):
        r = self.run("image", "build", make_tree(), self.path("d.vhdx"), "--size", "8G")
        self.check("its disk is built", r.returncode == 0, r)
        r = self.run("run", "--detach", "--name", name, *words, self.path("d.vhdx"))
        if not self.check("it begins", r.returncode == 0, r):
            sys.exit(1)
        end = time.time() + MOST_S
        while self.run("exec", "-T", name, "--", "true").returncode:
            if time.time() > end or not self.runs(name):
                sys.exit("%s: its agent does not answer: %s" % (self.test, self.console(name)[-3000:]))
            time.sleep(0.2)
        # what it tidies as it boots (/tmp) is not ours, yet
        self.guest(name, "systemctl is-system-running --wait; dmesg -C")

    def kernel_is_well(self, name, what, but=None):
        """`but`: what the load itself makes it say."""
        said, status = self.guest(name, "dmesg")
        bad = [l for l in said.split("\n") if re.search(COMPLAINTS, l) and not (but and re.search(but, l))]
        self.check(what + ": the kernel is well", status == 0 and not bad, "\n".join(bad[:20]), said[-300:] if status else "")
        self.guest(name, "dmesg -C")
