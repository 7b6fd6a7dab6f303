#!/usr/bin/env python3
"""agent_lies.py UMBRA: an agent in a guest that lies to who asks it: umbra exec, cp in and out, share and fork --renew's question. Each lie is a
function here. Whoever is told it ends soon, with 65 and one line that says so; nothing stays of a file that did not come whole, an older one stays as
it was; what a terminal is told passes the console's filter. No machine: a socket where its own would be."""
import os, pty, select, socket, struct, subprocess, sys, tempfile, threading, time

umbra, failed = os.path.abspath(sys.argv[1]), 0
folder = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=folder.name)
place = os.path.join(folder.name, "umbra", ".sockets-liar")
os.makedirs(place, 0o700)
os.chmod(os.path.dirname(place), 0o700)
EXEC, PUT, GET, SHARE, FUSE, OUTPUT, ERRORS, EXITED, FILE, DONE, FAILED, DATA, DATA_END = 1, 6, 7, 11, 12, 64, 65, 66, 67, 68, 69, 8, 9
FRAME_BYTES = 16 << 10


def check(what, good, *more):
    global failed
    if not good:
        print("agent-lies:", what, *more)
        failed = 1


def frame(kind, data=b""):
    return struct.pack("<II", kind, len(data)) + data


def file_of(size, mode=0o644):
    return frame(FILE, struct.pack("<IIQ", mode, 0, size))


# Of everybody: what comes behind the greeting, whatever was asked.
ANYWHERE = {
    "a frame longer than any": struct.pack("<II", OUTPUT, FRAME_BYTES + 1),
    "the longest number": struct.pack("<II", OUTPUT, 0xffffffff),
    "a kind that is none": frame(0),
    "another": frame(0xffffffff, b"x"),
    "half a head": b"\1\0\0",
    "half a frame": struct.pack("<II", OUTPUT, 100) + b"half",
    "a failure that is none": frame(FAILED, b""),
    "a failure without a number": frame(FAILED, struct.pack("<I", 0)),
    "a number that is too large": frame(FAILED, struct.pack("<I", 0x80000000)),
    "a failure of eight bytes": frame(FAILED, bytes(8)),
    "a question of its own": frame(EXEC, bytes(12)),
    "nothing": b"",
}
OF_EXEC = {
    "an end without a code": frame(EXITED),
    "an end of three bytes": frame(EXITED, bytes(3)),
    "an end of nine": frame(EXITED, bytes(9)),
    "a file": file_of(4) + frame(DATA, b"data"),
    "an answer to another": frame(DONE),
}
OF_GET = {
    "more than was said": file_of(4) + frame(DATA, b"longer"),
    "less than was said": file_of(4) + frame(DATA, b"les") + frame(DATA_END),
    "more behind what was said": file_of(4) + frame(DATA, b"four") + frame(DATA, b"!") + frame(DATA_END),
    "no end": file_of(4) + frame(DATA, b"four"),
    "a head of another length": frame(FILE, bytes(15)),
    "no head": frame(DATA, b"four") + frame(DATA_END),
    "a head twice": file_of(4) + file_of(4),
    "done, in between": file_of(4) + frame(DATA, b"fo") + frame(DONE),
    "all of a disk": file_of((1 << 64) - 1) + frame(DATA, b"four") + frame(DATA_END),
}
OF_PUT = {"a file": file_of(0), "an end": frame(DATA_END), "output": frame(OUTPUT, b"out")}
OF_SHARE = {"a question before it may": frame(DONE) + frame(FUSE, bytes(40)), "a file": file_of(1), "more behind done": frame(DONE) + b"\0"}
GREETINGS = {"no greeting": b"", "another": b"NO\n", "one without an end": b"O" * 100, "another agent's": b"HTTP/1.1 200 OK\r\n\r\n"}


class Liar(threading.Thread):
    """Answers each connection with the lie that is set, ends its own half, and reads what comes until the other ends."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.path.join(place, "s"))
        self.listener.listen(8)
        self.greeting, self.lie = b"", b""
        self.start()

    def run(self):
        while True:
            peer = self.listener.accept()[0]
            try:
                asked = b""
                while not asked.endswith(b"\n"):
                    asked += peer.recv(1)
                peer.sendall(self.greeting)
                if self.greeting == b"OK 1\n":
                    peer.recv(8)
                    peer.sendall(self.lie)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass
            except OSError:
                pass
            peer.close()


def told(what, lie, *words, greeting=b"OK 1\n"):
    liar.greeting, liar.lie = greeting, lie
    ran = subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
    lines = ran.stderr.decode().splitlines()
    check("%s: %s" % (words[0], what), ran.returncode == 65 and len(lines) == 1 and lines[0].startswith("umbra: "), ran.returncode, lines)
    return ran


liar = Liar()
here = os.path.join(folder.name, "here")
os.mkdir(here)
target, source = os.path.join(here, "target"), os.path.join(folder.name, "source")
for path, text in (target, "older"), (source, "source"):
    with open(path, "w") as f:
        f.write(text)
for what, lie in {**ANYWHERE, **OF_EXEC}.items():
    said = told(what, lie, "exec", "-T", "liar", "--", "true").stdout
    check("exec says nothing that did not come: " + what, said == b"", said)
for what, lie in {**ANYWHERE, **OF_GET}.items():
    told(what, lie, "cp", "liar:/etc/passwd", target)
    check("an older file stays: " + what, os.listdir(here) == ["target"] and open(target).read() == "older", os.listdir(here))
for what, lie in {**ANYWHERE, **OF_PUT}.items():
    told(what, lie, "cp", source, "liar:/tmp/x")
for what, lie in {**ANYWHERE, **OF_SHARE}.items():
    told(what, lie, "share", "liar", here, "/mnt")
for what, greeting in GREETINGS.items():
    for words in ("exec", "-T", "liar", "--", "true"), ("cp", "liar:/x", target), ("share", "liar", here):
        told(what, b"", *words, greeting=greeting)
# names that lead elsewhere: what is written is in the folder that was named, or nothing is
for path in "/..", "/.", "/x/", "/":
    told("the name of " + path, file_of(4) + frame(DATA, b"four") + frame(DATA_END), "cp", "liar:" + path, here)
    check("nothing elsewhere", os.listdir(here) == ["target"] and open(target).read() == "older", path, os.listdir(here))
# what is true: permissions alone, no set-user-id
liar.lie, liar.greeting = file_of(4, 0o6777) + frame(DATA, b"four") + frame(DATA_END), b"OK 1\n"
ran = subprocess.run([umbra, "cp", "liar:/x", target], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
check("a file", ran.returncode == 0 and open(target).read() == "four" and os.stat(target).st_mode & 0o7777 == 0o777, ran, oct(os.stat(target).st_mode))

# a terminal: titles, questions that type their answers, clipboard; what is harmless is there
liar.lie = b"".join([
    frame(OUTPUT, b"\x1b]0;title\x07\x1b]52;c;aGk=\x07\x1b[c\x1b[6n\x1b[21t\x1bPq#0\x1b\\\x9b6nred \x1b[31mred\x1b[0m"),
    frame(ERRORS, b"\x1b]2;t\x07err"), frame(EXITED, struct.pack("<I", 7))])
pid, terminal = pty.fork()
if not pid:
    os.execve(umbra, [umbra, "exec", "liar", "--", "sh"], env)
shown, end = b"", time.time() + 100
while time.time() < end and select.select([terminal], [], [], 5)[0]:
    try:
        got = os.read(terminal, 65536)
    except OSError:
        break
    if not got:
        break
    shown += got
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
check("its code", status == 7, status, shown)
check("its words", b"red \x1b[31mred" in shown and b"err" in shown, shown)
for bad in b"\x1b]", b"\x1b[c", b"\x1b[6n", b"\x1b[21t", b"\x1bP", b"\x9b":
    check("filtered: %r" % bad, bad not in shown, shown)
sys.exit(failed)
