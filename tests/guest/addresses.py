#!/usr/bin/env python3
"""No host address is in anything that a guest can see, or in a file in which its machine is saved. A guest is run to its end, where it
halts; then all its memory (what it stored of its registers, XSAVE areas, pages of hypercalls, rings, messages, the tables of the
firmware) and the saved file are searched for numbers that are addresses within what the machine process or its broker has mapped.
The search itself is tried on an address that is there.
usage: addresses.py UMBRA GUEST [OPTION...]; with --disk, and the guest then has a bus and is not saved"""
import array, os, re, select, signal, struct, subprocess, sys, tempfile, time

umbra, name, options = sys.argv[1], sys.argv[2], sys.argv[3:]
guest = os.path.join(os.environ.get("BUILD", "build"), "tests/guest/guest-" + name)
MEMORY_MIB, LONGEST, WORD, PAGE = 64, 60, 8, 4096
LOW_HALF = (1 << 32) - 1 # all zero: two small numbers beside each other
LOWEST = 1 << 32 # below it a process that is position independent has nothing


def mappings(pid):
    """[first, end) and name of what a process has, without the kernel's own."""
    with open(f"/proc/{pid}/maps") as f:
        lines = f.read().splitlines()
    rows = [(*(int(word, 16) for word in re.match(r"(\w+)-(\w+)", line).groups()), " ".join(line.split()[5:])) for line in lines]
    return [row for row in rows if LOWEST <= row[0] < 1 << 47]


def processes(leader):
    return [int(pid) for pid in subprocess.run(["pgrep", "-g", str(leader)], capture_output=True, text=True).stdout.split()]


def read(pid, first, end):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(first)
        return memory.read(end - first)


def addresses_in(data, ranges):
    """(offset, value, name) of each word of `data`, at whatever offset in steps of four bytes, that is an address within one of ranges."""
    found, zeros = [], bytes(PAGE)
    for page in range(0, len(data), PAGE):
        if data[page:page + PAGE] == zeros[:len(data) - page]:
            continue
        for at in (page, page + WORD // 2): # a word may lie across two pages
            part = data[at:at + PAGE]
            for n, word in enumerate(array.array("Q", part[:len(part) // WORD * WORD])):
                if LOWEST <= word < 1 << 47 and word & LOW_HALF:
                    found += [(at + n * WORD, word, label) for first, end, label in ranges if first <= word < end]
    return found


def guest_memory(pid):
    """The bytes of the guest's memory: the one private mapping of its size."""
    for first, end, _ in mappings(pid):
        if MEMORY_MIB << 20 <= end - first < (MEMORY_MIB << 20) + (8 << 20):
            return b"".join(pages(pid, first, end))
    raise SystemExit("addresses: no guest memory found")


def pages(pid, first, end):
    """What can be read of it: at both ends is something that nobody may access."""
    step = 1 << 20
    for at in range(first, end, step):
        try:
            yield read(pid, at, min(at + step, end))
        except OSError:
            continue


def without_clock(data):
    """A saved file whose host's time stamp counter is zero: on a host that has run for some hours that may be the number of an address."""
    at, head = 128, struct.Struct("<4sIQII")
    while at + head.size <= len(data):
        section, _, length, _, _ = head.unpack_from(data, at)
        at += head.size
        if section == b"MACH":
            return data[:at + WORD] + bytes(WORD) + data[at + 2 * WORD:]
        at += length
    raise SystemExit("addresses: the saved file has no part of the machine's")


with open(guest, "rb") as f:
    image = f.read() # numbers in it, as its code has, are its own
folder = tempfile.TemporaryDirectory()
os.environ["XDG_RUNTIME_DIR"] = folder.name
if "--disk" in options:
    disk = os.path.join(folder.name, "disk.vhdx")
    subprocess.run([umbra, "disk", "create", disk, "--size", "64M"], check=True, stdout=subprocess.DEVNULL)
    options[options.index("--disk") + 1:options.index("--disk") + 1] = [disk]
p = subprocess.Popen([umbra, "run", "--kernel", guest, "--memory", f"{MEMORY_MIB}M", "--console", "raw", "--name", "seen"] + options,
                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0)
said, end = b"", time.monotonic() + LONGEST
while not re.search(rb"^1\.\.\d+", said, re.M):
    if time.monotonic() > end or not select.select([p.stdout], [], [], LONGEST)[0]:
        os.killpg(p.pid, signal.SIGKILL)
        raise SystemExit(f"addresses: {name} came to no end: {said[-300:]}")
    said += os.read(p.stdout.fileno(), 4096)
ranges, machine = [], None
for pid in processes(p.pid):
    rows = mappings(pid)
    ranges += rows
    if any("umbra-code" in label for _, _, label in rows):
        machine = pid
places = {"guest memory": guest_memory(machine)}
if "--disk" not in options:
    saved = os.path.join(folder.name, "saved")
    done = subprocess.run([umbra, "save", "seen", saved], capture_output=True, text=True)
    if done.returncode:
        os.killpg(p.pid, signal.SIGKILL)
        raise SystemExit(f"addresses: not saved: {done.stdout}{done.stderr}")
    with open(saved, "rb") as f:
        places["saved file"] = without_clock(f.read())
os.kill(p.pid, signal.SIGTERM)
p.wait(LONGEST)
failed = False
for place, data in places.items():
    found = [row for row in addresses_in(data, ranges) if row[1].to_bytes(WORD, "little") not in image]
    print(f"{name}: {len(found)} host addresses in {len(data) >> 10} KiB of {place}")
    for offset, word, label in found[:10]:
        print(f"  at {offset:#x}: {word:#x}, of {label}")
    failed |= bool(found) or not data
# and the search finds what is there
first, _, label = ranges[0]
failed |= len(addresses_in(b"\0" * 4 + (first + 1).to_bytes(WORD, "little") + b"\0" * 12, [ranges[0]])) != 1
sys.exit(failed)
