#!/usr/bin/env python3
"""away_disks.py UMBRA RESTING: a machine whose disks come with it (umbra listen --disks): senders that lie about files and blocks, that are killed, that come back; a machine that ends
before its disks are there; no room. Nothing is left of what did not arrive but the machine's own file, and every refusal says what it is about."""
import atexit, json, os, resource, shutil, signal, socket, struct, subprocess, sys, tempfile, time
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c

umbra, resting, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
wire = os.path.join(os.path.dirname(umbra), "src/wire/umbra-wire")
work = tempfile.TemporaryDirectory()
BLOCK, KINDS = 65536, {"got": 0, "want": 1, "answers": 2, "whole": 3}
places = {}
for place in "here", "there":
    path = os.path.join(work.name, place)
    os.mkdir(path, 0o700)
    places[place] = dict(os.environ, XDG_RUNTIME_DIR=path, TMPDIR=path)
parcels, disks, key = (os.path.join(work.name, name) for name in ("parcels", "disks", "key"))
os.mkdir(parcels, 0o700)
os.mkdir(disks)


def check(what, good, *more):
    global failed
    if not good:
        print("away-disks:", what, *more)
        failed = 1
    return good


def run(place, *words, timeout=100):
    return subprocess.run([umbra, *words], env=places[place], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def names(place):
    return [l.split()[0] for l in run(place, "ps").stdout.split("\n")[1:] if l]


def end_all():
    for place in places:
        for name in names(place):
            run(place, "kill", name)


def until(what, good):
    end = time.time() + 100
    while time.time() < end:
        if good():
            return True
        time.sleep(0.02)
    return check("waited in vain: " + what, False, os.listdir(disks), os.listdir(parcels))


def log_of(name):
    try:
        with open(os.path.join(work.name, "there", "umbra", ".log-" + name), errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def nothing_left(*but):
    until("nothing is left there but %s" % (but,), lambda: not os.listdir(parcels) and sorted(os.listdir(disks)) == sorted(but))


def listen(*words):
    p = subprocess.Popen([umbra, "listen", "0", "--key", key, "--folder", parcels, "--disks", disks, *words], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         text=True, restore_signals=False) # a file that gets no larger is an error, and ends nobody
    atexit.register(p.kill)
    return p, int(p.stdout.readline().split(":")[-1])


def line(connection):
    here, there = socket.socketpair()
    read, write = os.pipe()
    with open(key) as f:
        os.write(write, bytes.fromhex(f.read().strip()))
    os.close(write)
    p = subprocess.Popen(["bash", "-c", 'exec "$0" connect 3<&%d 4<&%d 5<&%d' % (connection.fileno(), there.fileno(), read), wire], pass_fds=[connection.fileno(), there.fileno(), read])
    connection.close()
    there.close()
    os.close(read)
    check("the line to it is there", here.recv(1) == b"Y")
    here.settimeout(100)
    return p, here


def piece(block, data, crc=None, bytes=None):
    return struct.pack("<QII", block * BLOCK, len(data) if bytes is None else bytes, crc32c(data) if crc is None else crc) + data


begins, hears = (struct.pack("<QII", (1 << 64) - n, 0, 0) for n in (1, 2))
idents = iter(range(1 << 20))


def fillers(folder):
    """Who of those that listen has something open there."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid) as f:
                if "listen" in f.read().split("\0") and any(os.readlink("/proc/%s/fd/%s" % (pid, fd)).startswith(folder) for fd in os.listdir("/proc/%s/fd" % pid)):
                    found.append(int(pid))
        except OSError:
            pass
    return found


class Sender:
    """One that says what it is told to, as umbra fork --to would."""

    def __init__(self, machine, files, name=b"lie", count=None, zero=0, runs=0, ident=None):
        self.machine, self.files = machine, files
        self.ident = struct.pack("<QQ", 9, next(idents)) if ident is None else ident
        self.first, block = [], -(-machine // BLOCK)
        for f in files:
            self.first.append(block)
            block += -(-f[0] // BLOCK)
        self.blocks = block
        self.p, self.here = line(socket.create_connection(("127.0.0.1", port)))
        self.here.sendall(b"UMBRAWIR" + struct.pack("<II16sQ72sII", 4, runs, self.ident, machine, name, len(files) if count is None else count, zero) +
                          b"".join(struct.pack("<QIHH", *f) for f in files))
        self.here.shutdown(socket.SHUT_WR) if count is not None else None
        self.answer = self.receive_answer()
        self.has = self.take(-(-self.blocks // 8)) if self.answer and not self.answer[0] else b""

    def take(self, bytes):
        try:
            return self.here.recv(bytes, socket.MSG_WAITALL)
        except OSError:
            return b""

    def receive_answer(self):
        data = self.take(256)
        return (struct.unpack_from("<i", data)[0], data[16:].split(b"\0")[0].decode()) if len(data) == 256 else None

    def word(self):
        """(kind, block), with an answer (2, (error, text)); None: it has left."""
        data = self.take(16)
        if len(data) < 16:
            return None
        kind, _, block = struct.unpack("<IIQ", data)
        return kind, self.receive_answer() if kind == KINDS["answers"] else block

    def say(self, data):
        try:
            self.here.sendall(data)
        except OSError:
            pass

    def end(self):
        self.here.close()
        self.p.wait(60)


def refused(what, sender, text=""):
    check(what + " is refused", sender.answer and sender.answer[0] < 0 and text in sender.answer[1], sender.answer)
    sender.end()


def left_there(sender):
    """Whether it is left alone, whatever it is told before."""
    while True:
        word = sender.word()
        if word is None:
            return True
        if word[0] == KINDS["whole"]:
            return False


run("here", "listen", "--make-key", key)
listener, port = listen("--wait", "3")

# ---- what is announced ----

file = (1 << 20, 0, 0, 0)
for what, files, more in (("a disk behind the last", [(1 << 20, 0, 16, 0)], {}), ("what lies beneath nothing", [(1 << 20, 0, 0, 1)], {}), ("a level left out", [file, (1 << 20, 0, 0, 2)], {}),
                          ("a disk twice", [file, file], {}), ("disks backwards", [(1 << 20, 0, 1, 0), file], {}), ("an empty file", [(0, 0, 0, 0)], {}), ("an unknown format", [(1 << 20, 9, 0, 0)], {}),
                          ("a file of all bits", [((1 << 64) - 1, 0, 0, 0)], {}), ("more than is ever sent", [(9 << 40, 0, 0, 0), (9 << 40, 0, 1, 0)], {}), ("too many files", [file], {"count": 65}),
                          ("a word that is not zero", [file], {"zero": 1})):
    refused(what, Sender(1000, files, **more))
for what, files, text in (("a raw parent", [file, (1 << 20, 1, 0, 1)], "convert it"), ("qcow2", [(1 << 20, 3, 0, 0)], "convert it"), ("what its policy keeps", [(1 << 20, 4, 0, 0)], "policy"),
                          ("more than there is room for", [(15 << 40, 0, 0, 0)], "no room")):
    refused(what, Sender(1000, files), text)
nothing_left()
lies = [("a block twice", [piece(1, b"x" * BLOCK)] * 2), ("another checksum", [piece(1, b"x" * BLOCK, crc=1)]), ("half a block", [piece(1, b"x" * 1000)]),
        ("a block behind the last", [piece(17, b"x" * BLOCK)]), ("zeros of a checksum", [piece(1, b"", crc=1)]), ("zeros twice", [piece(1, b"")] * 2)]
for what, said in lies:
    sender = Sender(1000, [file])
    check("it may come", sender.answer == (0, ""), sender.answer)
    for part in said:
        sender.say(part)
    check(what + " is not taken", left_there(sender))
    sender.end()
    check("who listens goes on", listener.poll() is None)
nothing_left()

# ---- the file system takes no more ----

sender = Sender(1000, [(8 << 20, 0, 0, 0)])
filler = fillers(disks)[0]
resource.prlimit(filler, resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
sender.say(piece(100, b"x" * BLOCK))
words = [sender.word() for _ in range(2)]
check("what cannot be written is said", words[0] and words[0][0] == KINDS["answers"] and words[0][1][0] < 0 and words[1] is None, words)
sender.end()
nothing_left()

# ---- a machine, and what it was saved as ----

data = os.urandom(6 << 20)
with open(os.path.join(work.name, "raw"), "wb") as f:
    f.write(data + bytes(26 << 20))
base, top, other = (os.path.join(work.name, name + ".vhdx") for name in ("base", "top", "other"))
for made in (run("here", "disk", "convert", os.path.join(work.name, "raw"), base, "--from", "raw"), run("here", "disk", "create", top, "--parent", base),
             run("here", "disk", "create", other, "--size", "32M")):
    check("disks are made", made.returncode == 0, made.stderr)
one = subprocess.Popen([umbra, "run", "--name", "one", "--kernel", resting, "--memory", "64M", "--debug-exit", "0xf4", "--disk", top], env=places["here"], stdin=subprocess.DEVNULL,
                       stdout=open(os.path.join(work.name, "one.log"), "wb"), stderr=subprocess.STDOUT)
until("one runs", lambda: "READY" in open(os.path.join(work.name, "one.log"), errors="replace").read())
machine = os.path.join(work.name, "machine")
saved = run("here", "save", "one", machine)
check("it is saved", saved.returncode == 0, saved.stderr)


def blocks_of(path):
    with open(path, "rb") as f:
        return list(iter(lambda: f.read(BLOCK), b""))


def file_of(path, level):
    return (os.path.getsize(path), 0, 0, level)


class Machine(Sender):
    """One that sends that machine, with these files in the place of its disk's."""

    def __init__(self, name, *paths, **more):
        self.content = blocks_of(machine)
        size = os.path.getsize(machine)
        super().__init__(size, [file_of(path, n) for n, path in enumerate(paths)], name.encode(), **more)
        for path in paths:
            self.content += [b.ljust(BLOCK, b"\0") for b in blocks_of(path)]
        self.front = -(-size // BLOCK)
        if self.files and size % BLOCK:
            self.content[self.front - 1] = self.content[self.front - 1].ljust(BLOCK, b"\0")

    def there(self, block):
        return self.has[block // 8] >> block % 8 & 1

    def send_machine(self):
        for block in range(self.front):
            if not self.there(block):
                self.say(piece(block, self.content[block]))
        self.say(begins)

    def serve(self, lie=None, lies_after=0, most=1 << 60):
        """What is wanted, until it runs or was refused: that answer, or None; lies (of a block) after so many."""
        while True:
            word = self.word()
            if word is None or word[0] == KINDS["answers"]:
                return word and word[1]
            if word[0] == KINDS["want"]:
                lies_after -= 1
                self.say(lie(self, word[1]) if lie and lies_after < 0 else piece(word[1], self.content[word[1]]))


def left_files(name):
    return [f for f in os.listdir(disks) if f.startswith(name + ".0." + name)]


for what, paths, text in (("another disk than was announced", [other], "announced"), ("no disk at all", [machine], "vhdxfile"), ("a parent that is another one", [top, other], "data identifier of the parent")):
    sender = Machine("wrong", *paths)
    sender.send_machine()
    answer = sender.serve()
    check(what + " is refused, and named", answer and answer[0] < 0 and text in answer[1] and "/" not in answer[1], answer)
    sender.end()
sender = Machine("wrong")
sender.send_machine()
answer = sender.serve()
check("a machine whose disks do not come opens none of the names that it has", answer and answer[0] < 0, answer)
sender.end()
nothing_left()

# ---- lies while it begins: who tells them is left, and the truth goes on where that was ----

for what, lie in (("another checksum", lambda s, b: piece(b, s.content[b], crc=1)), ("twice", lambda s, b: piece(b, s.content[b]) * 2), ("another block of its file", lambda s, b: piece(s.blocks, s.content[b]))):
    sender = Machine("truth", top, base)
    sender.send_machine()
    check(what + ": it is left", sender.serve(lie, 1) is None)
    sender.end()
    sender = Machine("truth", top, base, ident=sender.ident)
    check("what has come is there", sender.answer == (0, "") and sum(bin(b).count("1") for b in sender.has) >= sender.front, sender.answer)
    answer = sender.serve()
    check(what + ": with the truth it runs", answer == (0, "") and "truth" in names("there"), answer)
    shown = json.loads(run("there", "info", "truth", "--json").stdout or "{}")
    check("how much is to come is shown", 0 < shown.get("remote-disks", 0) <= (sender.blocks - sender.front) * BLOCK, shown)
    check("its disk is its own, there", shown["disks"][0]["file"].startswith(disks + "/truth.0.truth"), shown)
    if what == "twice":
        # ---- it ends before its disks are there: they come all the same, and what it has written is made on them ----
        run("there", "kill", "truth")
        sender.end()
        sender = Machine("truth", top, base, ident=sender.ident, runs=1)
        sender.serve()
        for block in range(sender.blocks):
            if not sender.there(block):
                sender.say(piece(block, b"" if not any(sender.content[block]) else sender.content[block]))
        while True:
            word = sender.word()
            if word is None or word[0] == KINDS["whole"]:
                break
        check("it is whole", word is not None)
        sender.say(hears)
        sender.end()
        nothing_left("truth.0.vhdx", "truth.0.1.vhdx", "truth.0.truth.vhdx")
        for got, sent in (("truth.0.vhdx", top), ("truth.0.1.vhdx", base)):
            check("nobody else reads " + got, os.stat(os.path.join(disks, got)).st_mode & 0o777 == 0o400)
            check(got + " is what was sent", open(os.path.join(disks, got), "rb").read() == open(sent, "rb").read())
        chain = run("there", "disk", "convert", os.path.join(disks, "truth.0.truth.vhdx"), os.path.join(work.name, "flat"), "--to", "raw")
        check("and all of it one disk", chain.returncode == 0 and open(os.path.join(work.name, "flat"), "rb").read(len(data)) == data, chain.stderr)
        frozen = run("there", "disk", "compact", os.path.join(disks, "truth.0.vhdx"))
        check("what was frozen is frozen there", frozen.returncode != 0, frozen.stdout)
        for left in os.listdir(disks):
            os.unlink(os.path.join(disks, left))
        continue
    # ---- nobody comes back: it ends, and says why; what it has written is left ----
    sender.end()
    until("it ends", lambda: "truth" not in names("there"))
    check("it says why", "was lost" in log_of("truth"), log_of("truth"))
    nothing_left("truth.0.truth.vhdx")
    os.unlink(os.path.join(disks, "truth.0.truth.vhdx"))

# ---- umbra fork itself, which is killed under way ----

sender = subprocess.Popen([umbra, "fork", "one", "--to", "127.0.0.1:%d" % port, "--key", key, "--name", "left", "--bandwidth", "1M"], env=places["here"], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True)
until("left runs there", lambda: listener.stdout.readline() == "left has arrived\n" or sender.poll() is not None)
check("before all of it is there", sender.poll() is None, sender.returncode)
sender.kill()
until("it ends there", lambda: "left" not in names("there"))
check("and says why", "was lost" in log_of("left"), log_of("left"))
until("its own file is left, which is the user's", lambda: os.listdir(disks) == ["left.0.left.vhdx"] and not os.listdir(parcels))
sent = run("here", "fork", "one", "--to", "127.0.0.1:%d" % port, "--key", key, "--name", "left")
check("its parent is sent again, under the same name", sent.returncode == 0, sent.stderr)
check("in a file of another name", "left.0.left.2.vhdx" in os.listdir(disks), os.listdir(disks))
until("all of it is there", lambda: "remote" not in (run("there", "info", "left", "--json").stdout or "remote"))
run("there", "kill", "left")

# ---- a child of which one disk cannot be made has none; a file that is cut off under way is not sent as zeros ----

os.mkdir(os.path.join(work.name, "two"))
first, second, raw = (os.path.join(work.name, "two", name) for name in ("first.vhdx", "x" * 200 + ".vhdx", "raw.img"))
for path in first, second:
    made = run("here", "disk", "create", path, "--size", "32M")
    check("disks are made", made.returncode == 0, made.stderr)
with open(raw, "wb") as f:
    f.write(os.urandom(24 << 20))
two = subprocess.Popen([umbra, "run", "--name", "two", "--kernel", resting, "--memory", "64M", "--debug-exit", "0xf4", "--disk", first, "--disk", second, "--disk", raw + ",format=raw,readonly"],
                       env=places["here"], stdin=subprocess.DEVNULL, stdout=open(os.path.join(work.name, "two.log"), "wb"), stderr=subprocess.STDOUT)
atexit.register(two.kill)
until("two runs", lambda: "READY" in open(os.path.join(work.name, "two.log"), errors="replace").read())
child = "c" * 60
forked = run("here", "fork", "two", "--name", child)
check("a child whose disk has too long a name is not made", forked.returncode == 65 and child not in names("here"), forked.returncode, forked.stderr)
check("no disk of it is left", not [f for f in os.listdir(os.path.join(work.name, "two")) if child in f], os.listdir(os.path.join(work.name, "two")))
sender = subprocess.Popen([umbra, "fork", "two", "--to", "127.0.0.1:%d" % port, "--key", key, "--name", "cut", "--bandwidth", "1M"], env=places["here"], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True)
atexit.register(sender.kill)
until("cut runs there", lambda: "cut" in names("there") or sender.poll() is not None)
os.truncate(raw, 0)
errors = sender.communicate(timeout=100)[1]
check("what was cut off is not sent", sender.returncode == 65 and "cannot be read" in errors, sender.returncode, errors)
until("it ends there", lambda: "cut" not in names("there") and not [f for f in os.listdir(disks) if f.startswith("cut") and not f.startswith(("cut.0.cut", "cut.1.cut"))])
run("here", "kill", "two")

# ---- certificates in the place of the key ----


def openssl(*words):
    return check("openssl " + words[0], subprocess.run(["openssl", *words], capture_output=True, cwd=work.name).returncode == 0)


def certificate(name, authority, san, *more, days=2):
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name + ".key", "-out", name + ".req", "-subj", "/CN=" + name)
    with open(os.path.join(work.name, name + ".ext"), "w") as f:
        f.write("\n".join(("subjectAltName=" + san, *more)) + "\n")
    openssl("x509", "-req", "-in", name + ".req", "-CA", authority + ".pem", "-CAkey", authority + ".key", "-CAcreateserial", "-days", str(days), "-out", name + ".pem", "-extfile", name + ".ext")


def certified(name, authority="believed"):
    return ["--cert", os.path.join(work.name, name + ".pem"), "--cert-key", os.path.join(work.name, name + ".key"), "--ca", os.path.join(work.name, authority + ".pem")]


for authority in "believed", "unknown":
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", authority + ".key", "-out", authority + ".pem", "-days", "2", "-subj", "/CN=" + authority)
for name, authority, san in (("server", "believed", "IP:127.0.0.1"), ("client", "believed", "DNS:client"), ("stranger", "unknown", "IP:127.0.0.1"), ("elsewhere", "believed", "DNS:elsewhere")):
    certificate(name, authority, san)
certificate("serves", "believed", "IP:127.0.0.1", "extendedKeyUsage=serverAuth")
certificate("comes", "believed", "IP:127.0.0.1", "extendedKeyUsage=clientAuth")
certificate("expired", "believed", "IP:127.0.0.1", days=-1)
for words, what in ((certified("server")[:4], "no key"), (["--key", key] + certified("server"), "a key and certificates"), ([], "no key")):
    got = run("there", "listen", "0", *words)
    check("who listens needs one of both, whole", got.returncode == 64 and what in got.stderr, got.returncode, got.stderr)


def send_certified(who, authority, listens, child):
    p = subprocess.Popen([umbra, "listen", "0", *listens, "--folder", parcels, "--disks", disks], env=places["there"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    atexit.register(p.kill)
    sent = run("here", "fork", "one", "--to", "127.0.0.1:%d" % int(p.stdout.readline().split(":")[-1]), *certified(who, authority), "--name", child, "--wait", "5")
    p.kill()
    return sent


for left in os.listdir(disks):
    os.unlink(os.path.join(disks, left))
sent = send_certified("client", "believed", certified("server"), "certified")
check("with certificates it is sent", sent.returncode == 0 and "certified" in names("there"), sent.stderr)
run("there", "kill", "certified")
for what, who, authority, listens in (("a client of another authority", "stranger", "believed", certified("server")), ("a server of another authority", "client", "unknown", certified("server")),
                                      ("a server that is called otherwise", "client", "believed", certified("elsewhere")), ("a client with a server's", "serves", "believed", certified("server")),
                                      ("a server with a client's", "client", "believed", certified("comes")), ("a client whose time is over", "expired", "believed", certified("server")),
                                      ("a server whose time is over", "client", "believed", certified("expired"))):
    sent = send_certified(who, authority, listens, "nobody")
    check(what + " is not believed", sent.returncode == 65 and "believe" in sent.stderr and "nobody" not in names("there"), sent.returncode, sent.stderr)
sent = run("here", "fork", "one", "--to", "127.0.0.1:%d" % port, *certified("client"), "--name", "nobody", "--wait", "0")
check("one has a key and one certificates", sent.returncode == 65, sent.returncode, sent.stderr)

# ---- who fills the files is killed: what is left of them is removed by the next one ----

for left in os.listdir(disks):
    os.unlink(os.path.join(disks, left))
sender = Machine("gone", top, base)
sender.send_machine()
sender.serve()
for pid in fillers(parcels):
    os.kill(pid, 9)
until("its machine ends", lambda: "gone" not in names("there"))
check("it says why", "was lost" in log_of("gone"), log_of("gone"))
sender.end()


def comes_again():
    global again
    again = Machine("gone", top, base, ident=sender.ident)
    if again.answer != (0, ""):
        again.end()
    return again.answer == (0, "")


until("the same one comes again", comes_again)
for pid in fillers(parcels):
    os.kill(pid, 9)
again.end()
innocent = os.path.join(disks, "innocent")
open(innocent, "w").close()
parcel, = (f for f in os.listdir(disks) if f.startswith(".umbra-parcel-"))
with open(os.path.join(disks, parcel, "names"), "a") as f:
    f.write("innocent\n")
for left in os.listdir(disks):
    os.utime(os.path.join(disks, left), (1, 1))
for left in os.listdir(parcels):
    os.utime(os.path.join(parcels, left), (1, 1))
with socket.create_connection(("127.0.0.1", port)) as s:
    s.sendall(b"nobody")
until("nothing is left but its own file, and what it has not made", lambda: sorted(os.listdir(disks)) == ["gone.0.gone.vhdx", "innocent"] and not os.listdir(parcels))
check("one goes on here whatever happens there", one.poll() is None)
end_all()
sys.exit(failed)
