#!/usr/bin/env python3
"""away.py UMBRA GUEST RESTING LOOKS: a guest with calls, timers and requests under way goes to another place by umbra fork --to and umbra listen, over loopback, with
memory that is checked at both ends. Memory that comes while it runs, with wires, a sender and a receiver
that are killed. Then with another key; by connections that are cut, and go on where they were; by one that never comes back;
to one that lies, and from one that lies. Who was sent goes on whatever happens, and nothing is left of what did not arrive."""
import atexit, contextlib, glob, json, os, re, shutil, signal, socket, struct, subprocess, sys, tempfile, threading, time
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c
from cutter import Cutter

umbra, guest, resting, looks, failed = *(os.path.abspath(a) for a in sys.argv[1:5]), 0
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
permitted, elsewhere = (os.path.join(work.name, name) for name in ("permitted", "elsewhere")) # folders of disks
for path in permitted, elsewhere:
    os.mkdir(path)
    with open(os.path.join(path, "disk.raw"), "wb") as f:
        f.write(os.urandom(1 << 20))


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


def tell_to_go_on(stdin, enough):
    """For as long as it is told so guest-forked goes on, however slow the host is."""
    while not enough.wait(0.05):
        try:
            os.write(stdin, b"\n")
        except BlockingIOError:
            pass # it has not looked yet
        except BrokenPipeError:
            break
    os.close(stdin)


def begin(name, kernel=guest, *words):
    """Its process, and what it says; `enough` of the process lets it end."""
    log = os.path.join(work.name, name + ".log")
    p = subprocess.Popen([umbra, "run", "--name", name, "--kernel", kernel, "--cpus", "2", "--memory", "256M", "--debug-exit", "0xf4", *words], env=places["here"],
                         stdin=subprocess.PIPE, stdout=open(log, "wb"), stderr=subprocess.STDOUT)
    p.enough = threading.Event()
    stdin = os.dup(p.stdin.fileno())
    p.stdin.close()
    os.set_blocking(stdin, False)
    if kernel == guest:
        threading.Thread(target=tell_to_go_on, args=(stdin, p.enough), daemon=True).start()
    until(name + " is ready", lambda: "READY" in said(log))
    return p, log


def is_good(text):
    return re.search(r"^1\.\.[1-9]", text, re.M) and not re.search(r"^not ok", text, re.M)


def arrived_well(name):
    text = lambda: said(os.path.join(work.name, "there", "umbra", ".console-" + name))
    return until(name + " ends there", lambda: re.search(r"^1\.\.[1-9]", text(), re.M)) and check(name + " is good", is_good(text()), text()[-300:])


def went_well(name, p, log):
    p.enough.set()
    check(name + " ends here", p.wait(100) == 1, p.returncode)
    check(name + " goes on here", is_good(said(log)), said(log)[-300:])


def nothing_left():
    check("nothing is left of it here", not glob.glob(os.path.join(work.name, "here", "umbra-away*")), os.listdir(os.path.join(work.name, "here")))
    until("nothing is left of it there", lambda: not os.listdir(parcels))


BLOCK = 65536

# ---- both ends ----

for path in key, other_key:
    made = run("here", "listen", "--make-key", path)
    check("a key", made.returncode == 0 and os.stat(path).st_mode & 0o777 == 0o600, made.stderr)
alone = shutil.copy(umbra, work.name)
without = subprocess.run([alone, "listen", "0", "--key", key], env=places["there"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
check("who listens needs umbra-wire, and says so at once", without.returncode == 65 and "umbra-wire" in without.stderr, without.returncode, without.stderr)
check("no key over another", run("here", "listen", "--make-key", key).returncode == 64)
listener_errors = os.path.join(work.name, "listener.errors")
listener = subprocess.Popen([umbra, "listen", "0", "--key", key, "--folder", parcels, "--wait", "5", "--parents", permitted, "--switch", "permitted"], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=open(listener_errors, "wb"), text=True)
atexit.register(end_all)
atexit.register(listener.kill)
place = listener.stdout.readline().split()[-1]
port = int(place.split(":")[1])
check("the loopback, unless told", place.startswith("127.0.0.1:"), place)

one, log = begin("one")
straight = Cutter(port, [])
sent = run("here", "fork", "one", "--to", straight.place, "--key", key, "--name", "two", "--limit", "100M")
check("it is sent", sent.returncode == 0, sent.returncode, sent.stderr)
went_well("one", one, log)
arrived_well("two")
staying, _ = begin("rests", resting)
check("it is sent", run("here", "fork", "rests", "--to", place, "--key", key, "--name", "three").returncode == 0)
taken = run("here", "fork", "rests", "--to", place, "--key", key, "--name", "three")
check("a name that is taken", taken.returncode == 65 and "runs there" in taken.stderr, taken.returncode, taken.stderr)
wrong = run("here", "fork", "rests", "--to", place, "--key", other_key, "--name", "none", "--end-parent")
check("another key", wrong.returncode == 65 and "another key" in wrong.stderr, wrong.returncode, wrong.stderr)
os.chmod(other_key, 0o644)
check("a key that others read", run("here", "fork", "rests", "--to", place, "--key", other_key).returncode == 64)
nothing_left()
for words in (["-n", "2"], ["--suspend-parent"], ["--net", "user"], ["--limit", "0"], ["--wait", "x"]):
    check("refused: %s" % words, run("here", "fork", "rests", "--to", place, "--key", key, *words).returncode == 64)

for words in (["--cert", key], ["--cert-key", key], ["--ca", key], ["--wait", "5"], ["--limit", "1M"], ["--key", key]):
    check("refused for who stays here: %s" % words, run("here", "fork", "rests", "--name", "stays", *words).returncode == 64)

# ---- networks: services of the host there are not its sender's to give ----


def cards(place, name):
    return json.loads(run(place, "info", name, "--json").stdout)["cards"]


near, _ = begin("near", resting, "--net", "user,host-loopback")
check("it reaches services here", cards("here", "near")[0]["host-loopback"], cards("here", "near"))
sent = run("here", "fork", "near", "--to", place, "--key", key, "--name", "away")
check("it is sent", sent.returncode == 0, sent.returncode, sent.stderr)
check("it has its network there, and none of the services", [(card["kind"], card["host-loopback"]) for card in cards("there", "away")] == [("user", False)], cards("there", "away"))
with_bus = os.path.join(work.name, "with-bus")
saved = run("here", "save", "near", with_bus)
check("it is saved", saved.returncode == 0, saved.stderr)
run("there", "kill", "away")
run("here", "kill", "near")
near.wait(100)

# ---- a connection that is cut ----

four, log = begin("four")
cutter = Cutter(port, [200, 2000, straight.passed // 3, straight.passed // 3])
sent = run("here", "fork", "four", "--to", cutter.place, "--key", key, "--name", "five")
check("it arrives by %d connections" % cutter.connections, sent.returncode == 0 and cutter.connections == 5, sent.returncode, sent.stderr)
check("and nearly nothing twice", cutter.passed < straight.passed * 3 // 2 + (1 << 20), cutter.passed, straight.passed)
lost = run("here", "fork", "rests", "--to", Cutter(port, [20000] + [1] * 1000).place, "--key", key, "--name", "six", "--wait", "1", "--end-parent")
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


def parent_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return int(f.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def below(pid):
    """All that were begun by it, with what they are."""
    everybody = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    found, layer = {}, [pid]
    while layer:
        layer = [child for child in everybody if parent_of(child) in layer]
        found.update({child: said("/proc/%d/cmdline" % child).replace("\0", " ").strip() for child in layer})
    return found


def runs(name):
    return name in [l.split()[0] for l in run("there", "ps").stdout.split("\n")[1:] if l]


def send_slowly(child, there=None):
    sender = subprocess.Popen([umbra, "fork", "looks", "--to", there or place, "--key", key, "--name", child, "--bandwidth", "4M"], env=places["here"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(child + " runs there", lambda: listener.stdout.readline() == child + " has arrived\n")
    check(child + " runs before all of it is there", sender.poll() is None, sender.returncode)
    return sender


def round_there(name):
    return "ROUND" in said(os.path.join(work.name, "there", "umbra", ".console-" + name))


looking, log = begin("looks", looks)
cutter = Cutter(port)
sender = send_slowly("wired", cutter.place)
for n in range(2):
    cutter.cut()
    time.sleep(0.5)
check("a connection that is cut costs nothing", sender.wait(100) == 0 and cutter.connections == 3, sender.returncode, cutter.connections, sender.stderr.read())
until("it has looked at all of its memory", lambda: round_there("wired") and runs("wired"))
further = run("there", "fork", "wired", "--to", place, "--key", key, "--name", "further")
check("one that came from elsewhere is sent on", further.returncode == 0 and listener.stdout.readline() == "further has arrived\n", further.returncode, further.stderr)
until("it has looked at all of its memory, too", lambda: round_there("further") and runs("further"))
run("there", "kill", "further")
run("there", "kill", "wired")


def read_process(sender):
    """The process that is read, which the sender has a descriptor of."""
    folder = "/proc/%d/fdinfo" % sender.pid
    for fd in os.listdir(folder):
        with open(os.path.join(folder, fd)) as f:
            pid = re.search(r"^Pid:\s*(\d+)", f.read(), re.M)
        if pid:
            return int(pid[1])
    return check("the sender has a process that it reads", False) or 0


def lists_of_calls(pid):
    with open("/proc/%d/status" % pid) as f:
        return re.search(r"^Seccomp_filters:\s*(\d+)$", f.read(), re.M)


sender = send_slowly("unread")
image = read_process(sender)
check("what is read has its forker's list of calls, and that of its page", int(lists_of_calls(image)[1]) >= 2)
check("it holds its events, and nothing else that it could speak to", sorted({os.readlink("/proc/%d/fd/%s" % (image, n)) for n in os.listdir("/proc/%d/fd" % image)}) in
      (["anon_inode:[eventfd]"], [])) if os.geteuid() == 0 else None
os.kill(image, 9)
check("its end is named", sender.wait(100) == 65 and "was forked of it here has ended" in sender.stderr.read(), sender.returncode)
until("and so is that of who needed it", lambda: not runs("unread"))
sender = send_slowly("left")
image = read_process(sender)
sender.kill()
until("who is left in the middle ends", lambda: not runs("left"))
until("what was read ends with its reader", lambda: not os.path.exists("/proc/%d" % image))
check("it says why", "where its memory comes from was lost" in said(os.path.join(work.name, "there", "umbra", ".log-left")), os.listdir(os.path.join(work.name, "there", "umbra")))
sender = send_slowly("orphan")
time.sleep(0.3) # its sender has heard that it runs: else it would begin anew
for pid in children(listener.pid, "umbra"):
    os.kill(pid, 9)
until("who has lost who fills its file ends", lambda: not runs("orphan"))
check("its sender hears of that", sender.wait(100) == 65 and "not there any more" in sender.stderr.read(), sender.returncode)
for left in glob.glob(os.path.join(parcels, "*")):
    os.utime(left, (1, 1))
run("here", "kill", "looks")
looking.wait(100)

# ---- what one has asked for goes ahead to the next ----

looking, log = begin("looks", looks)
asked = {}
for child in "first", "second":
    told = run("here", "fork", "looks", "--to", place, "--key", key, "--name", child, "--limit", "1M", "--json")
    check(child + " is sent", told.returncode == 0 and listener.stdout.readline() == child + " has arrived\n", told.returncode, told.stderr)
    asked[child] = json.loads(told.stdout or "{}")
    until(child + " has looked at all of its memory", lambda: round_there(child))
    run("there", "kill", child)
first, second = asked["first"], asked["second"]
check("and how much was sent by then: of the first little", 0 < first["sent-before"] <= first["bytes"] // 10 and first["sent-before"] < second["sent-before"] <= second["bytes"] + BLOCK, asked)
check("it is said after how long they ran", all(0 < said_of["ran-after-us"] < 100e6 for said_of in asked.values()), asked)
check("nothing goes ahead of the first, much of the second", first["ahead"] == 0 and second["ahead"] >= first["asked"] // 2 > 50, asked)
check("the second asks for a tenth of that at most", second["asked"] * 10 <= first["asked"], asked)
run("here", "kill", "looks")
looking.wait(100)
run("here", "ps")
check("it is forgotten with its machine", not os.path.exists(os.path.join(work.name, "here", "umbra", ".wanted-looks")))

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


idents = iter(range(1 << 20))


def head(bytes, name=b"lie", version=4, magic=b"UMBRAWIR", runs=0, files=(), count=None, zero=0):
    """files: of each (bytes, format, disk, level)."""
    return magic + struct.pack("<II16sQ72sII", version, runs, struct.pack("<QQ", 7, next(idents)), bytes, name, len(files) if count is None else count, zero) + \
        b"".join(struct.pack("<QIHH", *f) for f in files)


def piece(at, data, crc=None, bytes=None):
    return struct.pack("<QII", at, len(data) if bytes is None else bytes, crc32c(data) if crc is None else crc) + data


begins = struct.pack("<QII", (1 << 64) - 1, 0, 0)
hears = struct.pack("<QII", (1 << 64) - 2, 0, 0)
lives = struct.pack("<QII", (1 << 64) - 3, 0, 0)


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
        last = last_answer(data, -(-struct.unpack_from("<Q", said_bytes[0].ljust(120), 32)[0] // BLOCK))
    except OSError:
        pass
    here.close()
    p.wait(60)
    check(what + ": is refused", last and last[0] < 0, last)
    check(what + ": and hears of nothing that is there", last and b"/" not in last[3] and parcels.encode() not in last[3], last)
    check(what + ": who listens goes on", listener.poll() is None)
    return last[3].rstrip(b"\0").decode() if last else ""


data = b"x" * 1000
lies = [("no head", b"x" * 120), ("another version", head(1000, version=2)), ("no bytes", head(0)), ("too many", head(1 << 62)), ("all bits", head((1 << 64) - 1))]
lies += [("a name %r" % name, head(1000, name)) for name in (b"", b"../x", b"a/b", b".x", b"a b", b"x" * 72, b"\x1b[2J", b"-x")]
lies += [("a piece elsewhere", head(1000), piece(1, data)), ("behind its end", head(1000), piece(0, data + b"x")), ("a long piece", head(1 << 20), piece(0, data, bytes=1 << 19)),
         ("half a block", head(1 << 20), piece(0, data)), ("a block behind the last", head(1000), piece(BLOCK, data)),
         ("a part that nobody asked for", head(1 << 20), piece(0, bytes(4096))), ("a part of two blocks", head(1 << 20), piece(BLOCK - 2048, bytes(4096))),
         ("a part between grains", head(1 << 20), piece(1024, bytes(2048))), ("a part of nothing", head(1 << 20), piece(2048, b"")), ("a life of bytes", head(1000), piece((1 << 64) - 3, data)), ("another checksum", head(1000), piece(0, data, crc=1)), ("an early begin", head(1000), begins), ("a begin of bytes", head(1000), piece((1 << 64) - 1, data)),
         ("twice", head(2000), piece(0, data * 2), piece(0, data * 2)), ("no saved machine", head(1000), piece(0, data), begins),
         ("it runs already", head(1000, runs=1)), ("it half runs", head(1000, runs=2)), ("a begin twice", head(1000), begins, begins), ("it has heard what nobody said", head(1000), hears)]
for what, *parts in lies:
    tell(what, *parts)
check("why one was refused is said where umbra listen runs", parcels + "/umbra-parcel-" in said(listener_errors) and "no saved machine" in said(listener_errors), said(listener_errors))
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
                         ("a block that is none", answer() + bytes(4096) + word(1, 1 << 40), "lost"), ("a part that is none", answer() + bytes(4096) + word(5, 1 << 40, zero=1), "lost"),
                         ("a part of nothing", answer() + bytes(4096) + word(5), "lost"), ("a part of two blocks", answer() + bytes(4096) + word(5, 31, zero=2), "lost"), ("it is whole, and does not run", answer() + bytes(4096) + word(3), "lost"),
                         ("it runs, and more is not said", answer() + bytes(4096) + word(2) + answer(), "it ends there"),
                         ("a refusal", answer() + bytes(4096) + word(2) + answer(error=-5, text=b"no room"), "no room")):
    server = socket.create_server(("127.0.0.1", 0))
    sender = subprocess.Popen([umbra, "fork", "rests", "--to", "127.0.0.1:%d" % server.getsockname()[1], "--key", key, "--name", "eight", "--wait", "0"], env=places["here"],
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    p, here = line("accept", server.accept()[0])
    sent = struct.unpack_from("<Q", here.recv(120, socket.MSG_WAITALL), 32)[0]
    here.sendall(reply.replace(bytes(4096), bytes(-(-(-(-sent // BLOCK)) // 8))))
    threading.Thread(target=swallow, args=(here,), daemon=True).start()
    here.shutdown(socket.SHUT_WR)
    err = sender.communicate(timeout=100)[1]
    check(what, sender.returncode == 65 and why in err and err.count("\n") == 1, sender.returncode, err)
    here.close()
    p.wait(60)
    server.close()
nothing_left()

# ---- one that is silent, though its host is there ----

server = socket.create_server(("127.0.0.1", 0))
sender = subprocess.Popen([umbra, "fork", "rests", "--to", "127.0.0.1:%d" % server.getsockname()[1], "--key", key, "--name", "nine", "--wait", "0"], env=places["here"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
p, here = line("accept", server.accept()[0])
sent = struct.unpack_from("<Q", here.recv(120, socket.MSG_WAITALL), 32)[0]
here.sendall(answer() + bytes(-(-(-(-sent // BLOCK)) // 8)))
swallower = threading.Thread(target=swallow, args=(here,), daemon=True)
swallower.start()
q, mute = line("connect", socket.create_connection(("127.0.0.1", port)))
mute.sendall(head(1000))
mute.recv(256 + 1, socket.MSG_WAITALL)
words = b""
while len(words) < 16 or words[-16:-12] != struct.pack("<I", 4):
    words += mute.recv(16, socket.MSG_WAITALL) or b"its end".ljust(16)
    if not check("who takes a machine says that he lives", len(words) < 160, words):
        break
check("one that takes it and says nothing is lost", "was lost" in sender.communicate(timeout=100)[1] and sender.returncode == 65, sender.returncode)
swallower.join(100)
here.close()
p.wait(60)
server.close()
nothing_left() # nor of one that was sent by who says nothing
mute.close()
q.wait(60)

# ---- who never shows that he may come keeps nobody's place ----


def connection_of(pid):
    try:
        return os.readlink("/proc/%d/fd/3" % pid)
    except OSError:
        return ""


def wait_for_key(pid):
    """Each umbra-wire that has a connection: who waits for one has the listener's socket."""
    listens = {os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)}
    return [child for child, words in below(pid).items() if words.startswith("umbra-wire wait") and connection_of(child) not in listens]


def signal_all(number):
    for pid in wait_for_key(listener.pid):
        with contextlib.suppress(ProcessLookupError): # it has had enough meanwhile
            os.kill(pid, number)


silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(32)]
until("all places are taken", lambda: len(wait_for_key(listener.pid)) >= 31)
signal_all(signal.SIGSTOP) # they do not even come to leaving who does not show it
sent = run("here", "fork", "rests", "--to", place, "--key", key, "--name", "ten", "--wait", "0")
check("it is sent, however many say nothing", sent.returncode == 0, sent.returncode, sent.stderr)
run("there", "kill", "ten")
signal_all(signal.SIGKILL)
for connection in silent:
    connection.close()
nothing_left()

# ---- it runs, and its sender, who was cut off, has not heard so ----

patient = subprocess.Popen([umbra, "listen", "0", "--key", key, "--folder", parcels, "--wait", "200"], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
atexit.register(patient.kill)
patient_port = int(patient.stdout.readline().split(":")[-1])
machine = os.path.join(work.name, "machine")
saved = run("here", "save", "rests", machine)
check("it is saved", saved.returncode == 0, saved.stderr)
with open(machine, "rb") as f:
    blocks = list(iter(lambda: f.read(BLOCK), b""))
with open(with_bus, "rb") as f:
    whole_file = f.read()


def tell_host(what, **host):
    """A machine arrives of whose disks and networks its file says that."""
    machine_bytes, host_bytes = struct.unpack("<QQ", whole_file[-16:])
    host = json.dumps(host).encode()
    spoilt = whole_file[:-32 - host_bytes] + host + struct.pack("<8sIIQQ", b"UMBRAHST", 1, crc32c(host), machine_bytes, len(host))
    return tell(what, head(len(spoilt), b"spoilt"), *(piece(at, spoilt[at:at + BLOCK]) for at in range(0, len(spoilt), BLOCK)), begins)


def disk(path, **more):
    return {"file": path, "stem": path, "format": "raw", "read-only": True, "direct": False, "identity": {}} | more


card = {"kind": "user", "name": "", "mac": "02:00:00:00:00:02", "host-loopback": False}
os.symlink(os.path.join(elsewhere, "disk.raw"), os.path.join(permitted, "link.raw"))
not_there = "a disk is not where one is permitted"
for path in (elsewhere + "/disk.raw", elsewhere + "/none.raw", permitted + "/link.raw", permitted + "/../elsewhere/disk.raw", permitted + "/../elsewhere/none.raw", permitted + "/none.raw", permitted,
             permitted + "-too/disk.raw", "disk.raw"):
    refused = tell_host("the disk " + path, disks=[disk(path)], cards=[card])
    check("the disk %s: is not permitted, whether it is there or not" % path, refused == not_there, refused)
refused = tell_host("a disk that is permitted, and not what it was", disks=[disk(permitted + "/disk.raw")], cards=[card])
check("a disk that is permitted is looked at", refused == "it is not what it was when the machine was saved", refused)
for kind, name in ("switch", "other"), ("switch", "permitte"), ("switch", "permitted2"):
    refused = tell_host("a card on " + name, cards=[card | {"kind": kind, "name": name}])
    check("a card on %s: is not permitted" % name, refused == "it is on a network that is not permitted", refused)
check("a tap is nobody's", tell_host("a card at a tap", cards=[card | {"kind": "tap", "name": "tap0"}]) != "")
tell_host("a disk whose name is for terminals", disks=[disk("/gone\x1b]0;boo\x07\x9b2J", **{"read-only": False})])
check("what it is called is said, and as text", "/gone" in said(listener_errors) and not re.search("[^ -~\n]", said(listener_errors)), said(listener_errors)[-300:])
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
heard = b"" # with a limit of time MSG_WAITALL waits for nothing
while len(heard) < answered + 16 + 256 + 16 and (more := here.recv(answered + 16 + 256 + 16 - len(heard))):
    heard += more
check("it hears that it runs, and is whole", len(heard) == answered + 16 + 256 + 16 and not struct.unpack_from("<i", heard)[0] and
      struct.unpack_from("<I", heard, answered)[0] == 2 and not struct.unpack_from("<i", heard, answered + 16)[0] and struct.unpack_from("<I", heard, len(heard) - 16)[0] == 3, heard)
here.sendall(hears)
here.close()
p.wait(60)
run("there", "kill", "unheard")
nothing_left()

# ---- nobody reads any more what umbra listen says ----

unread = subprocess.Popen([umbra, "listen", "0", "--key", key, "--folder", parcels], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
atexit.register(unread.kill)
unread_place = unread.stdout.readline().split()[-1]
unread.stdout.close()
sent = run("here", "fork", "rests", "--to", unread_place, "--key", key, "--name", "unseen", "--wait", "1")
check("it is sent all the same", sent.returncode == 0, sent.returncode, sent.stderr)
nothing_left()
check("and runs there", runs("unseen"))
run("there", "kill", "unseen")
unread.kill()
unread.wait()

# ---- it goes, and ends here ----


def stands_still(name):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(os.path.join(work.name, "here", "umbra", name))
        peer.sendall(b'{"id":1,"do":"info"}\n')
        return json.loads(peer.makefile().readline())["machine"].get("suspended", False)


wrong = run("here", "fork", "rests", "--to", place, "--key", key, "-n", "2")
check("what begins before anything is looked at ends with what is wrong", wrong.returncode == 64 and
      not any(said("/proc/%s/cmdline" % pid).startswith("umbra-wire\0later") for pid in os.listdir("/proc") if pid.isdigit()), wrong.returncode, wrong.stderr)
silent = socket.create_server(("127.0.0.1", 0)) # who takes connections, and never says a word
sender = subprocess.Popen([umbra, "fork", "rests", "--to", "127.0.0.1:%d" % silent.getsockname()[1], "--key", key, "--end-parent"], env=places["here"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
until("it stands still until it is there", lambda: stands_still("rests") or sender.poll() is not None)
until("its umbra-wire has given up its rights before anybody has said a word",
      lambda: any("Seccomp:\t2" in said("/proc/%d/status" % pid) for pid in children(sender.pid, "umbra-wire")))
check("nobody has said a word", sender.poll() is None, sender.returncode, sender.poll() is not None and sender.stderr.read())
sender.kill()
until("it goes on when nobody sends it any more", lambda: not stands_still("rests"))
silent.close()

seven, log = begin("seven")
moved = run("here", "fork", "seven", "--to", place, "--key", key, "--end-parent")
check("it goes", moved.returncode == 0, moved.returncode, moved.stderr)
check("and is here no more", seven.wait(100) == 0 and not re.search(r"^1\.\.", said(log), re.M), seven.returncode)
arrived_well("seven")
nothing_left()
check("who was refused goes on", staying.poll() is None)

# ---- who waits for the next one ends with who listens ----


def waits(pid):
    roles = sorted(word.split("=")[1] for words in below(pid).values() for word in words.split() if word.startswith("--role="))
    return roles == ["broker", "machine", "pager"] and any(words.startswith("umbra-wire wait") for words in below(pid).values())


until("a machine's processes wait for the next one", lambda: waits(patient.pid))
waiting = below(patient.pid)
patient.kill()
until("they end with who listens", lambda: not any(os.path.exists("/proc/%d" % pid) and parent_of(pid) for pid in waiting))
sys.exit(failed)
