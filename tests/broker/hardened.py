#!/usr/bin/env python3
"""The binary that ships, as readelf sees it: position independent, no executable stack, no segment that is writable and executable,
relocations read only and bound at the start, stack protector and fortified functions in use, landing pads for indirect branches in
everything but the engine's own code.   usage: hardened.py UMBRA"""
import re, subprocess, sys

failed = 0


def expect(what, good):
    global failed
    print("ok  " if good else "FAIL", what)
    failed += not good


def tool(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


binary = sys.argv[1]
header, segments, dynamic = tool("readelf", "-hW", binary), tool("readelf", "-lW", binary), tool("readelf", "-dW", binary)
symbols = tool("readelf", "--dyn-syms", "-W", binary)
expect("position independent", "DYN (" in header and "PIE" in dynamic)
stack = re.search(r"GNU_STACK.* (R[W ][E ]) ", segments)
expect("no executable stack", stack and "E" not in stack.group(1))
expect("nothing is writable and executable", not re.search(r"LOAD.* RWE ", segments))
expect("relocations are read only", "GNU_RELRO" in segments)
expect("and bound at the start", "BIND_NOW" in dynamic or re.search(r"FLAGS_1.*NOW", dynamic))
expect("no search path for libraries", "RPATH" not in dynamic and "RUNPATH" not in dynamic)
expect("stack protector", "__stack_chk_fail" in symbols)
fortified = sorted(set(re.findall(r"(__\w+_chk)@", symbols)) - {"__stack_chk_fail"})
expect("fortified functions: %s" % " ".join(fortified), len(fortified) >= 5)
for function in ["main", "broker_serve", "terminal_filter", "control_turn", "block_serve", "disk_main"]:
    code = tool("objdump", "-d", "--no-show-raw-insn", "--disassemble=%s" % function, binary)
    body = [line for line in code.split("\n") if re.match(r"\s+[0-9a-f]+:\t", line)]
    if body: # not inlined
        expect("%s begins with a landing pad" % function, "endbr64" in body[0])
sys.exit(failed != 0)
