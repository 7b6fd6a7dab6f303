#!/usr/bin/env python3
"""away.py UMBRA GUEST SPIN: a guest with calls, timers and requests under way goes to another place by umbra fork --to and umbra listen, over loopback, with
memory that is checked at both ends. Then with another key; by connections that are cut, and go on where they were; by one that never comes back;
to one that lies, and from one that lies. Who was sent goes on whatever happens, and nothing is left of what did not arrive."""
import atexit, glob, os, re, select, socket, struct, subprocess, sys, tempfile, threading, time

umbra, guest, spin, failed = *(os.path.abspath(a) for a in sys.argv[1:4]), 0
wire = os.path.join(os.path.dirname(umbra), "src/wire/umbra-wire")
work = tempfile.TemporaryDirectory()
places = {}
for place in "here", "there":
    path = os.path.join(work.name, place)
    os.mkdir(path, 0o700)
    places[place] = dict(os.environ, XDG_RUNTIME_DIR=path, TMPDIR=path)
parcels = os.path.join(work.name, "parcels")
os.mkdir(parcels, 0o700)
key, other_key = (os.path.join(work.name, name) for name in ("key", "other-key"))


def check(what, good, *more):
    global failed
    if not good:
        print("away:", what, *more)
        failed = 1
    return good


def run(place, *words, timeout=100):
    return subprocess.run([umbra, *words], env=places[place], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def end_all():
    for place in places:
        for name in [l.split()[0] for l in run(place, "ps").stdout.split("\n")[1:] if l]:
            run(place, "kill", name)


def until(what, good):
    end = time.time() + 100
    while time.time() < end:
        if good():
            return True
        time.sleep(0.02)
    return check("waited in vain: " + what, False)


def said(name):
    try:
        with open(name, errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def begin(name, kernel=guest):
    log = os.path.join(work.name, name + ".log")
    p = subprocess.Popen([umbra, "run", "--name", name, "--kernel", kernel, "--cpus", "2", "--memory", "256M", "--debug-exit", "0xf4"], env=places["here"],
                         stdin=subprocess.DEVNULL, stdout=open(log, "wb"), stderr=subprocess.STDOUT)
    until(name + " is ready", lambda: "READY" in said(log))
    return p, log


def is_good(text):
    return re.search(r"^1\.\.[1-9]", text, re.M) and not re.search(r"^not ok", text, re.M)


def arrived_well(name):
    text = lambda: said(os.path.join(work.name, "there", "umbra", ".console-" + name))
    return until(name + " ends there", lambda: re.search(r"^1\.\.[1-9]", text(), re.M)) and check(name + " is good", is_good(text()), text()[-300:])


def went_well(name, p, log):
    check(name + " ends here", p.wait(100) == 1, p.returncode)
    check(name + " goes on here", is_good(said(log)), said(log)[-300:])


def nothing_left():
    check("nothing is left of it here", not glob.glob(os.path.join(work.name, "here", "umbra-away*")), os.listdir(os.path.join(work.name, "here")))
    until("nothing is left of it there", lambda: not os.listdir(parcels))


class Cutter(threading.Thread):
    """Passes on what comes to a port of its own, and cuts each connection of `cuts` after so many bytes of the sender's."""

    def __init__(self, cuts):
        super().__init__(daemon=True)
        self.cuts, self.passed, self.connections = list(cuts), 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.place = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            a = self.listener.accept()[0]
            b = socket.create_connection(("127.0.0.1", port))
            left = self.cuts.pop(0) if self.cuts else 1 << 60
            self.connections += 1
            while left > 0:
                ready = select.select([a, b], [], [])[0]
                data = ready[0].recv(min(65536, left))
                if not data:
                    break
                (b if ready[0] is a else a).sendall(data)
                if ready[0] is a:
                    left -= len(data)
                    self.passed += len(data)
            a.close()
            b.close()


# ---- both ends ----

for path in key, other_key:
    made = run("here", "listen", "--make-key", path)
    check("a key", made.returncode == 0 and os.stat(path).st_mode & 0o777 == 0o600, made.stderr)
check("no key over another", run("here", "listen", "--make-key", key).returncode == 64)
listener = subprocess.Popen([umbra, "listen", "0", "--key", key, "--folder", parcels], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
atexit.register(end_all)
atexit.register(listener.kill)
place = listener.stdout.readline().split()[-1]
port = int(place.split(":")[1])
check("the loopback, unless told", place.startswith("127.0.0.1:"), place)

one, log = begin("one")
straight = Cutter([])
sent = run("here", "fork", "one", "--to", straight.place, "--key", key, "--name", "two", "--limit", "100M")
check("it is sent", sent.returncode == 0, sent.returncode, sent.stderr)
went_well("one", one, log)
arrived_well("two")
spinning, _ = begin("spins", spin)
check("it is sent", run("here", "fork", "spins", "--to", place, "--key", key, "--name", "three").returncode == 0)
taken = run("here", "fork", "spins", "--to", place, "--key", key, "--name", "three")
check("a name that is taken", taken.returncode == 65 and "runs there" in taken.stderr, taken.returncode, taken.stderr)
wrong = run("here", "fork", "spins", "--to", place, "--key", other_key, "--name", "none", "--end-parent")
check("another key", wrong.returncode == 65 and "another key" in wrong.stderr, wrong.returncode, wrong.stderr)
os.chmod(other_key, 0o644)
check("a key that others read", run("here", "fork", "spins", "--to", place, "--key", other_key).returncode == 64)
nothing_left()
for words in (["-n", "2"], ["--suspend-parent"], ["--net", "user"], ["--json"], ["--limit", "0"], ["--wait", "x"]):
    check("refused: %s" % words, run("here", "fork", "spins", "--to", place, "--key", key, *words).returncode == 64)

# ---- a connection that is cut ----

four, log = begin("four")
cutter = Cutter([200, 2000, straight.passed // 3, straight.passed // 3])
sent = run("here", "fork", "four", "--to", cutter.place, "--key", key, "--name", "five")
check("it arrives by %d connections" % cutter.connections, sent.returncode == 0 and cutter.connections == 5, sent.returncode, sent.stderr)
check("and nearly nothing twice", cutter.passed < straight.passed * 3 // 2 + (1 << 20), cutter.passed, straight.passed)
lost = run("here", "fork", "spins", "--to", Cutter([20000] + [1] * 1000).place, "--key", key, "--name", "six", "--wait", "1", "--end-parent")
check("one that never comes back", lost.returncode == 65 and "was lost" in lost.stderr, lost.returncode, lost.stderr)
check("who listens", listener.poll() is None)
went_well("four", four, log)
arrived_well("five")
for left in glob.glob(os.path.join(parcels, "*")):
    check("what arrived in part is nobody else's, and waits an hour", os.stat(left).st_mode & 0o777 == 0o600)
    os.utime(left, (1, 1))

# ---- one that lies ----


def line(mode, connection):
    here, there = socket.socketpair()
    read, write = os.pipe()
    os.write(write, bytes.fromhex(said(key).strip()))
    os.close(write)
    p = subprocess.Popen(["bash", "-c", 'exec "$0" %s 3<&%d 4<&%d 5<&%d' % (mode, connection.fileno(), there.fileno(), read), wire],
                         pass_fds=[connection.fileno(), there.fileno(), read])
    connection.close()
    there.close()
    os.close(read)
    check("the line to it is there", here.recv(1) == b"Y")
    return p, here


def crc32c(data, c=0):
    c ^= 0xffffffff
    for byte in data:
        c ^= byte
        for _ in range(8):
            c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
    return c ^ 0xffffffff


def head(bytes, name=b"lie", version=1, magic=b"UMBRAWIR", ident=b"i" * 16):
    return magic + struct.pack("<II16sQ72s", version, 0, ident, bytes, name)


def piece(at, data, crc=None, bytes=None):
    return struct.pack("<QII", at, len(data) if bytes is None else bytes, crc32c(data) if crc is None else crc) + data


def end(at, data):
    return struct.pack("<QII", at, 0, crc32c(data))


def tell(what, *said_bytes):
    """Says that to who listens; the last answer, or None."""
    p, here = line("connect", socket.create_connection(("127.0.0.1", port)))
    last = None
    try:
        for part in said_bytes:
            here.sendall(part)
        here.shutdown(socket.SHUT_WR)
        data = b""
        while True:
            more = here.recv(65536)
            if not more:
                break
            data += more
        if len(data) >= 256:
            last = struct.unpack_from("<iIQ240s", data, len(data) - 256)
    except OSError:
        pass
    here.close()
    p.wait(60)
    check(what + ": is refused", last is None or last[0] < 0, last)
    check(what + ": who listens goes on", listener.poll() is None)


data = b"x" * 1000
lies = [("no head", b"x" * 112), ("another version", head(1000, version=2)), ("no bytes", head(0)), ("too many", head(1 << 62)), ("all bits", head((1 << 64) - 1))]
lies += [("a name %r" % name, head(1000, name)) for name in (b"", b"../x", b"a/b", b".x", b"a b", b"x" * 72, b"\x1b[2J", b"-x")]
lies += [("a piece elsewhere", head(1000), piece(1, data)), ("behind its end", head(1000), piece(0, data + b"x")), ("a long piece", head(1 << 20), piece(0, data, bytes=1 << 19)),
         ("another checksum", head(1000), piece(0, data, crc=1)), ("an early end", head(1000), end(0, b"")), ("twice", head(2000), piece(0, data), piece(0, data)),
         ("more behind its end", head(1000), piece(0, data), piece(1000, b"x")),
         ("another checksum of all", head(1000), piece(0, data), end(1000, b"y")), ("no saved machine", head(1000), piece(0, data), end(1000, data))]
for what, *parts in lies:
    tell(what, *parts)
p, here = line("connect", socket.create_connection(("127.0.0.1", port)))
here.sendall(head(1000)[:50]) # and then nothing: it holds up nobody
for junk in b"", b"GET / HTTP/1.0\r\n\r\n", os.urandom(4000):
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(junk)
here.close()
p.wait(60)

# ---- one that lies, and listens ----


def answer(error=0, have=0, text=b"", zero=0):
    return struct.pack("<iIQ240s", error, zero, have, text)


for what, reply, why in (("rubbish", os.urandom(255) + b"\xff", "lost"), ("more than all is there", answer(have=1 << 40), "lost"), ("an error above 0", answer(error=5), "lost"),
                         ("no error", answer(error=-5000), "lost"), ("an end without an answer", b"", "lost"), ("a text for terminals", answer(error=-5, text=b"\x1b[2Jboo"), ".[2Jboo"),
                         ("a text without an end", answer(error=-5, text=b"x" * 240), "lost")):
    server = socket.create_server(("127.0.0.1", 0))
    sender = subprocess.Popen([umbra, "fork", "spins", "--to", "127.0.0.1:%d" % server.getsockname()[1], "--key", key, "--name", "eight", "--wait", "0"], env=places["here"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    p, here = line("accept", server.accept()[0])
    here.recv(112, socket.MSG_WAITALL)
    here.sendall(reply)
    here.shutdown(socket.SHUT_WR)
    err = sender.communicate(timeout=100)[1]
    check(what, sender.returncode == 65 and why in err and err.count("\n") == 1, sender.returncode, err)
    here.close()
    p.wait(60)
    server.close()
nothing_left()

# ---- it goes, and ends here ----

seven, log = begin("seven")
moved = run("here", "fork", "seven", "--to", place, "--key", key, "--end-parent")
check("it goes", moved.returncode == 0, moved.returncode, moved.stderr)
check("and is here no more", seven.wait(100) == 0 and not re.search(r"^1\.\.", said(log), re.M), seven.returncode)
arrived_well("seven")
nothing_left()
check("who was refused goes on", spinning.poll() is None)
sys.exit(failed)
