#!/usr/bin/env python3
"""Guests that make their monitor spend memory (bombs.c): what the machine process has beside the guest's memory stays under the ceiling
that --overhead sets, and the machine goes on and ends when it is told. Each bomb has so many seconds of processor time, however busy
the host is. usage: bombs.py UMBRA [OVERHEAD_MIB...]"""
import os, select, signal, subprocess, sys, tempfile, time

BOMBS = ["read-tables", "write-tables", "user-tables", "misses", "invlpg", "short-code", "long-code", "timers", "user-code"]
ON_BUS = ["gpadls", "channels", "requests", "messages"]
GUEST = os.path.join(os.environ.get("BUILD", "build"), "tests/guest/guest-bombs")
BOMBS = os.environ.get("BOMBS", "").split() or BOMBS + ON_BUS
MEMORY_MIB, SECONDS = 64, float(os.environ.get("SECONDS_EACH", "1")) # soak-bombs: longer
LONGEST = 12 * SECONDS # real time: a bomb that sleeps spends little
LONGEST_START = 300 # of a busy host


def kib(path, key):
    with open(path) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(key))


def machine_process(pid):
    for member in subprocess.run(["pgrep", "-g", str(pid)], capture_output=True, text=True).stdout.split():
        with open(f"/proc/{member}/maps") as maps:
            if "umbra-code" in maps.read():
                return member
    return None


def beside_the_guest(pid):
    """Resident memory and page tables of a process, without the one mapping that is the guest's memory. Translated code is mapped twice,
    to be written and to be executed: it counts once."""
    guest = rest = size = is_code = 0
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if line.startswith("Size:"):
                size = int(line.split()[1])
            elif not line.split()[0].endswith(":"):
                is_code = "umbra-code" in line
            elif line.startswith("Pss:" if is_code else "Rss:"):
                value = int(line.split()[1])
                if MEMORY_MIB << 10 <= size < (MEMORY_MIB << 10) + 1024:
                    guest += value
                else:
                    rest += value
    return (rest + kib(f"/proc/{pid}/status", "VmPTE:")) / 1024


def spent(pid):
    """Processor time of a process, in seconds."""
    with open(f"/proc/{pid}/stat") as f:
        words = f.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def run(umbra, bomb, overhead, disk):
    p = subprocess.Popen([umbra, "run", "--kernel", GUEST, "--memory", f"{MEMORY_MIB}M", "--overhead", f"{overhead}M",
                          "--append", bomb, "--console", "raw"] + (["--disk", disk] if bomb in ON_BUS else []), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, process_group=0, bufsize=0)
    said = b""
    while b"READY" not in said: # what it says before: perhaps that a processor spins, since a bomb does
        more = p.stdout.readline() if select.select([p.stdout], [], [], LONGEST_START)[0] else b""
        if not more:
            os.killpg(p.pid, signal.SIGKILL)
            return f"{bomb}: did not go off: {said + p.stdout.read()[-300:]}, ended with {p.wait()}", 0
        said += more
    pid, most, end, is_done = machine_process(p.pid), 0.0, time.monotonic() + LONGEST, False
    while not is_done and time.monotonic() < end:
        try:
            is_done = spent(pid) >= SECONDS # first: what it spends next is looked at, too
            most = max(most, beside_the_guest(pid))
        except (FileNotFoundError, ProcessLookupError, TypeError):
            return f"{bomb}: ended with {p.wait()}: {p.stdout.read()[-300:]}", most
        time.sleep(0.05)
    os.kill(p.pid, signal.SIGTERM)
    try:
        code = p.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        return f"{bomb}: still running", most
    if code:
        return f"{bomb}: ended with {code}", most
    return (None if most <= overhead else f"{bomb}: {most:.0f} MiB, more than {overhead}"), most


folder = tempfile.TemporaryDirectory()
disk = os.path.join(folder.name, "disk.vhdx")
subprocess.run([sys.argv[1], "disk", "create", disk, "--size", "64M"], check=True, stdout=subprocess.DEVNULL)
failed = 0
for overhead in [int(word) for word in sys.argv[2:]] or [64, 384]:
    for bomb in BOMBS:
        problem, most = run(sys.argv[1], bomb, overhead, disk)
        print(problem or f"{bomb}: {most:.0f} of {overhead} MiB", flush=True)
        failed += problem is not None
sys.exit(failed != 0)
