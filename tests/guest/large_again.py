#!/usr/bin/env python3
"""large_again.py UMBRA GUEST: a machine that writes has large pages of its host's; when it is forked they are split, one after the other, since each of the two writes to its own; soon after it
has its own of all, or the child is gone, they are large again (process/rejoin.h). A host that gives none has none to lose."""
import os, re, subprocess, sys, tempfile, threading, time

umbra, guest = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)
MOST_S, WRITTEN_KIB, SOME_KIB = 60, 512 << 10, 8 << 10 # the kernel may be busy with a page or two


def run(*words):
    done = subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=MOST_S)
    if done.returncode:
        sys.exit("large-again: umbra %s: %s" % (" ".join(words), done.stderr))
    return done.stdout


def large_kib():
    with open("/proc/%s/smaps" % process) as f:
        return sum(map(int, re.findall(r"^AnonHugePages: +(\d+)", f.read(), re.M)))


def sample():
    global least
    while not ended.wait(0.003):
        least = min(least, large_kib())


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
ended = threading.Event()
run("run", "--detach", "--name", "one", "--kernel", guest, "--memory", "640M", "--cpus", "1", "--console", console)
failed = 1
try:
    process = re.search(r'"process": *(\d+)', run("info", "one", "--json")).group(1)
    if not wait_for(lambda: "WRITES" in said()):
        sys.exit("large-again: the guest does not write")
    before = least = large_kib()
    sampler = threading.Thread(target=sample)
    sampler.start()
    for child in ["two", "three"]:
        run("fork", "one", "--name", child)
        time.sleep(1)
        run("kill", child)
    again = wait_for(lambda: large_kib() >= before - SOME_KIB)
    ended.set()
    sampler.join()
    print("large-again: %d KiB in large pages, %d at least while it had children, %d afterwards" % (before, least, large_kib()))
    failed = before >= WRITTEN_KIB // 2 and not (least < before - WRITTEN_KIB // 8 and again)
finally:
    ended.set()
    run("kill", "one")
sys.exit(failed)
