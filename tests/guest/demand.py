#!/usr/bin/env python3
"""demand.py UMBRA GUEST READER: a machine goes on from a file while its memory still comes: every page is looked at by its guest. With a pager that is stopped and goes on
at any moment; that is killed; whose file is damaged, or made shorter meanwhile; forked and saved before all is there; from files without an index, as older
ones are, and with one that lies; from one that is packed, and from some whose frames lie. What a guest only read while it was saved lies behind the first pass, and comes first. No page is ever zeros instead of what it was."""
import atexit, ctypes, json, os, re, shutil, signal, struct, subprocess, sys, tempfile, time
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c

umbra, guest, reader, failed = *(os.path.abspath(program) for program in sys.argv[1:4]), 0
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)
HEAD, SECTION = 128, struct.Struct("<4sIQII")


def check(what, good, *more):
    global failed
    if not good:
        print("demand:", what, *more)
        failed = 1
    return good


def path(name):
    return os.path.join(work.name, name)


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)


def said(name):
    try:
        with open(path(name + ".log"), errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def until(what, good):
    end = time.time() + 100
    while time.time() < end:
        if good():
            return True
        time.sleep(0.005)
    return check("waited in vain: " + what, False)


class Machine:
    def __init__(self, name, *words):
        self.name = name
        with open(path(name + ".log"), "wb") as log:
            self.process = subprocess.Popen([umbra, "run", "--name", name, *words], env=env, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
        atexit.register(self.process.kill)

    def helper(self, role):
        """Its process of this role; None."""
        try:
            with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as f:
                children = f.read().split()
        except OSError:
            return None
        for child in children:
            try:
                with open("/proc/%s/cmdline" % child, "rb") as f:
                    if f.read().split(b"\0")[1:2] == [b"--role=" + role]:
                        return int(child)
            except OSError:
                pass
        return None

    def pager(self):
        """None: all was there before somebody looked."""
        until("a pager of " + self.name, lambda: self.helper(b"pager") or "ROUND" in said(self.name) or self.process.poll() is not None)
        return self.helper(b"pager")

    def says(self, text):
        return until("%s says %s" % (self.name, text), lambda: text in said(self.name) or self.process.poll() is not None)

    def ends_well(self):
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        code = self.process.wait(100)
        check("%s ends well" % self.name, code == 1 and re.search(r"^1\.\.[1-9]", said(self.name), re.M) and not re.search(r"^not ok", said(self.name), re.M),
              code, said(self.name)[-300:])

    def ends_badly(self, code, text):
        got = self.process.wait(100)
        check("%s ends with %d and %s" % (self.name, code, text), got == code and text in said(self.name), got, said(self.name)[-300:])


def signal_to(pid, number):
    try:
        os.kill(pid, number)
        return True
    except (ProcessLookupError, TypeError):
        return False


def has_read_parts(machine):
    """Its machine process has read all but memory: it has threads by now, and the file is mapped no more."""
    try:
        process = machine.helper(b"machine")
        with open("/proc/%d/maps" % process) as f:
            return len(os.listdir("/proc/%d/task" % process)) > 1 and ".saved" not in f.read()
    except (OSError, TypeError):
        return False


def begun(name, file):
    """A machine, and its pager, which was seen in time."""
    machine = Machine(name, "--restore", file)
    return machine, machine.pager()


def stopped(name, file):
    """As begun(); the pager is stopped, with pages to bring left."""
    machine, pager = begun(name, file)
    while signal_to(pager, signal.SIGSTOP):
        if until("it is stopped", lambda: not os.path.exists("/proc/%d" % pager) or state_of(pager) in "TZX") and has_read_parts(machine):
            break
        signal_to(pager, signal.SIGCONT)
        time.sleep(0.001)
    return machine, pager if pager and state_of(pager) == "T" else None


def early(how, name, file):
    """On a busy host all may be there before anybody has looked: then another one. None as a pager: each time."""
    for _ in range(20):
        machine, pager = how(name, file)
        if pager:
            break
        machine.process.kill()
        machine.process.wait()
    return machine, pager


def state_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def sections(data):
    at = HEAD
    while at < len(data):
        name, version, size, _, _ = SECTION.unpack_from(data, at)
        yield at, name.decode(), size
        at += SECTION.size + (size + 7 & ~7)


def section(name, version, payload):
    head = struct.pack("<4sIQI", name.encode(), version, len(payload), crc32c(payload))
    return head + struct.pack("<I", crc32c(head)) + payload + b"\0" * (-len(payload) % 8)


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data)
    return path(name)


# ---- a machine, and a file of it ----

first = Machine("first", "--kernel", guest, "--cpus", "2", "--memory", "128M", "--debug-exit", "0xf4")
first.says("ROUND")
file = path("good.saved")
check("it is saved", run("save", "first", file).returncode == 0)
packed_file = path("packed.saved")
check("it is saved, and packed", run("save", "--compress", "first", packed_file).returncode == 0)
first.ends_well()
with open(file, "rb") as f:
    good = f.read()
parts = list(sections(good))
index = [(at, size) for at, name, size in parts if name == "INDX"]
owner = {}
for at, name, size in parts:
    if name == "PAGE":
        first = struct.unpack_from("<Q", good, at + SECTION.size)[0]
        owner.update((frame, at) for frame in range(first, first + size // 4096) if frame < 32768)
pages = sorted(set(owner.values()))  # those that count
check("it has an index", index and parts[-1][1] == "END " and parts[-1][2] == 40, parts[-3:])

whole = Machine("whole", "--restore", file)
whole.says("ROUND")
with open("/proc/%d/environ" % whole.process.pid, "rb") as f:
    check("its broker has no environment", not f.read().strip(b"\0"))
whole.ends_well()

# ---- what was used lately ----

LOOKED_AT, FILLED, FIRST = 4096, 12288, 0x4000000 >> 12  # as demand.c has them
used = Machine("used", "--kernel", reader, "--memory", "128M", "--debug-exit", "0xf4")
used.says("ROUND")
for way in [], ["--compress"]:
    check("it is saved", run("save", *way, "--replace", "used", path("used.saved")).returncode == 0)
    with open(path("used.saved"), "rb") as f:
        data = f.read()
    times = {}
    for at, name, size in sections(data):
        if name == "MACH":
            break
        if name == "PAGE":
            frame, count = struct.unpack_from("<QI", data, at + SECTION.size)
            packed = struct.unpack_from("<I", data, at + 4)[0] == 2
            for n in range(frame, frame + (count if packed else size // 4096)):
                times[n] = times.get(n, 0) + 1
    again = [n for n, count in times.items() if count > 1 and FIRST <= n < FIRST + FILLED]
    # each eighth is zeros, and is in no file before somebody has looked at it
    check("pages that it looked at lie behind the first pass", len(again) >= LOOKED_AT * 7 // 8, len(again), len(times))
    check("and others do not", max(again, default=0) < FIRST + LOOKED_AT, max(again, default=0) - FIRST)
    restored = Machine("restored", "--restore", path("used.saved"))
    restored.says("ROUND")
    restored.ends_well()
used.ends_well()

# ---- a pager that is stopped and goes on ----

stepped, pager = early(begun, "stepped", file)
check("a pager was seen", pager)
steps = 0
while signal_to(pager, signal.SIGSTOP):
    time.sleep(0.002)
    signal_to(pager, signal.SIGCONT)
    steps += 1
    time.sleep(0.001)
    if state_of(pager) in "ZX":
        break
stepped.says("ROUND")
stepped.ends_well()

# ---- one that is forked, and saved, before all is there ----

def shown(name):
    return next(m for m in json.loads(run("ps", "--tree", "--json").stdout) if m["name"] == name)


def may_have_large_pages(name):
    """Of all there is mapped in its process what is largest, and may be written, is RAM."""
    with open("/proc/%s/smaps" % json.loads(run("info", name, "--json").stdout)["process"]) as f:
        parts = re.findall(r"^[0-9a-f]+-[0-9a-f]+ rw-p .*?^Size: +(\d+) kB.*?^VmFlags:([^\n]*)", f.read(), re.M | re.S)
    return " nh" not in max(parts, key=lambda part: int(part[0]))[1]


machine, pager = early(stopped, "early", file)
if check("its pager is there", pager):
    check("what is to come is shown", 0 < shown("early").get("remote", 0) <= 128 << 20, shown("early"))
    check("of the tree, too", re.search(r"^early .* [0-9.]+ MiB *$", run("ps", "--tree").stdout, re.M), run("ps", "--tree").stdout)
forking = subprocess.Popen([umbra, "fork", "early", "--name", "child"], env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
signal_to(pager, signal.SIGCONT)
check("it is forked", forking.wait(100) == 0, forking.stderr.read())
check("what was forked may have large pages", may_have_large_pages("child"))
check("it is saved again", run("save", "early", path("again.saved")).returncode == 0)
check("nothing is to come any more", "remote" not in shown("early"), shown("early"))
machine.ends_well()
run("kill", "child")
again = Machine("again", "--restore", path("again.saved"))
again.says("ROUND")
again.ends_well()

# ---- what goes wrong: the machine ends, and says why ----

machine, pager = early(stopped, "killed", file)
if check("its pager is there", pager):
    os.kill(pager, signal.SIGKILL)
    machine.ends_badly(70, "the pager process")
short = path("short.saved")
shutil.copy(file, short)
machine, pager = early(stopped, "short", short)
if check("its pager is there", pager):
    os.truncate(short, 1 << 20)
    os.kill(pager, signal.SIGCONT)
    machine.ends_badly(65, "")  # it cannot be read to the end, or what was cut is no part of one
for name, at in ("begin", pages[0] + 40), ("middle", pages[len(pages) // 2] + 100), ("number", pages[5] + SECTION.size):
    data = bytearray(good)
    data[at] ^= 1
    Machine(name, "--restore", write(name + ".saved", data)).ends_badly(65, "is damaged")

# ---- other files ----

end = parts[-1][0]
count = struct.unpack_from("<Q", good, end + SECTION.size)[0] - len(index)
older = Machine("older", "--restore", write("older.saved", good[:index[0][0]] + section("END ", 1, struct.pack("<Q", count))))
older.says("ROUND")
check("one whose file has no index may have large pages", may_have_large_pages("older"))
older.ends_well()


def with_index(change):
    """The file with another index, whose checksums are right."""
    at, size = index[0]
    entries = bytearray(good[at + SECTION.size:at + SECTION.size + size])
    change(entries)
    data = section("INDX", 1, bytes(entries))
    return good[:at] + data + good[at + len(data):]


lies = {
    "beyond": lambda e: struct.pack_into("<Q", e, 0, 1 << 40),
    "nothing": lambda e: struct.pack_into("<I", e, 12, 0),
    "many": lambda e: struct.pack_into("<I", e, 12, 1 << 30),
    "backwards": lambda e: struct.pack_into("<Q", e, 16, 128),
    "elsewhere": lambda e: struct.pack_into("<I", e, 8, 1 << 31),
}
for name, lie in lies.items():  # it is not believed, and memory read whole
    machine = Machine(name, "--restore", write(name + ".saved", with_index(lie)))
    machine.says("ROUND")
    machine.ends_well()
lie = with_index(lambda e: struct.pack_into("<I", e, 8, 2))
Machine("another", "--restore", write("another.saved", lie)).ends_badly(65, "damaged")
payload = struct.unpack_from("<5Q", good, end + SECTION.size)
for name, numbers in ("parts", (payload[0], payload[1], 1 << 50, *payload[3:])), ("before", (payload[0], 1 << 50, *payload[2:])):
    machine = Machine(name, "--restore", write(name + ".saved", good[:end] + section("END ", 2, struct.pack("<5Q", *numbers))))
    machine.says("ROUND")
    machine.ends_well()

# ---- one that is packed ----

with open(packed_file, "rb") as f:
    packed = f.read()
check("it is less than a half", len(packed) < len(good) // 2, len(packed), len(good))
whole = Machine("packed", "--restore", packed_file)
whole.says("ROUND")
whole.ends_well()
machine, pager = early(stopped, "forked-packed", packed_file)
forking = subprocess.Popen([umbra, "fork", "forked-packed", "--name", "packed-child"], env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
signal_to(pager, signal.SIGCONT)
check("it is forked", forking.wait(100) == 0, forking.stderr.read())
machine.ends_well()
run("kill", "packed-child")

zstd = ctypes.CDLL("libzstd.so.1")
zstd.ZSTD_compress.restype = zstd.ZSTD_compressStream2.restype = zstd.ZSTD_compressBound.restype = ctypes.c_size_t
zstd.ZSTD_createCCtx.restype = ctypes.c_void_p


def frame(data, says_how_much=True):
    room = ctypes.create_string_buffer(len(data) + 4096)
    context = ctypes.c_void_p(zstd.ZSTD_createCCtx())
    zstd.ZSTD_CCtx_setParameter(context, 200, int(says_how_much))  # ZSTD_c_contentSizeFlag
    zstd.ZSTD_compress2.restype = ctypes.c_size_t
    size = zstd.ZSTD_compress2(context, room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)))
    zstd.ZSTD_freeCCtx(context)
    return room.raw[:size]


PACKED = struct.Struct("<QIIII")
parts = list(sections(packed))
# the first section, over which anything can be written that is no longer
at, _, size = next(p for p in parts if p[1] == "PAGE" and struct.unpack_from("<I", packed, p[0] + 4)[0] == 2 and p[2] > 1000)
first, count, crc, bytes_of, zero = PACKED.unpack_from(packed, at + SECTION.size)
check("its head is right", bytes_of == size - PACKED.size and not zero and 0 < count <= 256)


def with_section(what, **more):
    """The file with another section there, whose own checksums are right."""
    fields = dict(first=first, pages=count, crc=crc, bytes=len(what), zero=0)
    fields.update(more)
    payload = PACKED.pack(*fields.values()) + what
    assert len(payload) <= size, len(payload)
    data = section("PAGE", 2, payload).ljust(SECTION.size + (size + 7 & ~7), b"\0")
    return packed[:at] + data + packed[at + len(data):]


plain = b"\0" * (count * 4096)
lies = {
    "one byte more": with_section(frame(plain + b"\0"), crc=crc32c(plain)),
    "one byte less": with_section(frame(plain[1:]), crc=crc32c(plain)),
    "a hundred times as much": with_section(frame(plain * 100), crc=crc32c(plain)),
    "a frame that does not say how much": with_section(frame(plain, False), crc=crc32c(plain)),
    "two frames": with_section(frame(plain[4096:]) + frame(plain[:4096]), crc=crc32c(plain)),
    "something behind the frame": with_section(frame(plain) + b"\0", crc=crc32c(plain)),
    "half a frame": with_section(frame(plain)[:-3], crc=crc32c(plain)),
    "no frame": with_section(b"x" * 100),
    "another checksum": with_section(frame(plain), crc=crc32c(plain) ^ 1),
    "more bytes than there are": with_section(frame(plain), crc=crc32c(plain), bytes=1 << 31),
    "no pages": with_section(frame(b""), pages=0, crc=0),
    "too many pages": with_section(frame(plain), pages=1 << 31, crc=crc32c(plain)),
    "another page": with_section(frame(plain), first=first + 1, crc=crc32c(plain)),
    "something reserved": with_section(frame(plain), crc=crc32c(plain), zero=1),
}
index_at, _, index_size = next(p for p in parts if p[1] == "INDX")
for n, (what, data) in enumerate(lies.items()):
    Machine("bomb%d" % n, "--restore", write("bomb%d.saved" % n, data)).ends_badly(65, "is damaged")
    # the same with nobody to bring it: the machine process reads it itself
    if what != "another page" and n % 4 == 0:
        end = section("END ", 1, struct.pack("<Q", sum(p[1] != "INDX" for p in parts) - 1))
        Machine("alone%d" % n, "--restore", write("alone%d.saved" % n, data[:index_at] + end)).ends_badly(65, "damaged")
for name, where, value in ("too-long", 14, 0xffff), ("too-short", 14, 1):  # words of an entry: the index is not believed
    data = bytearray(packed)
    struct.pack_into("<H", data, index_at + SECTION.size + where, value)
    entries = bytes(data[index_at + SECTION.size:index_at + SECTION.size + index_size])
    data[index_at:index_at + SECTION.size + len(entries)] = section("INDX", 2, entries)[:SECTION.size + len(entries)]
    machine = Machine(name, "--restore", write(name + ".saved", bytes(data)))
    machine.says("ROUND")
    machine.ends_well()
sys.exit(failed)
