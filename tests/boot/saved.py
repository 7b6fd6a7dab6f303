#!/usr/bin/env python3
"""saved.py UMBRA [MUTATIONS [SEED]]: Linux is saved at random moments from its first instruction on; each file goes on to the same end.
Then files that lie: damaged, cut, of unknown versions, and with values changed under right checksums. A machine made from such a file may
be refused (65), crash (75), or run; umbra itself never fails (70, a signal), and says one line."""
import os, random, re, struct, subprocess, sys, tempfile, time
from saved_sections import HEAD, SECTION, changed_value, crc32c, seal, seal_head, sections

umbra, mutations = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60
seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
# a few of everything in the check; soak-saved-linux has the rest
saves, changed_bits = (6, 10) if mutations > 20 else (4, 5)
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
subprocess.run(["tools/fetch-guest", "tests/boot/work.init", "build/guest/work.cpio.gz", "tests/boot/thirty-two.S"], check=True)
rng = random.Random(seed)
failures = 0

LOOPS = 20000

def fail(what):
    global failures
    failures += 1
    print("saved:", what)

# ---- Linux ----

BUSY_SECONDS = 200 # what a busy host may need for what a quiet one does in two

def run(*arguments, timeout=BUSY_SECONDS):
    return subprocess.run([umbra, "run", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)

def lines(output):
    """What the guest's programs said: without the kernel's lines."""
    text = re.sub(rb"\[ *\d+\.\d+\][^\n]*", b"", output.replace(b"\r", b""))
    return [l for l in text.decode(errors="replace").split("\n") if l.strip()]

def linux(cpus, saves, where, loops):
    name = "linux-%d-%d" % (os.getpid(), cpus)
    files = []
    said_in = os.path.join(where, "linux-%d-said" % cpus)
    output = open(said_in, "wb")
    p = subprocess.Popen([umbra, "run", "--no-bus", "--name", name, "--cpus", str(cpus), "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/work.cpio.gz",
                          "--append", "console=ttyS0 umbra.loops=%d" % loops], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    output.close()

    def so_far():
        with open(said_in, "rb") as f:
            return f.read()
    for n in range(saves):
        path = os.path.join(where, "linux-%d-%d" % (cpus, n))
        for _ in range(200):
            s = subprocess.run([umbra, "save", "--replace", *["--compress"][:(n + 1) % 2], name, path], capture_output=True)
            if s.returncode == 0 or p.poll() is not None:
                break
            time.sleep(0.002)
        time.sleep(rng.random() * (0.08 if n < saves // 2 else 0.4))
        if s.returncode == 0:
            # a machine that was saved after its last line has none left to say; the line may have been on its way to the file
            files.append((path, b"WORK DONE" in so_far()))
    try:
        p.wait(timeout=BUSY_SECONDS)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
    said_by_kernel = re.findall(rb"\[ *\d+\.\d+\][^\r\n]*", so_far())
    whole = lines(so_far())
    if p.returncode or not whole or "WORK DONE" not in whole[-1]:
        fail("the machine that was saved ended with %d: %s" % (p.returncode, whole[-3:]))
    for path, all_said in files:
        child = run("--restore", path)
        said = lines(child.stdout)
        # the first line may be the rest of one, of the guest's programs or of the kernel
        rest = whole[-len(said):] if said else []
        same = all_said if not said else rest[1:] == said[1:] and rest[0].endswith(said[0])
        if said and not same:
            same = whole[1 - len(said):] == said[1:] and any(k.decode(errors="replace").endswith(said[0]) for k in said_by_kernel)
        if child.returncode or not same:
            fail("%s ended with %d and said %s, not %s" % (path, child.returncode, said, whole[-len(said):]))
    return [path for path, _ in files]

# ---- files that lie ----

PIECE = 1 << 20
written = {} # path: what is in that file

def put(path, data):
    """Makes the file so. Of tens of megabytes a lie changes a few bytes: no piece is written that is there already."""
    before = written.get(path, b"")
    with open(path, "r+b" if path in written else "wb") as f:
        for at in range(0, len(data), PIECE):
            piece = data[at:at + PIECE]
            if piece != before[at:at + PIECE]:
                f.seek(at)
                f.write(piece)
        f.truncate(len(data))
    written[path] = data

def outcome(data, where, what, want, seconds=1):
    """How a machine that is made from `data` ends, when it may run for so long before it is told to end."""
    path = os.path.join(where, "lie")
    put(path, data)
    p = subprocess.Popen([umbra, "run", "--restore", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        err = p.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        p.terminate()
        err = p.communicate(timeout=BUSY_SECONDS)[1]
    if p.returncode not in want:
        fail("%s: ended with %d: %s" % (what, p.returncode, err.decode(errors="replace").strip()))
    elif p.returncode == 65 and (err.count(b"\n") != 1 or not err.startswith(b"umbra: ")):
        fail("%s: not one line: %r" % (what, err))
    return err.decode(errors="replace")

def refused(data, where, what, text):
    err = outcome(data, where, what, [65], BUSY_SECONDS)
    if text not in err:
        fail("%s: says %r" % (what, err))

def lies(path, where):
    with open(path, "rb") as f:
        good = f.read()
    parts = {}
    for at, name, size in sections(good):
        parts.setdefault(name, []).append((at, size))

    def changed(offset, value, section=None):
        data = bytearray(good)
        data[offset:offset + len(value)] = value
        if section is None:
            seal_head(data)
        else:
            seal(data, section)
        return bytes(data)

    u32 = lambda v: struct.pack("<I", v)
    mach, hv, chip, end = (parts[n][0][0] for n in ("MACH", "HV  ", "CHIP", "END "))
    unknown = "does not know"
    refused(b"", where, "nothing", "Invalid argument")
    refused(good[:100], where, "half a head", "damaged")
    refused(b"x" * 200, where, "no head", "damaged")
    refused(good[:HEAD], where, "only a head", "damaged")
    refused(good[:end], where, "no end", "damaged")
    refused(good[:len(good) // 2], where, "half of it", "damaged")
    refused(good + b"\0" * 8, where, "more than all of it", "damaged")
    refused(changed(8, u32(3)), where, "a newer format", unknown)
    refused(changed(8, u32(2)), where, "a bus without its start", "damaged")
    refused(changed(16, struct.pack("<Q", 1 << 60)), where, "too much memory", "more memory")
    refused(changed(16, struct.pack("<Q", 12345678)), where, "half a page of memory", "damaged")
    refused(changed(24, struct.pack("<Q", 1 << 63)), where, "an unknown feature", unknown)
    refused(changed(32, struct.pack("<Q", 123456789)), where, "another clock", "another rate")
    refused(changed(40, u32(0)), where, "no processors", "damaged")
    refused(changed(40, u32(17)), where, "too many processors", "damaged")
    refused(changed(40, u32(3)), where, "a processor that is not there", "damaged")
    refused(changed(mach, b"WHAT", mach), where, "an unknown part", unknown)
    refused(changed(mach + 4, u32(1), mach), where, "a machine of before processor models", "without processor models")
    refused(changed(hv + 4, u32(2), hv), where, "a part of an unknown version", unknown)
    body = hv + SECTION.size
    for n, what in enumerate(["hypercall page", "information page", "interrupt controller"]):
        refused(changed(body + 4 * n, u32(2), hv), where, "an unknown " + what, unknown)
    refused(changed(body + 12, u32(0x20000), hv), where, "an unknown extension", unknown)
    refused(changed(body + 16, u32(0x10002), hv), where, "an agreement on what was not offered", "damaged")
    refused(changed(mach + SECTION.size + 24 + 32, u32(7), mach), where, "a processor of no vendor", "damaged")
    refused(changed(mach + SECTION.size + 24 + 36, u32(0xffffffff) * 2, mach), where, "a processor with everything", "lacks")
    other = run("--restore", path, "--host-mask=-aes")
    if other.returncode != 65 or b"lacks" not in other.stderr or other.stderr.count(b"\n") != 1:
        fail("a host without AES: ended with %d: %s" % (other.returncode, other.stderr.decode(errors="replace")))
    twice = bytearray(good)
    twice[end:end] = good[chip:chip + SECTION.size + (parts["CHIP"][0][1] + 7 & ~7)]
    refused(bytes(twice), where, "a part twice", "damaged")
    page = bytearray(good)
    at = parts["PAGE"][-1][0]
    page[at + SECTION.size:at + SECTION.size + 8] = struct.pack("<Q", 1 << 40)
    seal(page, at)
    refused(bytes(page), where, "pages out of memory", "damaged")
    for _ in range(changed_bits):
        data, at = bytearray(good), rng.randrange(len(good))
        data[at] ^= 1 << rng.randrange(8)
        # of a page that is not read before the guest has ended nobody hears
        is_of_page = any(head <= at < head + SECTION.size + size for head, size in parts["PAGE"])
        outcome(bytes(data), where, "a bit that has changed at %d" % at, [0, 65] if is_of_page else [65], BUSY_SECONDS)
    small = [(at, size, name) for name in ("MACH", "CPU ", "HV  ", "CHIP") for at, size in parts[name]]
    for n in range(mutations):
        data = bytearray(good)
        at, size, name = rng.choice(small)
        changed_value(rng, data, at, size)
        seal(data, at)
        outcome(bytes(data), where, "mutation %d of %s" % (n, name), [0, 65, 75])

with tempfile.TemporaryDirectory(dir="build") as where:
    def some(cpus, saves):
        for n in range(5): # on a busy host a machine may end before it was saved twice: the next one has more to do
            files = linux(cpus, saves, where, LOOPS << 2 * n)
            if failures or len(files) > 1:
                return files
        fail("only %d files of %d" % (len(files), saves))
        return files
    some(1, saves)
    some(4, saves)
    two = some(2, 4)
    if not failures:
        lies(two[-1], where)
sys.exit(1 if failures else 0)
