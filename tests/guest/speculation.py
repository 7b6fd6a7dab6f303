#!/usr/bin/env python3
"""What speculation.c reads of the machine process: code of the engine, which is certainly mapped and in use. Nothing may come of it.
The same gadget on the guest's own memory says whether this processor and this moment would have shown it.
usage: speculation.py UMBRA [CONTROL], CONTROL: an umbra built with -Dunmended_speculation=true, which must read something."""
import os, subprocess, sys

GUEST = os.path.join(os.environ.get("BUILD", "build"), "tests/guest/guest-speculation")
SECRET_BYTES = 8


def symbol(path, name):
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return int(next(line.split()[0] for line in lines if line.split()[-1] == name), 16)


def machine_process(pid):
    """Of the processes of a machine the one that maps memory to execute that is no file's: the code cache."""
    family = subprocess.run(["pgrep", "-g", str(pid)], capture_output=True, text=True).stdout.split()
    for member in family:
        with open(f"/proc/{member}/maps") as maps:
            text = maps.read()
        if any("r-x" in line and "umbra-code" in line or "r-xs" in line for line in text.splitlines()):
            return member, text
    raise SystemExit("speculation: no machine process found")


def run(umbra):
    """How many bytes of the machine process, and of the guest itself, the guest has read."""
    p = subprocess.Popen([umbra, "run", "--kernel", GUEST, "--memory", "256M", "--debug-exit", "0xf4", "--console", "raw"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)

    def ask(address):
        p.stdin.write(b"%x\n" % address)
        p.stdin.flush()
        return p.stdout.readline().decode().split()[1:]

    while b"READY" not in p.stdout.readline():
        pass
    pid, maps = machine_process(p.pid)
    binary = os.path.realpath(umbra)
    base = next(int(line.split("-")[0], 16) for line in maps.splitlines() if binary in line)
    right = 0
    for name in ("soft_memory", "soft_dispatch", "soft_fill"):
        at = base + symbol(binary, name)
        with open(f"/proc/{pid}/mem", "rb") as memory:
            memory.seek(at)
            truth = memory.read(SECRET_BYTES)
        # the access that is not mended goes to the last byte of a page beyond what the guest names
        got = ask(at - 0xfff)
        right += sum(word != "-" and int(word, 16) == byte for word, byte in zip(got, truth))
    own = sum(word != "-" for word in ask(symbol(GUEST, "gadget")))
    p.stdin.write(b"0\n")
    p.stdin.flush()
    p.wait()
    return right, own


leaked, own = run(sys.argv[1])
print(f"speculation: {leaked} bytes of the machine process read, {own} of {SECRET_BYTES} of the guest's own")
if len(sys.argv) > 2:
    control, own = run(sys.argv[2])
    print(f"speculation: the control, without the mend, read {control}, and {own} of {SECRET_BYTES} of the guest's own")
    if not control:
        print("speculation: this processor does not show what the mend is for")
        sys.exit(1)
sys.exit(leaked != 0)
