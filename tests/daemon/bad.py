#!/usr/bin/env python3
"""What the daemon is asked by who means it ill, or has bad luck: bodies, slow clients, half of sockets, a thousand connections, other sites,
machines that die, a store that is locked, full or damaged, a daemon that is killed. After all of it it answers, with nothing left over.
usage: bad.py UMBRA UMBRAD GUEST"""
import json, os, socket, sqlite3, subprocess, sys

from umbrad import Connection, Daemon

umbra, program, guest = sys.argv[1:4]
failed = 0
daemon = Daemon(umbra, program).start()


def check(what, good, *more):
    global failed
    if not good:
        print("bad:", what, *more)
        failed = 1


def raw(data, shut=False):
    """All that is answered to these bytes."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(daemon.socket)
    said = b""
    try:
        s.sendall(data)
        if shut:
            s.shutdown(socket.SHUT_WR)
        while True:
            got = s.recv(65536)
            said += got
            if not got or b"}" in said:
                return said
    except OSError:
        return said
    finally:
        s.close()


def descriptors():
    return len(os.listdir("/proc/%d/fd" % daemon.process.pid))


def alive():
    return daemon.ask("GET", "/v1/version")[0] == 200


before = descriptors()
# bodies
check("a large body", daemon.ask("POST", "/v1/machines", b"x" * (2 << 20))[0] == 413)
check("a body that says it is huge", b" 413 " in raw(b"POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n"
                                                     + b"x" * 1048577)[:20])
check("a deep body", daemon.ask("POST", "/v1/machines", b"[" * 100000)[0] == 400)
check("a long path", daemon.ask("GET", "/" + "x" * 5000)[0] in (404, 414))
zeros = socket.socket(socket.AF_UNIX)  # are no line, for the end of which the daemon waits as for anybody's
zeros.connect(daemon.socket)
zeros.sendall(b"\0" * 100)
zeros.close()
check("zeros", alive())
for data in (b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/machines HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
             b"GET /v1/machines/%2e%2e%2f HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /v1/machines/a%00b HTTP/1.1\r\nHost: x\r\n\r\n"):
    check("rubbish", b" 200 " not in raw(data, True)[:20], data[:40])
# other sites
for headers in ({"Origin": "https://example.org"}, {"Sec_Fetch_Site": "cross-site"}, {"Origin": "null"}):
    answer = daemon.ask("POST", "/v1/machines", {"name": "x", "kernel": "/x"}, **headers)
    check("another site", answer[0] == 403 and answer[1]["error"] == "policy", headers, answer[:2])
# clients that begin and do not go on, shut one half, or leave before the answer
idle = []
for n in range(1000):
    s = socket.socket(socket.AF_UNIX)
    s.connect(daemon.socket)
    s.sendall(b"GET /v1/machines HTT" if n % 2 else b"")
    idle.append(s)
check("a thousand others", alive())
for s in idle:
    s.close()
check("one half", b" 200 " in raw(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n", True)[:20])
for path in ("/v1/disks/info?file=/nowhere", "/v1/events?after=0", "/v1/memory"):
    for n in range(20):
        connection = Connection(daemon.socket)
        connection.request("GET", path)
        connection.close()
daemon.until(alive)

# machines that die in the middle of what is asked of them, and one that does not answer
def begin(name):
    assert daemon.run("run", "--detach", "--no-bus", "--name", name, "--kernel", os.path.abspath(guest), "--memory", "64M").returncode == 0
    return daemon.until(lambda: daemon.ask("GET", "/v1/machines/" + name)[1].get("pid"))


for method, verb, body in (("POST", "pause", None), ("POST", "resume", None), ("POST", "save", {"file": daemon.path("saved")}), ("POST", "fork", {"name": "child"}),
                           ("POST", "stop", None), ("POST", "kill", None), ("POST", "exec", {"command": ["true"]}), ("PUT", "memory", {"bytes": 0}), ("GET", "memory", None),
                           ("GET", "registers", None), ("GET", "screenshot", None), ("GET", "trace?seconds=1", None)):
    pid = begin("dies")
    connection = Connection(daemon.socket)
    connection.request(method, "/v1/machines/dies/" + verb, json.dumps(body) if body else None, {"Content-Type": "application/json"} if body else {})
    os.kill(pid, 9)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    check(verb + " of one that dies", answer.status in (200, 202, 404, 409, 504) and ("error" in said) == (answer.status >= 400), answer.status, said)
    if answer.status == 202:
        done = daemon.until(lambda: (lambda o: o if o["state"] != "running" else None)(daemon.ask("GET", answer.headers["Location"])[1]))
        check(verb, done["state"] in ("done", "failed"), done)
    connection.close()
    daemon.run("kill", "child")
    daemon.until(lambda: daemon.ask("GET", "/v1/machines")[1] == [])

# an operation that is cancelled: the command's stand-in takes a minute
daemon.stop()
with open(daemon.path("umbra"), "w") as f:
    f.write("#!/bin/sh\nfor word; do case $word in /long) printf '{\"long\":\"%%0100000d\"}' 0; exit;; /60) exec sleep 60;; esac; done\nexec %s \"$@\"\n" % daemon.umbra)
os.chmod(daemon.path("umbra"), 0o700)
real, daemon.umbra = daemon.umbra, daemon.path("umbra")
daemon.start()
operation = daemon.ask("POST", "/v1/disks/convert", {"source": "/60", "target": "/y"})
check("cancelled", daemon.ask("DELETE", operation[2]["Location"])[0] == 202 and daemon.done(operation)["state"] == "cancelled")
# no more of them than there may be, and what one of them says is not kept whatever its size, nor told in events
places = [daemon.ask("POST", "/v1/disks/convert", {"source": "/60", "target": "/y"}) for n in range(129)]
check("too many operations", [place[0] for place in places] == [202] * 128 + [429], [place[0] for place in places])
for place in places[:128]:
    daemon.ask("DELETE", place[2]["Location"])
check("all of them end", all(daemon.done(place)["state"] == "cancelled" for place in places[:128]))
cut = daemon.done(daemon.ask("POST", "/v1/disks/convert", {"source": "/long", "target": "/y"}))
check("a long result", cut["state"] == "done" and cut.get("cut") is True and "result" not in cut, str(cut)[:200])
# one that runs when the daemon ends has failed
operation = daemon.ask("POST", "/v1/disks/convert", {"source": "/60", "target": "/y"})
daemon.stop(9)
daemon.umbra = real
daemon.start()
check("one of a daemon that was killed", daemon.done(operation)["error"]["error"] == "fault")
before = descriptors()

# a store that somebody else holds: what is to be kept is refused, what is read is not
store = daemon.path("state/umbra/umbrad.sqlite")
lock = sqlite3.connect(store, isolation_level=None)
lock.execute("BEGIN EXCLUSIVE")
answer = daemon.ask("POST", "/v1/machines", {"name": "kept", "kernel": "/x"})
check("a locked store", answer[0] == 503 and answer[1]["error"] == "unusable", answer[:2])
check("reads", daemon.ask("GET", "/v1/machines")[0] == 200)
begin("meanwhile")
answer = daemon.ask("POST", "/v1/machines/meanwhile/kill")
check("one whose end cannot be kept is not ended", answer[0] == 503 and daemon.ask("GET", "/v1/machines/meanwhile")[1]["state"] == "running", answer[:2])
lock.execute("ROLLBACK")
lock.close()
daemon.until(lambda: daemon.ask("POST", "/v1/machines", {"name": "kept", "kernel": "/x"})[0] == 201)
daemon.until(lambda: b'"meanwhile"' in raw(b"GET /v1/events?after=0&subject=meanwhile HTTP/1.1\r\nHost: x\r\n\r\n"))

# killed, it comes back to all of it
daemon.stop(9)
daemon.start()
check("after it was killed", sorted(row["name"] for row in daemon.ask("GET", "/v1/machines")[1]) == ["kept", "meanwhile"])
two = subprocess.run([program, "--umbra", umbra], env=daemon.env, capture_output=True, text=True)
check("a second daemon", two.returncode == 65 and "listens there already" in two.stderr, two)
daemon.run("kill", "meanwhile")
daemon.until(lambda: [row["name"] for row in daemon.ask("GET", "/v1/machines")[1]] == ["kept"])
for s in range(3):
    alive()
daemon.until(lambda: descriptors() <= before + 2)
check("something was said:", daemon.log() == "", daemon.log())
daemon.stop()

# a store that everybody can read is its owner's alone when it has been opened
for name in ("", "-wal", "-shm"):
    if os.path.exists(store + name):
        os.chmod(store + name, 0o644)
daemon.start()
check("a store of everybody's", os.stat(store).st_mode & 0o777 == 0o600 and os.stat(store + "-wal").st_mode & 0o777 == 0o600)
daemon.stop()

# a store where there is no room: what is to be kept is refused, what is read is not, and it goes on when there is room again
full = Daemon(umbra, program)
os.mkdir(full.path("small"))
with open(full.path("begin"), "w") as f:
    f.write('#!/bin/sh\nset -e\nmount -t tmpfs -o size=256k none "%s"\nexec "%s" "$@"\n' % (full.path("small"), full.program))
os.chmod(full.path("begin"), 0o755)
namespace = ["unshare", "--mount"] + ["--map-root-user"] * (os.getuid() != 0)
with open(full.path("unshare"), "w") as f:
    f.write('#!/bin/sh\nexec %s "%s" "$@"\n' % (" ".join(namespace), full.path("begin")))
os.chmod(full.path("unshare"), 0o755)
full.program = full.path("unshare")
full.start("--store", full.path("small/store"))
kept, answer = 0, (201,)
while answer[0] == 201 and kept < 1000:
    answer = full.ask("POST", "/v1/machines", {"name": "m%d" % kept, "kernel": "/x" + "x" * 2000})
    kept += answer[0] == 201
check("a full store", 0 < kept < 1000 and answer[0] == 507 and answer[1]["error"] == "unusable", kept, answer[:2])
check("what was kept is read", len(full.ask("GET", "/v1/machines")[1]) == kept)
enter = ["nsenter", "--target", str(full.process.pid), "--mount", "--root"] + ["--user", "--preserve-credentials"] * (os.getuid() != 0)
subprocess.run(enter + ["mount", "-o", "remount,size=8m", full.path("small")], check=True)
full.until(lambda: full.ask("POST", "/v1/machines", {"name": "later", "kernel": "/x"})[0] == 201)
full.until(lambda: sum(row["name"] == "later" for row in full.ask("GET", "/v1/machines")[1]) == 1)
check("its end", full.stop() == 0)
full.close()

# a store that is none, of another version, damaged in its middle
def refused(text):
    said = subprocess.run([program, "--umbra", umbra], env=daemon.env, capture_output=True, text=True, timeout=60)
    check("a bad store", said.returncode == 65 and text in said.stderr and said.stderr.count("\n") == 1, said)


with open(store, "r+b") as f:
    f.write(b"no store at all " * 10)
refused("damaged, or no store")
os.unlink(store)
later = sqlite3.connect(store)
later.execute("PRAGMA user_version = 2")
later.commit()
later.close()
refused("damaged, or no store")
os.unlink(store)
os.mkdir(store)
refused("name a file that can be written")
daemon.close()
sys.exit(failed)
