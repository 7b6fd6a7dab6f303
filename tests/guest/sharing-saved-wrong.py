#!/usr/bin/env python3
"""sharing-saved-wrong.py: files of saved machines with ports, that lie. Kinds of ports, which ones there are, and what is under way with a served disk: each lie
is refused with 65 and a reason, by the process that reads it or the one that makes the machine; and the file that says the truth goes on."""
import os, struct, subprocess, sys, time
from sharing_hosts import begin, bus, end, env, fail, run, umbra, wait_for, where
sys.path.append("tests")
from crc32c import crc32c

HOST = "here"
RULES = {HOST: "allow store offer,pass store/*\nallow web see,open,lend store/*\nallow web pass store/* requests 10\n"}
HEAD, PORTS, KNOWN, NUMBERS, PENDING, PENDING_HEAD = 128, 57, 4, 53, 70, 27
SAVES = 60


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
    path = where.name + "/lie.saved"
    open(path, "wb").write(data)
    done = subprocess.run([umbra, "run", "--restore", path, *options], env=env(HOST), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stderr


def refused(truth, what, change):
    file = File(truth)
    change(file)
    code, words = restore(file.bytes())
    if code != 65 or "lie.saved" not in words:
        fail(f"{what}: {code}, {words}")


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


LIES = (
    ("a kind of port that nobody knows", set_head(9, 0)),
    ("a second port without a first", set_head(0, 4)),
    ("no port", set_head(0, 0)),
    ("one more port", set_head(4, 4)),
    ("a port of another class", set_head(2, 0)),
    ("the other end of a port", set_head(3, 0)),
    ("no part of it", drop(b"PDSK")),
    ("its part twice", twice),
    ("a part of another number", set_part(b"PDSK", 0, "<I", 1)),
    ("a part of a port that is not there", set_part(b"PDSK", 0, "<I", 7)),
    ("one that is cut off", cut),
    ("a disk of no sectors", set_part(b"PDSK", 21, "<I", 0)),
    ("a disk of no size", set_part(b"PDSK", 13, "<Q", 0)),
    ("a disk of a version to come", set_part(b"PDSK", 5, "<I", 0x20000)),
    ("numbers below those that are pending", set_part(b"PDSK", NUMBERS, "<Q", 1)),
    ("old numbers behind the last one", set_part(b"PDSK", NUMBERS + 8, "<Q", 1 << 60)),
    ("no disk, and requests of it", set_part(b"PDSK", KNOWN, "<B", 0)),
    ("one number twice", same_number),
    ("the number 0", set_pending(0, 1, "<Q", 0)),
    ("an act that there is not", set_pending(0, 9, "<H", 4)),
    ("a place behind the disk", set_pending(0, 11, "<Q", 1 << 40)),
    ("more than a slot has", set_pending(-1, 9, "<HQQ", 0, 0, 1 << 20)),
    ("a request that nobody has", not_pending),
)


def moved():
    """Packets of web's."""
    shown = bus(HOST, "web")
    return int(shown.split("open with store, ")[1].split()[0]) if "open with store, " in shown else 0


def save():
    path = where.name + "/web.saved"
    done = subprocess.run([umbra, "save", "web", path], env=env(HOST), capture_output=True, text=True)
    if done.returncode:
        fail(f"a machine with a port is not saved: {done.stderr}")
    with open(path, "rb") as saved:
        truth = saved.read()
    os.unlink(path)
    return truth


def save_under_way():
    """How many requests are under way is the moment's: two at least."""
    for _ in range(SAVES):
        truth = save()
        if len(pendings(File(truth).part(b"PDSK"))) > 1:
            return truth
        time.sleep(0.1)
    fail("no two requests are under way")


def main():
    begin(RULES)
    run(HOST, "store", "share-disk", "--serve", "shelf=disk")
    web = run(HOST, "web", "share-disk", "--bind", "store/shelf=disk")
    wait_for("requests pass", lambda: moved() > 30)
    truth = save_under_way()
    web.kill()
    web.wait()
    for what, change in LIES:
        refused(truth, what, change)
    code, words = restore(File(truth).bytes())
    if code == 65:
        fail(f"the truth does not go on, where nobody serves: {words}")
    print(f"{len(LIES)} lies are refused, the truth is not")


try:
    main()
finally:
    end()
