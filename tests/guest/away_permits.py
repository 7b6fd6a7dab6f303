#!/usr/bin/env python3
"""away_permits.py UMBRA RESTING: a machine with a disk, its parent and a card on a switch goes to another place where umbra listen permits all of that, and nowhere
else; it reaches no services of that host. And a machine that is restored reaches none either, but where its user says so."""
import json, os, subprocess, sys, tempfile, time

umbra, resting, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
work = tempfile.TemporaryDirectory()
places = {}
for place in "here", "there":
    path = os.path.join(work.name, place)
    os.mkdir(path, 0o700)
    places[place] = dict(os.environ, XDG_RUNTIME_DIR=path, TMPDIR=path)
key, parcels, disks, bases = (os.path.join(work.name, name) for name in ("key", "parcels", "disks", "bases"))
for folder in parcels, disks, bases:
    os.mkdir(folder, 0o700)


def check(what, good, *more):
    global failed
    if not good:
        print("away-permits:", what, *more)
        failed = 1
    return good


def run(place, *words):
    return subprocess.run([umbra, *words], env=places[place], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200)


def do(place, *words):
    done = run(place, *words)
    if not check(" ".join(words), done.returncode == 0, done.returncode, done.stderr):
        sys.exit(1)


def info(place, name):
    return json.loads(run(place, "info", name, "--json").stdout)


def send_to(what, *words, why=None):
    """To a listener of these words; why: it is refused."""
    listener = subprocess.Popen([umbra, "listen", "0", "--key", key, "--folder", parcels, *words], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True)
    place = listener.stdout.readline().split()[-1]
    before = sorted(os.listdir(disks))
    sent = run("here", "fork", "one", "--to", place, "--key", key, "--name", "two")
    if why:
        check(what + ": is refused", sent.returncode == 65 and why in sent.stderr, sent.returncode, sent.stderr)
        check(what + ": nothing of it is left", [name for name in os.listdir(disks) if "two" in name] == [], before, os.listdir(disks))
    else:
        check(what + ": arrives", sent.returncode == 0, sent.returncode, sent.stderr)
    listener.kill()
    listener.wait()


def start(name, *words):
    machine = subprocess.Popen([umbra, "run", "--name", name, "--kernel", resting, "--memory", "64M", "--debug-exit", "0xf4", *words], env=places["here"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in machine.stdout:
        if "READY" in line:
            return machine
    sys.exit("%s does not begin" % name)


do("here", "listen", "--make-key", key)
do("here", "disk", "create", bases + "/base.vhdx", "--size", "16M")
do("here", "disk", "create", disks + "/top.vhdx", "--parent", bases + "/base.vhdx", "--parents", bases)
one = start("one", "--disk", disks + "/top.vhdx", "--parents", bases, "--net", "switch=one", "--net", "user,host-loopback")
denied, unknown = "a disk is not where one is permitted", "it is on a network that is not permitted"
everything = "--switch", "one", "--parents", disks, "--parents", bases
send_to("nothing is permitted", why=unknown)
send_to("another switch", "--switch", "two", *everything[2:], why=unknown)
send_to("no disks", *everything[:2], why=denied)
send_to("another folder", *everything[:2], "--parents", bases, why=denied)
send_to("not its parent's folder", *everything[:4], why="a disk: ")
send_to("all of it", *everything)
there = info("there", "two")
check("its cards", [(card["kind"], card["name"], card["host-loopback"]) for card in there["cards"]] == [("switch", "one", False), ("user", "", False)], there["cards"])
check("its disk is a file of its own, beside the other", os.path.dirname(there["disks"][0]["file"]) == disks and "two" in there["disks"][0]["file"], there["disks"])
do("there", "kill", "two")
for words in ["--switch", "a/b"], ["--parents", disks + "/none"], *(["--switch", "x"] * 17, ["--parents", disks] * 17):
    done = run("there", "listen", "0", "--key", key, *words)
    check("refused: %s" % words[:2], done.returncode == 64, done.returncode, done.stderr)

# ---- a file says that its user had asked for services of the host ----

do("here", "save", "one", work.name + "/saved", "--stop")
one.wait(100)
for cards, opens in ((), False), (("--net", "switch=one", "--net", "user,host-loopback"), True):
    done = run("here", "run", "--restore", work.name + "/saved", "--name", "again", "--detach", *cards)
    check("it is restored", done.returncode == 0, done.stderr)
    check("it says so when it reaches them no more", opens != ("host-loopback" in done.stderr), done.stderr)
    check("it reaches them where its user says so", info("here", "again")["cards"][1]["host-loopback"] == opens)
    do("here", "kill", "again")
end = time.time() + 60
while os.listdir(parcels) and time.time() < end:
    time.sleep(0.05)
check("nothing is left of what arrived", not os.listdir(parcels), os.listdir(parcels))
print("ok" if not failed else "not ok")
sys.exit(failed)
