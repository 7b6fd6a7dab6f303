#!/usr/bin/env python3
"""Two users at one socket of a host's group: each comes to an umbrad of his own, which is started for him, sees his machines and nobody else's, and cannot
reach the other's by any door. Only root can be two users: who is not goes into a namespace of users, or the test is skipped.
usage: door.py UMBRA UMBRAD DOOR GUEST"""
import json, os, pwd, signal, socket, stat, subprocess, sys, tempfile, threading, time

from umbrad import Connection

SKIPPED, USERS = 77, (1, 2)
alone = ["unshare", "--map-root-user", "--map-auto", "--setuid", "0", "--setgid", "0"]
failed = 0


def become_root():
    if os.environ.get("UMBRA_TEST_ALONE") or subprocess.run(alone + ["true"], capture_output=True).returncode:
        print("door: skipped: neither root nor a namespace with other users: run it as root, or name some in /etc/subuid")
        sys.exit(SKIPPED)
    os.execvpe(alone[0], alone + [sys.executable, *sys.argv], dict(os.environ, UMBRA_TEST_ALONE="1"))


def check(what, good, *more):
    global failed
    if not good:
        print("door:", what, *more)
        failed = 1


def as_user(uid, act):
    """What it returns there."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = {"failed": "it did not return"}
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            said = act()
        except OSError as error:
            said = {"errno": error.errno}
        finally:
            os.write(writing, json.dumps(said).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as f:
        said = json.load(f)
    os.waitpid(child, 0)
    return said


def ask(path, method, place, body=None):
    connection = Connection(path)
    connection.request(method, place, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"} if body is not None else {})
    answer = connection.getresponse()
    return [answer.status, json.loads(answer.read() or b"null")]


def until(condition):
    end = time.time() + 60
    while time.time() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    sys.exit("door: waited for a minute")


if os.getuid():
    become_root()
umbra, umbrad, door, guest = map(os.path.abspath, sys.argv[1:5])
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    for uid in USERS:
        os.mkdir("%s/%d" % (folder, uid), 0o700)
        os.chown("%s/%d" % (folder, uid), uid, uid)
    # as packages have it, but for the place of its store; the build may lie where nobody else may look
    for name, place in (("umbra", umbra), ("umbrad", umbrad), ("guest", guest)):
        subprocess.run(["cp", place, "%s/%s" % (folder, name)], check=True)
        os.chmod("%s/%s" % (folder, name), 0o755)
    with open(folder + "/start", "w") as f:
        f.write('#!/bin/sh\nXDG_STATE_HOME=$XDG_RUNTIME_DIR/state exec %s/umbrad --umbra %s/umbra 2>>"$XDG_RUNTIME_DIR/log"\n' % (folder, folder))
    os.chmod(folder + "/start", 0o755)
    at = folder + "/socket"
    process = subprocess.Popen([door, "--socket", at, "--umbrad", folder + "/start", "--users", folder])
    try:
        until(lambda: os.path.exists(at))
        os.chmod(at, 0o666)  # as its group would have it
        # many at once, of whom one starts his daemon
        said = []
        crowd = [threading.Thread(target=lambda: said.append(as_user(USERS[0], lambda: ask(at, "GET", "/v1/version")))) for _ in range(8)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
        check("eight at once", len(said) == 8 and all(one[0] == 200 for one in said), said)
        for uid in USERS:
            what = {"name": "of-%d" % uid, "kernel": folder + "/guest", "no-bus": True, "memory": "64M", "start": True}
            begun = as_user(uid, lambda: ask(at, "POST", "/v1/machines", what))
            check("a machine", begun[0] == 202, begun)
            rows = until(lambda: [row for row in as_user(uid, lambda: ask(at, "GET", "/v1/machines"))[1] if row["state"] == "running"])
            check("his own alone", [row["name"] for row in rows] == ["of-%d" % uid], rows)
            check("his process", os.stat("/proc/%d" % rows[0]["pid"]).st_uid == uid, rows)
        one, other = USERS
        # every door of the other's: through the daemon, his daemon's socket, his machine's, its files
        check("by the API", as_user(one, lambda: ask(at, "GET", "/v1/machines/of-%d" % other))[0] == 404)
        check("to kill it", as_user(one, lambda: ask(at, "POST", "/v1/machines/of-%d/kill" % other, {}))[0] == 404)
        for name in (".daemon", "of-%d" % other):
            place = "%s/%d/umbra/%s" % (folder, other, name)
            check("its socket " + name, stat.S_ISSOCK(os.stat(place).st_mode))
            refused = as_user(one, lambda: socket.socket(socket.AF_UNIX).connect(place))
            check("the other's socket " + name, refused == {"errno": 13}, refused)
        events = as_user(one, lambda: [row["machine"] for row in ask(at, "GET", "/v1/operations")[1]])
        check("operations", events == ["of-%d" % one], events)
        # the door ends, and comes back: daemons and machines go on
        pids = {uid: as_user(uid, lambda: ask(at, "GET", "/v1/machines"))[1][0]["pid"] for uid in USERS}
        process.terminate()
        check("its end", process.wait(60) == 0)
        process = subprocess.Popen([door, "--socket", at, "--umbrad", folder + "/start", "--users", folder])
        until(lambda: as_user(0, lambda: socket.socket(socket.AF_UNIX).connect(at)) is None)
        os.chmod(at, 0o666)
        for uid in USERS:
            rows = as_user(uid, lambda: ask(at, "GET", "/v1/machines"))[1]
            check("it went on", [row["pid"] for row in rows] == [pids[uid]], rows)
            killed = as_user(uid, lambda: ask(at, "POST", "/v1/machines/of-%d/kill" % uid, {}))
            check("killed by its owner", killed[0] in (200, 202), killed)
        # somebody of a namespace, whom the host knows as nobody
        nobody = as_user(65534, lambda: socket.socket(socket.AF_UNIX).connect(at) or "in")
        heard = as_user(65534, lambda: ask(at, "GET", "/v1/version") and "heard") if nobody == "in" else nobody
        check("nobody", heard != "heard", heard)
        # so many of one user, and no more: others are heard
        ready, begun = os.pipe()
        hold, release = os.pipe()
        crowd = os.fork()
        if not crowd:
            os.close(release)
            os.setresgid(one, one, one)
            os.setresuid(one, one, one)
            held = [socket.socket(socket.AF_UNIX) for _ in range(200)]
            for each in held:
                each.connect(at)
            os.write(begun, b"x")
            os.read(hold, 1)
            os._exit(0)
        os.read(ready, 1)
        check("another, meanwhile", as_user(other, lambda: ask(at, "GET", "/v1/version"))[0] == 200)
        children = len(open("/proc/%d/task/%d/children" % (process.pid, process.pid)).read().split())
        check("connections of one", children <= 130, children)
        os.close(release)
        os.waitpid(crowd, 0)
        until(lambda: not open("/proc/%d/task/%d/children" % (process.pid, process.pid)).read().split())
    finally:
        process.kill()
        for uid in USERS:
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    if os.readlink("/proc/%s/exe" % pid).startswith(folder):
                        os.kill(int(pid), signal.SIGKILL)
                except OSError:
                    pass
sys.exit(failed)
