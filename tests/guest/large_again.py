#!/usr/bin/env python3
"""large_again.py UMBRA GUEST: a machine that writes has large pages of its host's; while it has a child they are split, one after the other, since each of the two writes to its own; soon after
the child is gone they are large again (process/rejoin.h). A host that gives none has none to lose."""
import os, re, subprocess, sys, tempfile, time

umbra, guest = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)
MOST_S, WRITTEN_KIB = 60, 64 << 10


def run(*words):
    done = subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MOST_S)
    if done.returncode:
        sys.exit("large-again: umbra %s: %s" % (" ".join(words), done.stderr))
    return done.stdout


def large_kib():
    with open("/proc/%s/smaps" % process) as f:
        return sum(map(int, re.findall(r"^AnonHugePages: +(\d+)", f.read(), re.M)))


def wait_for(condition):
    end = time.time() + MOST_S
    while not condition():
        if time.time() > end:
            return False
        time.sleep(0.05)
    return True


def said():
    try:
        with open(console) as f:
            return f.read()
    except FileNotFoundError:
        return ""


console = os.path.join(work.name, "console")
run("run", "--detach", "--name", "one", "--kernel", guest, "--memory", "192M", "--cpus", "1", "--console", console)
failed = 1
try:
    process = re.search(r'"process": *(\d+)', run("info", "one", "--json")).group(1)
    if not wait_for(lambda: "WRITES" in said()):
        sys.exit("large-again: the guest does not write")
    before = large_kib()
    run("fork", "one", "--name", "two")
    split = wait_for(lambda: large_kib() <= max(before - WRITTEN_KIB // 2, 0))
    least = large_kib()
    run("kill", "two")
    again = wait_for(lambda: large_kib() >= before)
    print("large-again: %d KiB in large pages, %d while it had a child, %d afterwards" % (before, least, large_kib()))
    failed = before >= WRITTEN_KIB // 2 and not (split and again)
finally:
    run("kill", "one")
sys.exit(failed)
