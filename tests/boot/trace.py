#!/usr/bin/env python3
"""umbra trace: a Linux guest that boots; as lines and as Chrome has it; what is counted, and what is refused."""
import collections, json, os, subprocess, sys, tempfile, time

umbra = os.path.abspath(os.environ["UMBRA"])
failed = 0
folder = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=folder.name)


def check(what, good, *more):
    global failed
    if not good:
        print("trace:", what, *more)
        failed = 1


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def until(condition):
    end = time.time() + 120
    while time.time() < end:
        if condition():
            return
        time.sleep(0.05)
    sys.exit("trace: waited in vain")


def exits():
    said = run("info", "--json", "guest")
    return json.loads(said.stdout).get("exits", {}) if said.returncode == 0 else {}


console = os.path.join(folder.name, "console.log")
subprocess.run(["tools/fetch-guest", "tests/boot/spin.init", "build/guest/spin.cpio.gz"], check=True)
try:
    said = run("run", "--detach", "--name", "guest", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/spin.cpio.gz", "--memory", "256M",
               "--cpus", "2", "--console", console, "--append", "console=ttyS0 halt=1")
    check("run", said.returncode == 0, said)
    tracer = subprocess.Popen([umbra, "trace", "guest", "--seconds", "600", "--kinds", "exits,hypercalls,bus,interrupts"], env=env, stdout=subprocess.PIPE, text=True)
    lines = []
    kinds = collections.Counter()
    wanted = {"cpuid", "msr-read", "msr-write", "port-read", "port-write", "mmio-write", "halt", "hypercall", "interrupt"}
    while not wanted <= set(kinds):
        line = json.loads(tracer.stdout.readline())
        kinds[line["kind"]] += 1
        lines.append(line)
    said = run("trace", "guest", "--seconds", "1")
    check("one at a time", said.returncode == 65 and "somebody else traces it" in said.stderr, said)
    until(lambda: "READY" in open(console).read() if os.path.exists(console) else False)
    tracer.kill()
    tracer.wait()
    check("kinds and words", all({"ns", "kind", "took-ns"} < set(line) for line in lines), lines[:3])
    check("processors", all(line.get("processor", 0) in (0, 1) for line in lines))
    check("the console's port", any(line["kind"] == "port-write" and line["port"] == "0x3f8" for line in lines))
    check("hypercalls", all("control" in line and "result" in line for line in lines if line["kind"] == "hypercall"))
    counted = exits()
    check("what is counted", all(counted.get(kind, 0) >= kinds[kind] for kind in wanted), counted, kinds)
    events = []
    end = time.time() + 120
    while not events and time.time() < end:
        said = run("trace", "guest", "--seconds", "0.5", "--chrome", "--kinds", "halt,interrupts")
        whole = json.loads(said.stdout)
        events = whole["traceEvents"]
    check("as Chrome has it", events and all(event["ph"] == "X" and event["name"] in ("halt", "interrupt") and event["dur"] >= 0 for event in events), said)
    check("and what was dropped", whole["otherData"]["dropped"] == 0, whole["otherData"])
    for words, code in ((("trace",), 64), (("trace", "guest", "--kinds", "exits,x"), 64), (("trace", "guest", "--kinds", ""), 64), (("trace", "guest", "--seconds", "0"), 64),
                        (("trace", "nobody"), 65)):
        said = run(*words)
        check("refused", said.returncode == code and said.stderr.count("\n") == 1 and said.stderr.startswith("umbra: "), words, said)
finally:
    run("kill", "guest")
sys.exit(failed)
