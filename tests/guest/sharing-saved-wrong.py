#!/usr/bin/env python3
"""sharing-saved-wrong.py: files of saved machines with ports, that lie. Kinds of ports, which ones there are, and what is under way with a served disk: each lie
is refused with 65 and a reason, by the process that reads it or the one that makes the machine; and the file that says the truth goes on."""
import os, signal, struct, subprocess, sys, tempfile, time
sys.path.append("tests")
from crc32c import crc32c

umbra = os.path.abspath(os.environ.get("UMBRA", "build/umbra"))
guest = os.path.join(os.path.dirname(umbra), "tests/guest/guest-share-disk")
work = tempfile.mkdtemp()
os.environ["XDG_RUNTIME_DIR"] = work
os.environ["XDG_CONFIG_HOME"] = work + "/config"
os.makedirs(work + "/config/umbra")
open(work + "/config/umbra/share.rules", "w").write("allow store offer,pass store/*\nallow web see,open,lend store/*\nallow web pass store/* requests 10\n")
failed, machines = [], []
HEAD, PORTS, KNOWN, NUMBERS, PENDING, PENDING_HEAD = 128, 57, 4, 53, 70, 27
PATIENCE_S = 60

def start(name, *options):
    with open("%s/%s.log" % (work, name), "wb") as log:
        machines.append(subprocess.Popen([umbra, "run", "--name", name, "--kernel", guest, "--memory", "64M", "--debug-exit", "0xf4", *options],
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log))

def expect(what, good, *more):
    print("ok  " if good else "FAIL", what, *([] if good else more))
    if not good:
        failed.append(what)

class File:
    """A saved machine: its head, its sections, and what comes behind it. Sections are (name, version, payload)."""
    def __init__(self, data):
        self.head, self.sections = bytearray(data[:HEAD]), []
        foot = struct.unpack("<8sIIQQ", data[-32:])
        self.host = data[-32 - foot[4]:-32] if foot[0] == b"UMBRAHST" else None
        end = foot[3] if self.host is not None else len(data)
        at = HEAD
        while at < end:
            name, version, size, _, _ = struct.unpack_from("<4sIQII", data, at)
            self.sections.append([name, version, bytearray(data[at + 24:at + 24 + size])])
            at += 24 + size + -size % 8

    def bytes(self):
        self.head[124:] = struct.pack("<I", crc32c(bytes(self.head[:124])))
        out = bytearray(self.head)
        for name, version, payload in self.sections:
            if name == b"INDX":
                continue
            if name == b"END ":
                # without an index all of it is read before the machine runs
                payload = struct.pack("<5Q", sum(s[0] not in (b"INDX", b"END ") for s in self.sections), 0, 0, 0, 0)
            fields = struct.pack("<4sIQI", name, version, len(payload), crc32c(bytes(payload)))
            out += fields + struct.pack("<I", crc32c(fields)) + payload + bytes(-len(payload) % 8)
        if self.host is None:
            return bytes(out)
        machine = len(out)
        out += bytes(-machine % 4096) + self.host
        return bytes(out + struct.pack("<8sIIQQ", b"UMBRAHST", 1, crc32c(self.host), machine, len(self.host)))

    def part(self, name):
        return next(s[2] for s in self.sections if s[0] == name)

def restore(data, *options):
    path = work + "/lie.saved"
    open(path, "wb").write(data)
    done = subprocess.run([umbra, "run", "--restore", path, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.returncode, done.stderr

def refused(what, change, *options):
    file = File(truth)
    change(file)
    code, said = restore(file.bytes(), *options)
    expect(what, code == 65 and "lie.saved" in said, code, said)

def pendings(part):
    """Where each that is pending begins in the disk's part."""
    found, at = [], PENDING
    for _ in range(4):
        if part[at]:
            found.append(at)
            kind, size = struct.unpack_from("<H8xQ", part, at + 9)
            at += PENDING_HEAD - 1 + (size if kind == 1 else 0)
        at += 1
    return found

def set_head(*kinds):
    def change(file):
        file.head[PORTS:PORTS + 2] = bytes(kinds)
    return change

def set_part(name, at, form, *values):
    return lambda file: struct.pack_into(form, file.part(name), at, *values)

def drop(name):
    def change(file):
        file.sections = [s for s in file.sections if s[0] != name]
    return change

def twice(file):
    file.sections.insert(1, next(s for s in file.sections if s[0] == b"PDSK"))

def cut(file):
    del file.part(b"PDSK")[-1:]

def set_pending(index, offset, form, *values):
    def change(file):
        part = file.part(b"PDSK")
        struct.pack_into(form, part, pendings(part)[index] + offset, *values)
    return change

def same_number(file):
    part = file.part(b"PDSK")
    first, second = pendings(part)[:2]
    part[second + 1:second + 9] = part[first + 1:first + 9]

def not_pending(file):
    """The controller waits for it, and nobody has it."""
    part = file.part(b"PDSK")
    at = pendings(part)[-1]
    kind, size = struct.unpack_from("<H8xQ", part, at + 9)
    part[at:at + PENDING_HEAD + (size if kind == 1 else 0)] = b"\0"

try:
    start("store", "--serve", "shelf=disk")
    start("web", "--bind", "store/shelf=disk")
    for _ in range(3 * PATIENCE_S):
        time.sleep(0.3)
        shown = subprocess.run([umbra, "bus", "web"], capture_output=True, text=True).stdout
        if "open with store, " in shown and int(shown.split("open with store, ")[1].split()[0]) > 30:
            break
    # how many are under way is the moment's
    for _ in range(PATIENCE_S):
        done = subprocess.run([umbra, "save", "web", work + "/web.saved"], capture_output=True, text=True)
        if done.returncode:
            break
        with open(work + "/web.saved", "rb") as saved:
            truth = saved.read()
        os.unlink(work + "/web.saved")
        part = File(truth).part(b"PDSK")
        if len(pendings(part)) > 1:
            break
        time.sleep(0.1)
    expect("a machine with a port is saved", done.returncode == 0, done.stderr)
    subprocess.run([umbra, "kill", "web"], check=True)
    expect("with requests under way", len(pendings(part)) > 1, len(pendings(part)))
    refused("a kind of port that nobody knows", set_head(9, 0))
    refused("a second port without a first", set_head(0, 4))
    refused("no port", set_head(0, 0))
    refused("one more port", set_head(4, 4))
    refused("a port of another class", set_head(2, 0))
    refused("the other end of a port", set_head(3, 0))
    refused("no part of it", drop(b"PDSK"))
    refused("its part twice", twice)
    refused("a part of another number", set_part(b"PDSK", 0, "<I", 1))
    refused("a part of a port that is not there", set_part(b"PDSK", 0, "<I", 7))
    refused("one that is cut off", cut)
    refused("a disk of no sectors", set_part(b"PDSK", 21, "<I", 0))
    refused("a disk of no size", set_part(b"PDSK", 13, "<Q", 0))
    refused("a disk of a version to come", set_part(b"PDSK", 5, "<I", 0x20000))
    refused("numbers below those that are pending", set_part(b"PDSK", NUMBERS, "<Q", 1))
    refused("old numbers behind the last one", set_part(b"PDSK", NUMBERS + 8, "<Q", 1 << 60))
    refused("no disk, and requests of it", set_part(b"PDSK", KNOWN, "<B", 0))
    refused("one number twice", same_number)
    refused("the number 0", set_pending(0, 1, "<Q", 0))
    refused("an act that there is not", set_pending(0, 9, "<H", 4))
    refused("a place behind the disk", set_pending(0, 11, "<Q", 1 << 40))
    refused("more than a slot has", set_pending(-1, 9, "<HQQ", 0, 0, 1 << 20))
    refused("a request that nobody has", not_pending)
    code, said = restore(File(truth).bytes())
    expect("the truth goes on, where nobody serves", code != 65, code, said)
finally:
    for machine in machines:
        machine.send_signal(signal.SIGTERM)
    for machine in machines:
        machine.wait()
    subprocess.run(["rm", "-rf", work])
sys.exit(1 if failed else 0)
