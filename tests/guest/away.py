#!/usr/bin/env python3
"""away.py UMBRA GUEST SPIN LOOKS: a guest with calls, timers and requests under way goes to another place by umbra fork --to and umbra listen, over loopback, with
memory that is checked at both ends. Memory that comes while it runs, with wires, a sender and a receiver
that are killed. Then with another key; by connections that are cut, and go on where they were; by one that never comes back;
to one that lies, and from one that lies. Who was sent goes on whatever happens, and nothing is left of what did not arrive."""
import atexit, glob, os, re, select, socket, struct, subprocess, sys, tempfile, threading, time

umbra, guest, spin, looks, failed = *(os.path.abspath(a) for a in sys.argv[1:5]), 0
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
                try:
                    data = ready[0].recv(min(65536, left))
                except OSError:
                    break
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
listener = subprocess.Popen([umbra, "listen", "0", "--key", key, "--folder", parcels, "--wait", "5"], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
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

# ---- its memory comes while it runs: who brings it is killed ----


def children(pid, name):
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open("/proc/%s/stat" % entry) as f:
                text = f.read()
        except OSError:
            continue
        if text.split("(")[1].split(")")[0] == name and int(text.rsplit(")", 1)[1].split()[1]) == pid:
            found.append(int(entry))
    return found


def runs(name):
    return name in [l.split()[0] for l in run("there", "ps").stdout.split("\n")[1:] if l]


def send_slowly(child, **more):
    sender = subprocess.Popen([umbra, "fork", "looks", "--to", place, "--key", key, "--name", child, "--bandwidth", "4M"], env=places["here"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(child + " runs there", lambda: listener.stdout.readline() == child + " has arrived\n")
    check(child + " runs before all of it is there", sender.poll() is None, sender.returncode)
    return sender


def round_there(name):
    return "ROUND" in said(os.path.join(work.name, "there", "umbra", ".console-" + name))


looking, log = begin("looks", looks)
sender = send_slowly("wired")
for n in range(2):
    for pid in children(sender.pid, "umbra-wire"):
        os.kill(pid, 9)
    time.sleep(0.5)
check("a wire that is killed costs nothing", sender.wait(100) == 0, sender.returncode, sender.stderr.read())
until("it has looked at all of its memory", lambda: round_there("wired") and runs("wired"))
run("there", "kill", "wired")
sender = send_slowly("left")
sender.kill()
until("who is left in the middle ends", lambda: not runs("left"))
check("it says why", "where its memory comes from was lost" in said(os.path.join(work.name, "there", "umbra", ".log-left")), os.listdir(os.path.join(work.name, "there", "umbra")))
sender = send_slowly("orphan")
for pid in children(listener.pid, "umbra"):
    os.kill(pid, 9)
until("who has lost who fills its file ends", lambda: not runs("orphan"))
check("its sender hears of that", sender.wait(100) == 65 and "not there any more" in sender.stderr.read(), sender.returncode)
for left in glob.glob(os.path.join(parcels, "*")):
    os.utime(left, (1, 1))
run("here", "kill", "looks")
looking.wait(100)

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


def crc_of(byte):
    for _ in range(8):
        byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
    return byte


crcs = [crc_of(byte) for byte in range(256)]


def crc32c(data, c=0):
    c ^= 0xffffffff
    for byte in data:
        c = c >> 8 ^ crcs[(c ^ byte) & 255]
    return c ^ 0xffffffff


BLOCK = 65536
idents = iter(range(1 << 20))


def head(bytes, name=b"lie", version=2, magic=b"UMBRAWIR", runs=0):
    return magic + struct.pack("<II16sQ72s", version, runs, struct.pack("<QQ", 7, next(idents)), bytes, name)


def piece(at, data, crc=None, bytes=None):
    return struct.pack("<QII", at, len(data) if bytes is None else bytes, crc32c(data) if crc is None else crc) + data


begins = struct.pack("<QII", (1 << 64) - 1, 0, 0)


def last_answer(data, blocks):
    """The last that was given: to the head, or behind a word."""
    if len(data) < 256:
        return None
    last, data = struct.unpack_from("<iIQ240s", data), data[256 + (blocks + 7) // 8:]
    while len(data) >= 16:
        kind, data = struct.unpack_from("<I", data)[0], data[16:]
        if kind == 2 and len(data) >= 256:
            last, data = struct.unpack_from("<iIQ240s", data), data[256:]
    return last


def tell(what, *said_bytes):
    """Says that to who listens; the last answer, or None."""
    p, here = line("connect", socket.create_connection(("127.0.0.1", port)))
    last = None
    try:
        for part in said_bytes:
            here.sendall(part)
        data = b""
        here.settimeout(100)
        while len(said_bytes) > 1 and begins not in said_bytes and len(data) < 256:
            data += here.recv(65536)
        if begins not in said_bytes:
            here.shutdown(socket.SHUT_WR)
        while True:
            more = here.recv(65536)
            if not more:
                break
            data += more
        last = last_answer(data, -(-struct.unpack_from("<Q", said_bytes[0].ljust(112), 32)[0] // BLOCK))
    except OSError:
        pass
    here.close()
    p.wait(60)
    check(what + ": is refused", last and last[0] < 0, last)
    check(what + ": who listens goes on", listener.poll() is None)


data = b"x" * 1000
lies = [("no head", b"x" * 112), ("another version", head(1000, version=1)), ("no bytes", head(0)), ("too many", head(1 << 62)), ("all bits", head((1 << 64) - 1))]
lies += [("a name %r" % name, head(1000, name)) for name in (b"", b"../x", b"a/b", b".x", b"a b", b"x" * 72, b"\x1b[2J", b"-x")]
lies += [("a piece elsewhere", head(1000), piece(1, data)), ("behind its end", head(1000), piece(0, data + b"x")), ("a long piece", head(1 << 20), piece(0, data, bytes=1 << 19)),
         ("half a block", head(1 << 20), piece(0, data)), ("a block behind the last", head(1000), piece(BLOCK, data)),
         ("another checksum", head(1000), piece(0, data, crc=1)), ("an early begin", head(1000), begins), ("a begin of bytes", head(1000), piece((1 << 64) - 1, data)),
         ("twice", head(2000), piece(0, data * 2), piece(0, data * 2)), ("no saved machine", head(1000), piece(0, data), begins),
         ("it runs already", head(1000, runs=1)), ("it half runs", head(1000, runs=2)), ("a begin twice", head(1000), begins, begins)]
for what, *parts in lies:
    tell(what, *parts)
p, here = line("connect", socket.create_connection(("127.0.0.1", port)))
here.sendall(head(1000) + piece(0, data)) # all of it, and no begin: nothing_left() below sees who waits for ever
all_is_there = here.recv(256 + 1 + 16 + 16, socket.MSG_WAITALL)
check("all of it is there", struct.unpack_from("<I", all_is_there, 256 + 1 + 16)[0] == 3, all_is_there[-32:])
here.close()
p.wait(60)
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


def word(kind, block=0, zero=0):
    return struct.pack("<IIQ", kind, zero, block)


def swallow(line):
    try:
        while line.recv(1 << 20):
            pass
    except OSError:
        pass


for what, reply, why in (("rubbish", os.urandom(255) + b"\xff", "lost"), ("more than all is there", answer(have=1 << 40), "lost"), ("an error above 0", answer(error=5), "lost"),
                         ("no error", answer(error=-5000), "lost"), ("an end without an answer", b"", "lost"), ("a text for terminals", answer(error=-5, text=b"\x1b[2Jboo"), ".[2Jboo"),
                         ("a text without an end", answer(error=-5, text=b"x" * 240), "lost"), ("half of its blocks", answer(), "lost"),
                         ("an unknown word", answer() + bytes(4096) + word(9), "lost"), ("a word that is not zero", answer() + bytes(4096) + word(0, zero=1), "lost"),
                         ("a block that is none", answer() + bytes(4096) + word(1, 1 << 40), "lost"), ("it is whole, and does not run", answer() + bytes(4096) + word(3), "lost"),
                         ("it runs, and more is not said", answer() + bytes(4096) + word(2) + answer(), "it ends there"),
                         ("a refusal", answer() + bytes(4096) + word(2) + answer(error=-5, text=b"no room"), "no room")):
    server = socket.create_server(("127.0.0.1", 0))
    sender = subprocess.Popen([umbra, "fork", "spins", "--to", "127.0.0.1:%d" % server.getsockname()[1], "--key", key, "--name", "eight", "--wait", "0"], env=places["here"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    p, here = line("accept", server.accept()[0])
    sent = struct.unpack_from("<Q", here.recv(112, socket.MSG_WAITALL), 32)[0]
    here.sendall(reply.replace(bytes(4096), bytes(-(-(-(-sent // BLOCK)) // 8))))
    threading.Thread(target=swallow, args=(here,), daemon=True).start()
    here.shutdown(socket.SHUT_WR)
    err = sender.communicate(timeout=100)[1]
    check(what, sender.returncode == 65 and why in err and err.count("\n") == 1, sender.returncode, err)
    here.close()
    p.wait(60)
    server.close()
nothing_left()

# ---- it runs, and its sender, who was cut off, has not heard so ----

patient = subprocess.Popen([umbra, "listen", "0", "--key", key, "--folder", parcels, "--wait", "200"], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
atexit.register(patient.kill)
patient_port = int(patient.stdout.readline().split(":")[-1])
machine = os.path.join(work.name, "machine")
saved = run("here", "save", "spins", machine)
check("it is saved", saved.returncode == 0, saved.stderr)
with open(machine, "rb") as f:
    blocks = list(iter(lambda: f.read(BLOCK), b""))
greeting = head(sum(map(len, blocks)), b"unheard")
p, here = line("connect", socket.create_connection(("127.0.0.1", patient_port)))
here.sendall(greeting)
answered = 256 + (len(blocks) + 7) // 8
here.recv(answered, socket.MSG_WAITALL)
for n, block in enumerate(blocks):
    here.sendall(piece(n * BLOCK, block))
    here.recv(16, socket.MSG_WAITALL)
here.recv(16, socket.MSG_WAITALL)
here.sendall(begins)
here.shutdown(socket.SHUT_WR) # before it is told anything
swallow(here)
here.close()
p.wait(60)
until("it runs there", lambda: patient.stdout.readline() == "unheard has arrived\n")
whole = run("there", "save", "unheard", os.path.join(work.name, "whole")) # that waits until all of its memory is there
check("all of its memory is there", whole.returncode == 0, whole.stderr)
p, here = line("connect", socket.create_connection(("127.0.0.1", patient_port)))
here.sendall(greeting)
here.settimeout(100)
heard = here.recv(answered + 16 + 256 + 16, socket.MSG_WAITALL)
check("it hears that it runs, and is whole", len(heard) == answered + 16 + 256 + 16 and not struct.unpack_from("<i", heard)[0] and
      struct.unpack_from("<I", heard, answered)[0] == 2 and not struct.unpack_from("<i", heard, answered + 16)[0] and struct.unpack_from("<I", heard, len(heard) - 16)[0] == 3, heard)
here.close()
p.wait(60)
run("there", "kill", "unheard")
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
