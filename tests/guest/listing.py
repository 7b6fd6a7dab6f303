#!/usr/bin/env python3
"""umbra debug block: listing.py UMBRA GUEST. What is translated of a guest that spins is what stands in its file, instruction by instruction; and what is refused."""
import json, os, struct, subprocess, sys, tempfile, time

umbra, guest = map(os.path.abspath, sys.argv[1:3])
failed = 0
folder = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=folder.name)


def check(what, good, *more):
    global failed
    if not good:
        print("listing:", what, *more)
        failed = 1


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)


def in_file(at, count):
    """What the guest's file has for this address; a guest has its own at the same."""
    with open(guest, "rb") as file:
        data = file.read()
    begin, size, number = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    for n in range(number):
        kind, _, offset, address, _, bytes_, _, _ = struct.unpack_from("<IIQQQQQQ", data, begin + n * size)
        if kind == 1 and address <= at and at + count <= address + bytes_:
            return data[offset + at - address:][:count].hex()
    return None


def blocks_of(said):
    return json.loads(said.stdout) if said.returncode == 0 else []


def look_at(block):
    code = block["code"]
    insns = [piece for piece in code if piece["kind"] == "instruction"]
    at = int(block["gva"], 16)
    check("its bytes", sum(len(piece["host"]) // 2 for piece in code) == block["hot-bytes"] + block["way-out-bytes"], block)
    check("one behind the other", all(a["host-offset"] + len(a["host"]) // 2 == b["host-offset"] for a, b in zip(code, code[1:])), block)
    check("what the guest has", all(piece["guest"] == in_file(at + piece["guest-offset"], len(piece["guest"]) // 2) for piece in insns), block)
    if not block["cold"]:
        check("each instruction", len({piece["guest-offset"] for piece in insns}) == block["instructions"], block)
        check("all of the guest's bytes", "".join(dict((piece["guest-offset"], piece["guest"]) for piece in insns).values()) == in_file(at, block["guest-bytes"]), block)


try:
    said = run("run", "--detach", "--no-bus", "--name", "spins", "--time-limit", "500", "--kernel", guest, "--cpus", "2", "--memory", "64M", "--console", folder.name + "/console")
    check("run", said.returncode == 0, said)
    hot = []
    end = time.time() + 300
    # before it spins it starts the other processor; on a busy host a second is a look or two
    while not any(block["bits"] == 64 and block["instructions"] <= 2 for block in hot) and time.time() < end:
        hot = blocks_of(run("debug", "block", "spins", "--hot", "4", "--json"))
    check("it is found where it spins", hot)
    # another processor starts in a copy of what the guest's file has elsewhere
    for block in [block for block in hot if block["bits"] == 64]:
        look_at(block)
    at = next(block["gva"] for block in hot if block["bits"] == 64)
    said = run("debug", "block", "spins", at, "--json")
    check("by its address", at in [block["gva"] for block in blocks_of(said)], said)
    said = run("debug", "block", "spins", at, "--root", "0", "--json")
    check("without page tables", at in [block["gva"] for block in blocks_of(said)], said)
    said = run("debug", "block", "spins", at)
    check("as text", said.returncode == 0 and said.stdout.startswith("block %s, gpa" % at[2:]) and "ways out\n" in said.stdout, said)
    for words, code in ((("debug",), 64), (("debug", "block"), 64), (("debug", "block", "spins"), 64), (("debug", "block", "spins", "x"), 64), (("debug", "block", "spins", "0x"), 64),
                        (("debug", "block", "spins", "--hot", "0"), 64), (("debug", "block", "spins", at, "--hot", "1"), 64), (("debug", "else", "spins", at), 64),
                        (("debug", "block", "spins", "fffffffffffff000"), 65), (("debug", "block", "nobody", at), 65)):
        said = run(*words)
        check("refused", said.returncode == code and said.stderr.count("\n") == 1 and said.stderr.startswith("umbra: "), words, said)
finally:
    run("kill", "spins")
sys.exit(failed)
