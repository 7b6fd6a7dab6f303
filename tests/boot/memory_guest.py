"""Linux with its balloon driver, for tests of memory: its program (memory.init) does what it is told by its console. failures counts what
check() did not find good; the test's first argument is UMBRA."""
import os, subprocess, sys

umbra, failures = os.path.abspath(sys.argv[1]), 0
MIB = 1 << 20
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
subprocess.run(["tools/fetch-guest", "tests/boot/memory.init", "build/guest/memory.cpio.gz"] +
               ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "hv_balloon")], check=True)


def check(what, good):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + what, flush=True)


class Guest:
    def __init__(self, name, *options):
        self.name = name
        self.process = subprocess.Popen([umbra, "run", "--name", name, "--time-limit", "1500", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/memory.cpio.gz",
                                         "--append", "console=ttyS0 quiet memhp_default_state=online", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def hear(self, want):
        for line in self.process.stdout:
            line = line.decode(errors="replace").strip()
            if "BAD" in line:
                check(line, False)
            if want in line:
                return line
        check("the guest says " + want, False)
        sys.exit(1)

    def do(self, what, n=0):
        """What the program says of memory that is free, MiB."""
        self.process.stdin.write(b"%s %d\n" % (what.encode(), n))
        self.process.stdin.flush()
        return int(self.hear("DID " + what).split()[-1]) >> 10

    def end(self):
        self.process.stdin.write(b"end\n")
        self.process.stdin.flush()
        self.hear("MEMORY DONE")
        check("it ends in order", self.process.wait(timeout=120) == 0)
