#!/usr/bin/env python3
"""umbra info --hot and umbra top: a guest whose program spins, one whose kernel is busy, one that sleeps."""
import json, os, subprocess, sys, tempfile, time

umbra = os.path.abspath(os.environ["UMBRA"])
failed = 0
folder = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=folder.name)
MACHINES = {"spins": "", "busy": "busy=1", "sleeps": "halt=1"}


def check(what, good, *more):
    global failed
    if not good:
        print("hot:", what, *more)
        failed = 1


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def until(condition):
    end = time.time() + 120
    while time.time() < end:
        if condition():
            return
        time.sleep(0.05)
    sys.exit("hot: waited in vain")


def console(name):
    return os.path.join(folder.name, name + ".log")


def hot(name, *more):
    said = run("info", "--hot=0.3", "--json", *more, name)
    return json.loads(said.stdout) if said.returncode == 0 else {"functions": [], "looks": 0, "asleep": 0}


def most(name):
    """What it is in now; a look may have come while the kernel had something else to do."""
    rows = hot(name)["functions"]
    return rows[0]["name"] if rows else ""


subprocess.run(["tools/fetch-guest", "tests/boot/spin.init", "build/guest/spin.cpio.gz"], check=True)
try:
    for name, word in MACHINES.items():
        said = run("run", "--detach", "--no-bus", "--name", name, "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/spin.cpio.gz", "--memory", "128M",
                   "--console", console(name), "--append", "console=ttyS0 " + word)
        check("run", said.returncode == 0, said)
    for name in MACHINES:
        until(lambda: "READY" in open(console(name)).read())
    until(lambda: most("spins") == "[user]")
    until(lambda: most("busy")[:1].isalpha() or most("busy")[:1] == "_")
    run("kill", "busy")
    MACHINES.pop("busy")
    until(lambda: (lambda h: h["looks"] > 0 and h["asleep"] == h["looks"])(hot("sleeps")))
    said = run("info", "--hot=0.1", "spins")
    check("as text", "looks at processors" in said.stdout and "%  [user]" in said.stdout, said)
    said = run("top", "--once", "--every", "0.3", "--json")
    rows = {row["name"]: row for row in json.loads(said.stdout)}
    check("top", sorted(rows) == sorted(MACHINES) and rows["spins"]["memory"] == 128 << 20 and rows["spins"]["unique"] > 0, rows)
    until(lambda: {row["name"]: row for row in json.loads(run("top", "--once", "--every", "0.3", "--json").stdout)}["spins"]["processor-percent"] > 0)
    said = run("top", "--once", "--every", "0.1").stdout.splitlines()
    check("as a table", len(said) == 3 and said[0].split()[0] == "NAME" and said[1].split()[:2] == ["sleeps", "running"], said)
    for words, code in ((("info", "--hot=x", "spins"), 64), (("info", "--hot", "nobody"), 65), (("info", "--hot", "--symbols", "/nowhere", "spins"), 65),
                        (("top", "x"), 64), (("top", "--every", "0"), 64)):
        said = run(*words)
        check("refused", said.returncode == code and said.stderr.count("\n") == 1 and said.stderr.startswith("umbra: "), words, said)
finally:
    for name in [*MACHINES, "busy"]:
        run("kill", name)
sys.exit(failed)
