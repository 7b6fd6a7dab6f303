#!/usr/bin/env python3
"""Twins are told apart before their first instruction: a guest is forked many times, many at a time, and saved and restored; none of them all has
an id or a random number of another, as its very first act.   usage: twins.py UMBRA GUEST FORKS"""
import atexit, os, subprocess, sys, tempfile, time

umbra, guest, forks = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), int(sys.argv[3])
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)
MOST = 100


def run(*words):
    done = subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200)
    if done.returncode:
        sys.exit("twins: umbra %s: %s" % (" ".join(words), done.stderr))
    return done.stdout


def said(path):
    try:
        return open(path, errors="replace").read()
    except FileNotFoundError:
        return ""


def wait_for(path, text):
    end = time.time() + 100
    while text not in said(path):
        if time.time() > end:
            sys.exit("twins: %s does not say %s: %s" % (path, text, said(path)[-400:]))
        time.sleep(0.02)


def twin(path):
    wait_for(path, "\n1..")
    lines = said(path).replace("\r", "").split("\n")
    for line in lines:
        if line.startswith("not ok"):
            sys.exit("twins: %s: %s" % (path, line))
    return next(l.split()[1:] for l in lines if l.startswith("TWIN"))


def place(name):
    return os.path.join(work.name, name)


with open(place("one.log"), "wb") as log:
    machine = subprocess.Popen([umbra, "run", "--name", "one", "--kernel", guest, "--memory", "64M", "--debug-exit", "0xf4", "--secrets"], env=env,
                               stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
atexit.register(machine.kill)
wait_for(place("one.log"), "READY")
refused = subprocess.run([umbra, "fork", "one"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200)
if refused.returncode != 65 or "holds secrets" not in refused.stderr:
    sys.exit("twins: who holds secrets was forked: %s" % refused.stderr)
logs = []
while len(logs) < forks:
    count = min(MOST, forks - len(logs))
    name = "twin%d" % len(logs)
    run("fork", "one", "--with-secrets", "--name", name, "-n", str(count), "--console", place(name))
    logs += [place(name if count == 1 else "%s-%d" % (name, n + 1)) for n in range(count)]
    for log in logs[-count:]:
        twin(log)
run("save", "one", place("saved"))
for n in range(2):
    with open(place("restored%d" % n), "wb") as log:
        subprocess.run([umbra, "run", "--restore", place("saved")], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=200)
    logs.append(place("restored%d" % n))
twins = [twin(log) for log in logs]
for n, what in enumerate(["first halves of ids", "second halves of ids", "random numbers"]):
    values = {t[n] for t in twins}
    if len(values) != len(twins) and values != {"0x0"}:
        sys.exit("twins: of %d %s only %d are different" % (len(twins), what, len(values)))
if "TWIN" in said(place("one.log")):
    sys.exit("twins: the one that was forked was woken")
run("kill", "one")
end = time.time() + 100
while len(run("ps").strip().split("\n")) > 1: # each ends itself, however soon after its first instruction
    if time.time() > end:
        sys.exit("twins: some do not end: %s" % run("ps"))
    time.sleep(0.05)
