#!/usr/bin/env python3
"""What the gadgets of speculation.c come to at addresses of the machine process: none may come to anything. The same gadget at an address
of the guest's own says whether this processor and this moment would have shown it.
usage: speculation.py UMBRA [CONTROL], CONTROL: an umbra built with -Dunmended_speculation=true. Where a processor does not show what the
control lacks, that is said: then the mend is not tested by that gadget on this host. Ends 1 when something came of a gadget."""
import os, re, subprocess, sys

GUEST = os.path.join(os.environ.get("BUILD", "build"), "tests/guest/guest-speculation")
UNMENDED_DELTA = 0xfff # an access that is not mended goes so far behind what the guest names (soft_make_poison())
MARK, LAND_CODE = 0x5a, b"\xb8\x2b\x3a\x9d\x1a" # what a store writes and reached code touches; what `land` begins with
GADGETS = {"l": "load", "m": "string", "s": "store to load", "j": "indirect jump", "r": "return"}
MENDED_IN_CONTROL = "jr" # jumps and returns have no build without what keeps them: the jump cache is how they work


def symbol(path, name):
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return int(next(line.split()[0] for line in lines if line.split()[-1] == name), 16)


class Machine:
    """The machine process: the one that maps the code cache to execute it."""

    def __init__(self, broker):
        family = subprocess.run(["pgrep", "-g", str(broker)], capture_output=True, text=True).stdout.split()
        for self.pid in family:
            with open(f"/proc/{self.pid}/maps") as f:
                lines = f.read().splitlines()
            self.maps = [(*(int(word, 16) for word in re.match(r"(\w+)-(\w+)", line).groups()), line) for line in lines]
            if any("r-xs" in line for line in lines):
                return
        raise SystemExit("speculation: no machine process found")

    def read(self, at, count):
        with open(f"/proc/{self.pid}/mem", "rb") as memory:
            memory.seek(at)
            return memory.read(count)

    def base_of(self, binary):
        return next(first for first, _, line in self.maps if os.path.realpath(binary) in line)

    def guest_memory(self):
        """Where the guest's physical address 0 is."""
        land = symbol(GUEST, "land")
        for first, end, line in self.maps:
            first = (first + (2 << 20) - 1) & ~((2 << 20) - 1)
            if " rw-p " in line and end - first > land and self.read(first + land, len(LAND_CODE)) == LAND_CODE:
                return first
        raise SystemExit("speculation: no guest memory found")

    def translation(self):
        """Where the host code is that `land` was translated to."""
        for first, end, line in self.maps:
            if " r-xs " in line:
                at = self.read(first, min(end - first, 4 << 20)).find(LAND_CODE)
                if at >= 0:
                    return first + at
        raise SystemExit("speculation: no translation found")


def run(umbra):
    """For each gadget: what came of it in the machine process, of how much, and in the guest itself."""
    p = subprocess.Popen([umbra, "run", "--kernel", GUEST, "--memory", "256M", "--debug-exit", "0xf4", "--console", "raw"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)

    def ask(gadget, address):
        p.stdin.write(b"%s%x\n" % (gadget.encode(), address))
        p.stdin.flush()
        return [None if word == "-" else int(word, 16) for word in p.stdout.readline().decode().split()[1:]]

    while b"READY" not in p.stdout.readline():
        pass
    machine = Machine(p.pid)
    result = {}
    for gadget in "lm":
        right = tried = 0
        for name in ("soft_memory", "soft_dispatch"):
            at = machine.base_of(umbra) + symbol(umbra, name)
            truth = machine.read(at, 8)
            got = ask(gadget, at - UNMENDED_DELTA)
            right += sum(a == b for a, b in zip(got, truth))
            tried += len(got)
        own = ask(gadget, symbol(GUEST, "gadget_load"))
        result[gadget] = (right, tried, sum(v is not None for v in own), len(own))
    alias = symbol(GUEST, "alias")
    at = {"s": machine.guest_memory() + alias - UNMENDED_DELTA, "j": machine.translation(), "r": machine.translation()}
    own = {"s": alias, "j": symbol(GUEST, "land"), "r": symbol(GUEST, "land")}
    for gadget in "sjr":
        result[gadget] = (ask(gadget, at[gadget]).count(MARK), 1, ask(gadget, own[gadget]).count(MARK), 1)
    p.stdin.write(b"x\n")
    p.stdin.flush()
    p.wait()
    return result


mended = run(sys.argv[1])
control = run(sys.argv[2]) if len(sys.argv) > 2 else {}
failed = False
for gadget, (got, tried, own, own_tried) in mended.items():
    words = [f"{GADGETS[gadget]}: {got} of {tried} in the machine process", f"{own} of {own_tried} in the guest itself"]
    failed |= got != 0
    if not own:
        words.append("which this host does not show at all")
    if gadget in control and gadget not in MENDED_IN_CONTROL:
        words.append(f"{control[gadget][0]} by the control without the mend")
        if not control[gadget][0]:
            words.append("this host does not leak here: it cannot show what the mend is for")
    print("speculation, " + ", ".join(words))
sys.exit(failed)
