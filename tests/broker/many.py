#!/usr/bin/env python3
"""Many children of one moment, of a process that stands for them while their parent goes on: all are there, whole and alone, and nothing else is left of it. What becomes
of the parent, of those that were made when who makes them is killed, and of a name that is taken, and who has what of several that are balanced.   usage: many.py UMBRA GUEST [CHILDREN]"""
import atexit, json, os, re, shutil, signal, subprocess, sys, tempfile, time

import observed
from observed import expect, read

place = tempfile.TemporaryDirectory()
umbra, guest = shutil.copy(sys.argv[1], place.name), sys.argv[2] # nobody else's processes have this program
count = int(sys.argv[3]) if len(sys.argv) > 3 else 200


def run(*arguments):
    return subprocess.run([umbra, *arguments], capture_output=True, text=True, timeout=100)


def ask(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def is_there(pid):
    try:
        return read(pid, "stat").rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def until(what, good):
    for _ in range(6000):
        if good():
            return
        time.sleep(0.01)
    expect(what, False)


def processes():
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink("/proc/%s/exe" % pid) == umbra:
                found.add(int(pid))
        except OSError:
            pass
    return found


def sockets(pid):
    links = [os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)]
    return {link for link in links if link.startswith("socket:")}


def descriptors(pid):
    return sorted(re.sub(r"\d+|(?<=/.log-).*", "N", os.readlink("/proc/%d/fd/%s" % (pid, n))) for n in os.listdir("/proc/%d/fd" % pid))


def namespace(pid, name):
    return os.readlink("/proc/%d/ns/%s" % (pid, name))


def start(*more):
    machine = subprocess.Popen([umbra, "run", "--name", "parent", "--kernel", guest, "--memory", "64M", "--console", "none", *more], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(machine.kill)
    until("it runs", lambda: run("info", "parent").returncode == 0 and "process" in ask("info", "parent"))
    time.sleep(0.3)
    return machine


def end_all(names):
    for name in names:
        run("kill", name)


def lost():
    return [m["name"] for m in ask("ps") if m["name"].startswith("lost-")]


def stands(name):
    return run("resume", name).returncode == 0


with tempfile.TemporaryDirectory() as where:
    os.environ["XDG_RUNTIME_DIR"] = where
    machine = start()
    before = processes()
    children = ask("fork", "parent", "--name", "child", "-n", str(count))
    expect("all children", [c["name"] for c in children] == ["child-%d" % n for n in range(1, count + 1)], len(children))
    brokers, machines = {c["pid"] for c in children}, {c["process"] for c in children}
    expect("each with a broker and a machine process of its own", len(brokers) == count and len(machines) == count and not brokers & machines)
    expect("all of them answer", all(ask("info", c["name"])["process"] == c["process"] for c in children))
    until("each has a forker beside, and nobody else is left", lambda: len(processes() - before) == 3 * count)
    expect("the parent goes on", not stands("parent") and is_there(machine.pid))
    # whom a broker of several is, seen from outside
    one, other = children[0]["pid"], children[-1]["pid"]
    alone = ask("fork", "parent", "--name", "alone")[0]["pid"]
    until("its broker has given up its rights", lambda: all("2" in read(p, "status").split("Seccomp:", 1)[1][:4] for p in [one, other, alone]))
    expect("a broker is called what it is", read(one, "cmdline").replace("\0", " ").strip() == "umbra --role=broker", read(one, "cmdline"))
    expect("it has no environment", read(one, "environ").strip("\0") == "", read(one, "environ"))
    expect("it holds what one of a single child does", descriptors(one) == descriptors(alone), (descriptors(one), descriptors(alone)))
    expect("of which nothing is a sibling's", sockets(one) and not sockets(one) & sockets(other))
    has_users = namespace(alone, "user") != namespace(os.getpid(), "user") # in a chroot nobody gets one: then each has namespaces of its own
    for name in ["user"] * has_users + ["net", "ipc", "mnt", "uts", "cgroup"]:
        expect("namespace %s: not the host's" % name, namespace(os.getpid(), name) not in [namespace(p, name) for p in [one, other, alone]])
        expect("namespace %s: shared by children of one command alone" % name, namespace(other, name) != namespace(alone, name) and (namespace(one, name) == namespace(other, name)) == has_users)
    expect("an empty root", os.listdir("/proc/%d/root" % one) == [])
    grandchild = ask("fork", children[7]["name"], "--name", "grand", "-n", "2")
    expect("a child has children", len(grandchild) == 2)
    os.kill(children[3]["process"], signal.SIGKILL)
    until("its broker ends with one that is killed", lambda: not is_there(children[3]["pid"]))
    expect("and nobody else", all(is_there(c["pid"]) and is_there(c["process"]) for c in children[:3] + children[4:]))
    # a name that is taken: nothing is forked
    left = processes()
    taken = run("fork", "parent", "--name", "child", "-n", str(count))
    expect("a name that is taken", taken.returncode == 64 and "of that name runs" in taken.stderr, taken.stderr)
    until("nothing was forked", lambda: processes() == left)
    end_all([c["name"] for c in children] + ["alone", "grand-1", "grand-2"])
    until("all have ended", lambda: processes() == before)
    # what the parent does
    pair = ask("fork", "parent", "--name", "pair", "-n", "2", "--suspend-parent")
    expect("it stands still", len(pair) == 2 and stands("parent"))
    end_all(["pair-1", "pair-2"])
    # who makes them is killed
    for pause in [0, 0.02, 0.05, 0.1, 0.2]:
        maker = subprocess.Popen([umbra, "fork", "parent", "--name", "lost", "-n", str(count)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        maker.kill()
        maker.wait()
        until("those that have a broker are left, and nobody else", lambda: len(processes() - before) == 3 * len(lost()))
        end_all(lost())
        until("all have ended", lambda: processes() == before)
        expect("the parent lives on", run("info", "parent").returncode == 0)
    pair = ask("fork", "parent", "--name", "pair", "-n", "2", "--end-parent")
    until("it ends", lambda: machine.poll() is not None)
    expect("its children go on", len(pair) == 2 and all(run("info", c["name"]).returncode == 0 for c in pair))
    end_all(["pair-1", "pair-2"])
    # each with its networks
    machine = start("--net", "user,host-loopback", "--net", "switch=many")
    before = processes()
    trio = ask("fork", "parent", "--name", "trio", "-n", "3")
    until("each of three has a net process for each card", lambda: all(len([p for p in processes() if observed.role_of(p) == role]) == 4 for role in ["net", "line"]))
    expect("and lives on", all(is_there(c["pid"]) and is_there(c["process"]) for c in trio))
    end_all(["trio-1", "trio-2", "trio-3"])
    machine.kill()
    machine.wait()
    # each brought to the balancer by a process that stays, and holds nothing of those that are made with it, however many are open
    machine = start("--memory", "start=128M,min=64M,max=128M")
    before = processes()
    consoles = os.path.join(where, "console") # a descriptor more for each
    some = ask("fork", "parent", "--name", "some", "-n", "110", "--console", consoles)
    expect("all that are balanced", len(some) == 110, len(some))
    stay = lambda: [p for p in processes() - before if not observed.role_of(p)]
    until("who brings each to the balancer stays", lambda: len(stay()) == len(some))
    expect("and holds no memory of a machine's, no console, and a socket alone",
           not [d for p in stay() for d in descriptors(p) if "memfd" in d or "/console-" in d] and all(len(sockets(p)) <= 1 for p in stay()), descriptors(stay()[0]))
    until("who stood for them is gone", lambda: len([p for p in processes() - before if observed.role_of(p) == "machine"]) == 2 * len(some))
    for child in some[1:6]:
        os.kill(child["pid"], signal.SIGKILL)
    until("machines end with their brokers", lambda: not [c for c in some[1:6] if is_there(c["process"])])
    end_all([c["name"] for c in some])
    machine.kill()
    machine.wait()
sys.exit(observed.failed != 0)
