#!/usr/bin/env python3
"""A Linux whose code changes all the time is forked again and again while it goes on (docs/fork.md: a child copies code that its parent executes already): both go on,
and what they compute is right. forked_on.py UMBRA FORKS"""
import hashlib, os, re, subprocess, sys, tempfile, time

umbra, forks, failed = os.path.abspath(sys.argv[1]), int(sys.argv[2]), 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest", "tests/boot/forked-on.init", "build/guest/forked-on.cpio.gz"], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)
RIGHT = re.compile(r"SUM [12] 45150 %s\s+-$" % hashlib.md5("".join("%d\n" % n for n in range(1, 201)).encode()).hexdigest())
WAIT_S, LINES = 60, 3


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180)


def console(name):
    return os.path.join(work.name, name + ".console")


def said(name):
    """How many lines of it are whole and right, once none is wrong."""
    global failed
    if not os.path.exists(console(name)):
        return 0
    with open(console(name), errors="replace") as f:
        lines = [line.strip() for line in f.read().split("\n")[:-1]]
    lines = [line for line in lines[name != "one":] if "SUM" in line] # a child's first may be the rest of its parent's
    for line in lines:
        if not RIGHT.search(line):
            print("forked-on: %s says %r" % (name, line))
            failed = 1
    return len(lines)


def goes_on(name, before=0):
    global failed
    end = time.time() + WAIT_S
    while said(name) < before + LINES:
        if time.time() > end:
            print("forked-on: %s does not go on" % name)
            failed = 1
            return
        time.sleep(0.02)


machine = subprocess.Popen([umbra, "run", "--name", "one", "--cpus", "2", "--memory", "256M", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/forked-on.cpio.gz",
                            "--append", "console=ttyS0 quiet", "--console", console("one")], env=env, stdin=subprocess.DEVNULL)
goes_on("one")
for n in range(forks):
    child, before = "child-%d" % n, said("one")
    forked = run("fork", "one", "--name", child, "--console", console(child))
    if forked.returncode:
        print("forked-on:", forked.stderr)
        failed = 1
    goes_on(child)
    run("kill", child)
    goes_on("one", before)
    if failed:
        break
run("kill", "one")
machine.wait(WAIT_S)
sys.exit(failed)
