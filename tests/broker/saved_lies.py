#!/usr/bin/env python3
"""saved_lies.py UMBRA: umbra save of machines whose processes lie. Whether there is a bus the broker says, and a file whose head says anything else, or that
nobody can read, is none; what a machine process puts behind its machine is not believed. And: one that does not end keeps the layers that it goes on in."""
import json, os, shutil, socket, struct, subprocess, sys, tempfile, threading
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c

umbra = os.path.abspath(sys.argv[1])
work = tempfile.mkdtemp()
os.environ["XDG_RUNTIME_DIR"] = work
os.mkdir(work + "/umbra", 0o700)
failed = []
MEMORY = 64 << 20
LIE = b'{"disks":[{"file":"/etc/passwd","stem":"x","format":"raw","read-only":true,"direct":false,"identity":{}}]}'

def head(version, memory=MEMORY):
    fields = struct.pack("<8sIIQQQIH", b"UMBRASAV", version, 128, memory, 0, 2000000000, 1, 0)
    if version == 2:
        fields += struct.pack("<HQ", 0, MEMORY)
    fields = fields.ljust(124, b"\0")
    return fields + struct.pack("<I", crc32c(fields))

def with_foot(machine):
    zeros = -len(machine) % 4096
    return machine + bytes(zeros) + LIE + struct.pack("<8sIIQQ", b"UMBRAHST", 1, crc32c(LIE), len(machine), len(LIE))

class Machine:
    """Its broker's end, and what its process says in a save."""
    def __init__(self, name, info, data, ends=True):
        self.info, self.data, self.ends, self.name = dict(info, name=name, memory=MEMORY), data, ends, name
        self.path = work + "/umbra/" + name
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(4)
        self.open = True
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while self.open:
            line, _ = self.listener.accept()
            self.talk(line)
            line.close()
        self.listener.close()

    def talk(self, line):
        stops, text = 0, b""
        while True:
            part, fds, _, _ = socket.recv_fds(line, 65536, 4)
            for fd in fds:
                os.close(fd)
            if not part:
                return
            text += part
            while b"\n" in text:
                one, text = text.split(b"\n", 1)
                asked = json.loads(one)
                if asked["do"] == "info":
                    line.sendall(json.dumps({"id": 1, "ok": True, "machine": self.info}).encode() + b"\n")
                elif asked["do"] == "save":
                    line.sendall(b'{"id":1,"data":%d}\n' % len(self.data) + self.data + b'{"id":1,"ok":true}\n')
                elif asked["do"] == "layer":
                    self.info["disks"][asked["disk"]]["file"] = asked["file"]
                    line.sendall(b'{"id":1,"ok":true}\n')
                elif asked["do"] == "stop" and not self.ends:
                    return  # the line ends, and nothing else
                else:
                    line.sendall(b'{"id":1,"ok":true}\n')
                stops += asked["do"] == "stop"
                if stops == 2:
                    self.open = False
                    self.listener.close()
                    return

def save(machine, *options):
    path = "%s/%s.saved" % (work, machine.name)
    done = subprocess.run([umbra, "save", *options, machine.name, path], capture_output=True, text=True, timeout=120)
    return done.returncode, open(path, "rb").read() if os.path.exists(path) else None, done.stderr

def expect(what, good, *more):
    print("ok  " if good else "FAIL", what, *([] if good else more))
    if not good:
        failed.append(what)

def refused(what, bus, data):
    code, file, said = save(Machine("m%d" % len(os.listdir(work + "/umbra")), {"bus": bus}, data))
    expect(what, code == 65 and file is None and "not this machine" in said, code, said)

refused("a head that this host cannot read", True, with_foot(head(2, 1 << 60)))
refused("no head at all", True, with_foot(bytes(128)))
refused("less than a head", True, b"UMBRASAV")
refused("a machine with a bus that says it has none", True, with_foot(head(1)))
refused("one without that says it has one", False, with_foot(head(2)))
code, file, said = save(Machine("bus", {"bus": True}, with_foot(head(2))))
expect("behind what a machine says the host's side comes", code == 0 and LIE not in file[-4096:], code, said)
if file:
    magic, version, crc, machine_bytes, host_bytes = struct.unpack("<8sIIQQ", file[-32:])
    host = file[-32 - host_bytes:-32]
    expect("all of which is of a machine without disks", magic == b"UMBRAHST" and machine_bytes == len(with_foot(head(2))) and
           json.loads(host)["disks"] == [], host)
code, file, said = save(Machine("plain", {"bus": False}, head(1)))
expect("nothing comes behind one without a bus", code == 0 and file == head(1), code, said)

def packed(what, data):
    """What umbra save --compress takes apart it does not believe, either."""
    code, file, said = save(Machine("p%d" % len(os.listdir(work + "/umbra")), {"bus": False}, data), "--compress")
    expect(what, code == 65 and file is None, code, said)

def section(name, version, payload, size=None):
    fields = struct.pack("<4sIQI", name, version, len(payload) if size is None else size, crc32c(payload))
    return fields + struct.pack("<I", crc32c(fields)) + payload + bytes(-len(payload) % 8)

PAGES = section(b"PAGE", 1, struct.pack("<Q", 7) + bytes(8192))
END = lambda *numbers: section(b"END ", 2, struct.pack("<5Q", *numbers))
INDEX = lambda at, first=7, pages=2: section(b"INDX", 1, struct.pack("<QII", at, first, pages))
MACH = section(b"MACH", 2, bytes(64))
at = 128 + len(PAGES)
good = head(1) + PAGES + MACH + INDEX(128) + END(3, 1, at, at + len(MACH), 0)
code, file, said = save(Machine("packs", {"bus": False}, good), "--compress")
expect("what a machine says is packed", code == 0 and file and len(file) < 1000, code, said)
packed("nothing at all", b"")
packed("only a head", head(1))
packed("no end", good[:-64])
packed("something behind the end", good + bytes(8))
packed("a section of terabytes", head(1) + section(b"PAGE", 1, b"", 1 << 40))
packed("pages that are packed already", head(1) + section(b"PAGE", 2, bytes(64)))
packed("half a page", head(1) + section(b"PAGE", 1, bytes(8 + 100)))
packed("a wrong checksum", bytearray(good[:200]) + b"x" + good[201:])
packed("an index of what did not come", head(1) + PAGES + MACH + INDEX(136) + END(3, 1, at, at + len(MACH), 0))
packed("another page in the index", head(1) + PAGES + MACH + INDEX(128, 8) + END(3, 1, at, at + len(MACH), 0))
packed("more in the index than came", head(1) + MACH + INDEX(128) + END(2, 0, 128, 128 + len(MACH), 0))
packed("an end that says something else", head(1) + PAGES + MACH + INDEX(128) + END(3, 1, at + 8, at + len(MACH), 0))

def with_disk(name, ends):
    disk = "%s/%s.vhdx" % (work, name)
    subprocess.run([umbra, "disk", "create", disk, "--size", "4M"], check=True, stdout=subprocess.DEVNULL)
    info = {"bus": True, "disks": [{"file": disk, "stem": disk, "format": "vhdx", "read-only": False, "direct": False}]}
    code, file, said = save(Machine(name, info, head(2), ends), "--stop")
    return code, file, said, os.path.exists("%s/%s.%s.vhdx" % (work, name, name))

code, file, said, has_layer = with_disk("ends", True)
expect("one that ends leaves no layers", code == 0 and file and not has_layer, code, said)
code, file, said, has_layer = with_disk("stays", False)
expect("one that goes on keeps them, and that is said", code == 65 and file and has_layer and "has not ended" in said, code, said, has_layer)

# ---- what a disk is known by: every file of it, and of what it is made on ----
def restore(name):
    return subprocess.run([umbra, "run", "--restore", "%s/%s.saved" % (work, name), "--name", "again"], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120).stderr

def with_cards(name, *cards):
    host = json.dumps({"disks": [], "cards": cards}).encode()
    machine = head(2)
    with open("%s/%s.saved" % (work, name), "wb") as f:
        f.write(machine + bytes(-len(machine) % 4096) + host + struct.pack("<8sIIQQ", b"UMBRAHST", 1, crc32c(host), len(machine), len(host)))
    return restore(name)

for what, kind, network in (("a tap behind a kind", "tap=lies,mac", "02:00:00:00:00:01"), ("a descriptor behind a kind", "tap=fd:1,mac", "02:00:00:00:00:01"),
                            ("the host's loopback behind a kind", "user,host-loopback,mac", "02:00:00:00:00:01"), ("an address behind a name", "switch", "lies,mac=02:00:00:00:00:01"),
                            ("no kind", "", "")):
    said = with_cards("cards", {"kind": kind, "name": network, "mac": "02:00:00:00:00:02", "host-loopback": False})
    expect(what + " is none", "what it says of its cards is wrong" in said, said)

def known_by(name, form, path, other):
    info = {"bus": True, "disks": [{"file": path, "stem": path, "format": form, "read-only": True, "direct": False}]}
    code, file, said = save(Machine(name, info, head(2)))
    expect("a machine with a %s file is saved" % form, code == 0, said)
    changed = "not what it was when the machine was saved"
    said = restore(name)
    expect("and as long as nothing is changed that is its disk", said and changed not in said and "No such file" not in said, said)
    os.utime(other, (1, 1))
    said = restore(name)
    expect("until another file of it is", changed in said, said)

with open(work + "/flat", "wb") as flat:
    flat.truncate(1 << 20)
with open(work + "/disk.vmdk", "w") as descriptor:
    descriptor.write('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2048 FLAT "flat" 0\n')
known_by("vmdk", "vmdk", work + "/disk.vmdk", work + "/flat")
subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", work + "/base.qcow2", "1M"], check=True)
subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", work + "/base.qcow2", "-F", "qcow2", work + "/top.qcow2"], check=True)
known_by("qcow2", "qcow2", work + "/top.qcow2", work + "/base.qcow2")
shutil.rmtree(work)
sys.exit(bool(failed))
