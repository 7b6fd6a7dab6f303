#!/usr/bin/env python3
"""The daemon's WebSockets: a console, programs, frames that are none; clients that do not read, and that go away. The program behind a stream
is the command, or one that stands in for it. usage: streams.py UMBRA UMBRAD GUEST"""
import json, os, stat, sys

from umbrad import Daemon, Socket

umbra, program, guest = sys.argv[1:4]
failed = 0


def check(what, good, *more):
    global failed
    if not good:
        print("streams:", what, *more)
        failed = 1


def until_end(stream):
    """What came on each channel, up to the end."""
    said = {1: b"", 2: b"", 3: b""}
    while True:
        code, data = stream.receive()
        if code == 8:
            return said
        said[data[0]] += data[1:]


def ends(stream):
    try:
        while True:
            if stream.receive()[0] == 8:
                return True
    except (EOFError, ConnectionResetError):
        return True


# a stand-in for the command: `exec` runs what it is told here
stand_in = """#!/bin/sh
if [ "$1" = exec ]; then
    while [ "$1" != -- ]; do shift; done
    shift 2
    exec "$@"
fi
exec %s "$@"
""" % os.path.abspath(umbra)
daemon = Daemon(umbra, program)
daemon.umbra = daemon.path("umbra")
with open(daemon.umbra, "w") as f:
    f.write(stand_in)
os.chmod(daemon.umbra, stat.S_IRWXU)
daemon.start()
assert daemon.run("run", "--detach", "--no-bus", "--name", "one", "--kernel", os.path.abspath(guest), "--memory", "64M").returncode == 0
daemon.until(lambda: daemon.ask("GET", "/v1/machines/one")[0] == 200)


def attach(*words, **more):
    query = ["command=" + word for word in words] + ["%s=%s" % pair for pair in more.items()]
    return Socket(daemon, "/v1/machines/one/exec?" + "&".join(query))


stream = attach("cat")
check("the upgrade", stream.status == 101, stream.head)
stream.send(b"\0some ")
stream.send(b"\0input")
stream.send(b"\0")
said = until_end(stream)
check("cat", said[1] == b"some input" and json.loads(said[3]) == {"code": 0}, said)
said = until_end(attach("sh", "-c", "echo%20out;echo%20bad%20%3E%262;exit%207"))
check("its outputs and its end", said == {1: b"out\n", 2: b"bad\n", 3: b'{"code":7}'}, said)

# a terminal, its size, and a change of it
stream = attach("sh", "-c", "stty%20size;read%20x;stty%20size;tty%20-s", terminal="true", rows=33, columns=77)
seen = b""
while b"\n" not in seen:
    seen += stream.receive()[1][1:]
stream.send(b'\4{"rows":44,"columns":99}')
stream.send(b"\0\n")
said = until_end(stream)
check("a terminal", b"33 77" in seen and b"44 99" in said[1] and json.loads(said[3]) == {"code": 0}, seen, said)

# one who does not read holds nothing but his own; one who goes away ends the program
stream = attach("sh", "-c", "echo%20$$;exec%20yes")
pid = int(stream.receive()[1][1:].split()[0])
check("others are answered", daemon.ask("GET", "/v1/version")[0] == 200)
size = int([line for line in open("/proc/%d/status" % daemon.process.pid) if line.startswith("VmRSS")][0].split()[1])
check("what it holds for him", size < 60000 or "sanitized" in program, size)
stream.close()
daemon.until(lambda: not os.path.exists("/proc/%d" % pid))
# much, both ways
stream = attach("sh", "-c", "head%20-c%203000000%20/dev/zero|tr%20%27\\000%27%20x")
check("much", len(until_end(stream)[1]) == 3000000)

# what is too long is cut once: what came before is all there
numbers = "".join("%d\n" % n for n in range(1, 1500001))
cut = daemon.ask("POST", "/v1/machines/one/exec", {"command": ["sh", "-c", "seq 1 1500000"]})[1]
check("a long output", cut.get("cut") is True and len(cut["output"]) == 8 << 20 and numbers.startswith(cut["output"]), len(cut.get("output", "")))

# a text that is no UTF-8, or has a zero byte, is not left out: it would be another program
for words in ("command=rm&command=-r&command=%FFdir&command=x", "command=rm&command=a%00b", "command=cat&%FF=1", "command=cat&terminal"):
    check(words, Socket(daemon, "/v1/machines/one/exec?" + words).status == 400)
check("a path with a zero byte", Socket(daemon, "/v1/machines/one%00x/exec?command=cat").status != 101)


# clients that are gone in whatever their stream waits for, each more often than there are streams
def gone(what, words, data=b""):
    for n in range(140):
        path = "/v1/machines/one/exec?" + "&".join("command=" + word for word in words)
        # the last ones may not be noticed yet
        stream = daemon.until(lambda: (lambda s: s if s.status == 101 else s.close())(Socket(daemon, path, data)))
        if not data:
            stream.send(b"\0" + b"x" * 60000)
            stream.send(b"\0" + b"x" * 60000)
        stream.close()
    check(what, daemon.until(lambda: attach("true").status == 101))


gone("a bad frame with the upgrade", ("cat",), b"\x82\x01\0")
gone("a process that does not read", ("sleep", "100"))
for n in range(10):  # its end comes at once, with nobody else's help
    check("the end of a bad frame", ends(Socket(daemon, "/v1/machines/one/exec?command=cat", b"\x82\x01\0")))
# pings of one who does not read their answers are not all held
stream = attach("sleep", "100")
stream.socket.settimeout(2)
try:
    for n in range(4000):
        stream.socket.sendall((b"\x89\xfd\1\2\3\4" + b"x" * 125) * 64)
except OSError:
    pass
check("pings are not held", n < 3999)
stream.close()

# frames
stream = attach("cat")
stream.send(b"hello", code=9)
check("a ping", stream.receive() == (10, b"hello"))
stream.send(b"\x03\xe8", code=8)
check("a close", ends(stream))
for what, data in {"not masked": b"\x82\x01\0", "reserved": b"\xf2\x80\0\0\0\0", "too long": b"\x82\xff\0\0\0\0\x7f\0\0\0\0\0\0\0",
                   "a long ping": b"\x89\xfe\0\x7e\0\0\0\0", "a channel that is none": b"\x82\x81\0\0\0\0\x09"}.items():
    stream = attach("cat")
    stream.socket.sendall(data)
    check(what, ends(stream))
check("none of a machine that is not", Socket(daemon, "/v1/machines/nobody/console").status == 404)
check("not upgraded", daemon.ask("GET", "/v1/machines/one/console")[0] == 426)

# the console of a machine, to its end
stream = Socket(daemon, "/v1/machines/one/console")
seen = b""
while b"READY" not in seen:
    seen += stream.receive()[1][1:]
check("killed", daemon.run("kill", "one").returncode == 0)
check("the console's end", json.loads(until_end(stream)[3])["code"] == 0)
daemon.close()
check("something was said:", daemon.log() == "", daemon.log())
sys.exit(failed)
