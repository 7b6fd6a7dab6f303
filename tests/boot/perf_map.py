#!/usr/bin/env python3
"""umbra run --perf-map: a Linux guest. Every block that there is has its line, in the guest's names; nothing is writable and
executable; what is forked of the machine goes on and writes none. usage: perf_map.py UMBRA"""
import os, re, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../broker"))
import observed
from observed import all_of, expect, read, role_of, wait_for

umbra = os.path.abspath(sys.argv[1])
folder = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=folder.name)
LINE = re.compile(r"([0-9a-f]+) ([0-9a-f]+) ([A-Za-z0-9_.]+)")
REGIONS, APART = 32, 256 # regions of code lie apart; blocks of one side by side, but for cache lines


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def machine_of(pid):
    return next((member for member in all_of(pid) if role_of(member).split(" ")[0] == "machine"), 0)


def mappings(pid):
    return [line.split(maxsplit=5) for line in read(pid, "maps").splitlines()]


def map_of(path):
    text = open(path).read()
    return [LINE.fullmatch(line) for line in text[:text.rfind("\n") + 1].splitlines()]


def names_of(path):
    return {row[3] for row in map_of(path) if row}


console = os.path.join(folder.name, "console")
maps = []
subprocess.run(["tools/fetch-guest", "tests/boot/spin.init", "build/guest/spin.cpio.gz"], check=True)
broker = subprocess.Popen([umbra, "run", "--perf-map", "--name", "rests", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/spin.cpio.gz",
                           "--memory", "128M", "--console", console, "--append", "console=ttyS0 halt=1"], env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
try:
    expect("it boots", wait_for(lambda: os.path.exists(console) and "READY" in open(console).read()))
    machine = machine_of(broker.pid)
    path = "/tmp/perf-%d.map" % machine
    maps.append(path)
    expect("functions of its kernel", wait_for(lambda: os.path.exists(path) and b" start_kernel\n" in open(path, "rb").read()), path)
    expect("nobody else reads it", os.stat(path).st_mode & 0o777 == 0o600)
    # names come in turns: until a second has brought none
    sizes = [-1]
    expect("all names are there", wait_for(lambda: time.sleep(1) or sizes.append(os.stat(path).st_size) or sizes[-1] == sizes[-2]))
    rights = mappings(machine)
    code = [row for row in rights if row[1] == "r-xs"]
    expect("nothing is writable and executable", not [row for row in rights if "w" in row[1] and "x" in row[1]])
    expect("code is nobody's file", len(code) == 1 and code[0][5].startswith("/dev/zero"), code)
    begin, end = (int(word, 16) for word in code[0][0].split("-"))
    lines = map_of(path)
    expect("every line is one", all(lines))
    rows = sorted({(int(line[1], 16), int(line[2], 16), line[3]) for line in lines})
    expect("in the code", all(begin <= at and at + size <= end for at, size, _ in rows))
    expect("from its begin", rows[0][0] == begin and rows[0][2] == "umbra_thunks", rows[0])
    gaps = [after[0] - before[0] - before[1] for before, after in zip(rows, rows[1:])]
    expect("every block, and none twice", min(gaps) >= 0 and sum(gap > APART for gap in gaps) <= REGIONS, (min(gaps), sum(gap > APART for gap in gaps)))
    kernels = [name for _, _, name in rows if not name.startswith("guest_0x")]
    expect("most is the kernel's", len(kernels) > len(rows) / 3 and len(set(kernels)) > 500, (len(kernels), len(rows)))
    before = set(os.listdir("/tmp"))
    said = run("fork", "rests", "--name", "other")
    expect("it is forked", said.returncode == 0, said)
    said = run("info", "--json", "other")
    expect("what was forked goes on", said.returncode == 0, said)
    expect("and has no map", not [name for name in set(os.listdir("/tmp")) - before if re.fullmatch(r"perf-[0-9]+\.map", name)])
    run("kill", "other")
    run("kill", "rests")
    broker.wait(60)
    expect("nothing is said", broker.stderr.read() == "")
    expect("the map stays", names_of(path) >= {"start_kernel"})
finally:
    broker.kill()
    run("kill", "other")
    for path in maps:
        if os.path.exists(path):
            os.unlink(path)
sys.exit(observed.failed != 0)
