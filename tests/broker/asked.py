#!/usr/bin/env python3
"""What a machine with a name is asked, and what is said then: its state, its disks, cards and ports; forks that are refused by name and why a child ended;
views whose reader goes away.   usage: asked.py UMBRA GUEST"""
import json, os, resource, signal, socket, subprocess, sys, tempfile, time

umbra, guest, failed = sys.argv[1], sys.argv[2], 0
WAIT_S, GONE = 60, (141, -signal.SIGPIPE)


def check(what, good, *more):
    global failed
    if not good:
        print("asked:", what, *more)
        failed = 1


def run(*words, **more):
    return subprocess.run([umbra, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT_S, **more)


def refused(what, code, words, done):
    check(what, done.returncode == code and all(w in done.stderr for w in words) and done.stderr.count("\n") == 1, done.returncode, done.stderr)


def until(what, good):
    end = time.time() + WAIT_S
    while not good():
        if time.time() > end:
            sys.exit("asked: " + what)
        time.sleep(0.02)


def about(name):
    done = run("info", name, "--json")
    return json.loads(done.stdout) if done.returncode == 0 else {}


def states():
    return {m["name"]: m["state"] for m in json.loads(run("ps", "--json").stdout)}


def begin(name, *words):
    machine = subprocess.Popen([umbra, "run", "--name", name, "--kernel", guest, "--memory", "64M", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    until("no machine runs", lambda: "process" in about(name))
    return machine


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def loses_reader(*words, lines=1):
    """So many lines are read, and no more."""
    view = subprocess.Popen([umbra, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(lines):
        check("%s says nothing" % " ".join(words), view.stdout.readline())
    view.stdout.close()
    try:
        check("%s without a reader" % " ".join(words), view.wait(WAIT_S) in GONE and not view.stderr.read(), view.returncode)
    except subprocess.TimeoutExpired:
        check("%s goes on without a reader" % " ".join(words), False)
        view.kill()


def nobody(where):
    check("ps of none", json.loads(run("ps", "--json").stdout) == [])
    done = run("memory")
    check("memory of none", done.returncode == 0 and "no machine" in done.stdout, done)
    check("memory of none as JSON", json.loads(run("memory", "--json").stdout)["machines"] == [])
    check("history of none", json.loads(run("memory", "--history").stdout) == [])
    check("bus of none", run("bus").stdout.count("\n") == 1)
    loses_reader("bus", "--live")
    loses_reader("top")
    with socket.socket(socket.AF_UNIX) as late: # one that has its name, and does not serve yet
        late.bind(os.path.join(where, "umbra", "late"))
        late.listen()
        check("one that begins", states() == {"late": "starting"}, states())
    os.unlink(os.path.join(where, "umbra", "late"))


def one(where):
    disk, other, port = os.path.join(where, "disk.vhdx"), os.path.join(where, "other.vhdx"), free_port()
    for file in (disk, other):
        check("a disk", run("disk", "create", file, "--size", "16M").returncode == 0)
    begin("one", "--console", os.path.join(where, "console"), "--disk", disk, "--disk", other + ",readonly", "--net", "user", "-p", "127.0.0.1:%d:80" % port,
          "-p", "%d:53/udp" % port)
    lines = run("info", "one").stdout.splitlines()
    for line in ("disk 0     %s, vhdx" % disk, "disk 1     %s, vhdx, read-only" % other, "port       127.0.0.1:%d:80" % port, "port       %d:53/udp" % port,
                 "state      running"):
        check("info", line in lines, line, lines)
    check("info's card", any(l.startswith("card 0     user, ") for l in lines), lines)
    check("a row", run("ps").stdout.splitlines()[1].split()[:2] == ["one", "running"], run("ps").stdout)
    refused("a disk that is not there", 65, ["umbra: 99:", "one"], run("disk", "detach", "one", "99"))
    run("pause", "one")
    check("one that is paused", states() == {"one": "paused"}, states())
    run("resume", "one")
    broker = about("one")["pid"]
    os.kill(broker, signal.SIGSTOP)
    stopped = states()
    os.kill(broker, signal.SIGCONT)
    check("one that says nothing", stopped == {"one": "silent"}, stopped)
    loses_reader("console", "one", lines=0) # its guest prints nothing
    loses_reader("top", "--every", "0.2")


def ends(where):
    few = run("fork", "one", "--name", "few", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    refused("a fork with 64 descriptors", 65, ["umbra: one:", "ulimit -n"], few)
    check("one that is forked so", list(states()) == ["one"], states())
    check("a fork", run("fork", "one", "--name", "two").returncode == 0)
    os.kill(about("two")["process"], signal.SIGKILL)
    until("a child is there without its machine", lambda: "two" not in states())
    refused("why a child ended", 65, ["no machine of that name", "the last one said: ", "ended without a word"], run("info", "two"))
    check("a fork of the same name", run("fork", "one", "--name", "two").returncode == 0)
    run("kill", "two")
    refused("one that was told to end", 65, ["no machine of that name", "umbra ps"], run("info", "two"))


def paths(where):
    """A machine of whose disks not all can be told runs, and is forked by nobody, who says why."""
    far = os.path.join(where, *("%x" % n * 200 for n in range(10)))
    os.makedirs(far)
    disks = [os.path.join(far, "%d.vhdx" % n) for n in range(4)]
    for disk in disks:
        run("disk", "create", disk, "--size", "4M")
    begin("far", "--console", "none", *(word for disk in disks for word in ("--disk", disk)))
    refused("long paths", 65, ["umbra: far:", "paths of its disks are too long"], run("fork", "far", "--name", "two"))
    run("kill", "far")


def layers(where):
    """Files that are left over from children go, and no others."""
    def listed():
        return {os.path.basename(f["file"]): f["state"] for f in json.loads(run("disk", "layers", where, "--json").stdout)}
    def file(name):
        return os.path.join(where, name + ".vhdx")
    before = listed()
    check("layers of ended children", before.pop("disk.one.vhdx", 0) == "needed" and "used" in before.values() and "left over" in before.values(), before)
    mine = [n for n in before if before[n] == "used"][0]
    check("a fork of a child", run("fork", "one", "--name", "three").returncode == 0 and run("fork", "three", "--name", "four").returncode == 0)
    four = [n for n in listed() if "four" in n][0]
    lives = listed()
    check("layers of lives", lives[four] == "used", lives, states(), run("info", "four").stderr)
    refused("a layer that is used", 65, ["somebody uses it"], run("disk", "layers", os.path.join(where, four), "--remove"))
    refused("a layer that is needed", 65, ["is made on it"], run("disk", "layers", file("disk.three"), "--remove"))
    refused("no layer", 65, ["no layer"], run("disk", "layers", file("other"), "--remove"))
    reader = run("disk", "read", os.path.join(where, "disk.two.vhdx"), "--offset", "0", "--length", "512")
    check("a layer is read", reader.returncode == 0, reader.stderr)
    for name in ("three", "four"):
        run("kill", name)
    left = {n for n, state in listed().items() if state == "left over"}
    done = run("disk", "layers", where, "--remove")
    check("removing", done.returncode == 0 and left and not left & set(os.listdir(where)), done, os.listdir(where))
    now = listed()
    check("what stays", "left over" not in now.values() and now.get("disk.three.vhdx") == "frozen", now)
    check("by its name", run("disk", "layers", file("disk.three"), "--remove").returncode == 0 and "disk.three.vhdx" not in os.listdir(where))
    check("it is forked as before", run("fork", "one", "--name", "five").returncode == 0)
    run("kill", "one")
    kept = [n for n, state in listed().items() if state == "kept"]
    check("what one goes on in is kept", len(kept) == 1, listed())
    refused("what is kept", 65, ["goes on in it"], run("disk", "layers", os.path.join(where, kept[0]), "--remove"))
    checked = run("disk", "check", os.path.join(where, kept[0]), "--chain")
    check("it is whole", checked.returncode == 0, checked)


with tempfile.TemporaryDirectory() as place:
    os.environ.update(XDG_RUNTIME_DIR=place, XDG_CONFIG_HOME=os.path.join(place, "config"))
    try:
        nobody(place)
        one(place)
        ends(place)
        layers(place)
        paths(place)
    finally:
        for name in states():
            run("kill", name)
sys.exit(failed)
