#!/usr/bin/env python3
"""sharing-packets.py: a channel between machines of two hosts, which are two folders here. Its connection is cut again and again, at any byte, and the
hub of each host is killed in between, and so is umbra far on each side, which is started again: each packet comes once, and in order, which the guests
compare, and neither sees the other go. One that makes no sense is left."""
import os, random, re, select, signal, socket, subprocess, sys, tempfile, threading, time

os.chdir(os.path.join(os.path.dirname(__file__), "../.."))
umbra = os.environ.get("UMBRA", "build/umbra")
guests = os.path.join(os.path.dirname(umbra), "tests/guest/guest-")
where = tempfile.TemporaryDirectory()
PATIENCE_S = 200
processes = []
RULES = {"there": "allow store offer,pass store/*\nallow far see,open,pass store/*\n",
         "here": "allow store offer,pass store/*\nallow web see,open store/*\nallow web pass store/* requests 40\n"}


def fail(what):
    print("sharing-packets:", what)
    for name in sorted(os.listdir(where.name)):
        if name.endswith(".log"):
            print(name + ":", open(where.name + "/" + name, errors="replace").read()[-1500:])
    for host in RULES:
        print(bus(host))
    sys.exit(1)


def env(host):
    return dict(os.environ, XDG_RUNTIME_DIR=f"{where.name}/{host}", XDG_CONFIG_HOME=f"{where.name}/{host}/config")


def bus(host, *words):
    return subprocess.run([umbra, "bus", *words], env=env(host), capture_output=True, text=True, timeout=20).stdout


def start(host, name, *words):
    log = open(f"{where.name}/{name}.log", "w")
    process = subprocess.Popen([umbra, *words], env=env(host), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    processes.append(process)
    return process


def run(host, name, guest, *words):
    return start(host, name, "run", "--name", name, "--kernel", guests + guest, "--memory", "64M", "--debug-exit", "0xf4", "--statistics", *words)


def said(name):
    return open(f"{where.name}/{name}.log", errors="replace").read()


def wait_for(what, is_so):
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > until:
            fail(what)
        time.sleep(0.02)


class Cutter:
    """Between the two: passes bytes on, and cuts each connection after so many."""

    def __init__(self, port, seed):
        self.port, self.random, self.cuts = port, random.Random(seed), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            here, _ = self.listener.accept()
            try:
                there = socket.create_connection(("127.0.0.1", self.port))
                self.carry(here, there)
                there.close()
            except OSError:
                pass
            here.close()

    def carry(self, here, there):
        left = 2000 + self.random.randrange(4000)
        other = {here: there, there: here}
        while left > 0:
            for one in select.select([here, there], [], [])[0]:
                some = one.recv(max(1, min(65536, left)))
                if not some:
                    return
                other[one].sendall(some)
                left -= len(some)
        self.cuts += 1


def echoed():
    """How many packets have passed the hub here."""
    return sum(int(n) for n in re.findall(r"(\d+) packets", bus("here")))


def kill_hub(host):
    hub = re.search(r'"pid": (\d+)', bus(host, "--json"))
    if hub:
        os.kill(int(hub.group(1)), signal.SIGKILL)


def main():
    for host, rules in RULES.items():
        os.makedirs(f"{where.name}/{host}/config/umbra")
        open(f"{where.name}/{host}/config/umbra/share.rules", "w").write(rules)
    key = where.name + "/key"
    subprocess.run([umbra, "listen", "--make-key", key], check=True)
    far = {"there": start("there", "serve", "far", "serve", "--packets", "store/shelf", "0", "--key", key)}
    wait_for("it listens", lambda: "listens at" in said("serve"))
    port = int(re.search(r"listens at .*:(\d+)", said("serve")).group(1))
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"nothing that makes sense" * 100)
    cutter = Cutter(port, 7)
    words = {"there": ("serve", "far", "serve", "--packets", "store/shelf", str(port), "--key", key),
             "here": ("reach", "far", "reach", "--packets", "store/shelf", f"127.0.0.1:{cutter.listener.getsockname()[1]}", "--key", key)}
    far["here"] = start("here", *words["here"])
    store = run("there", "store", "share", "--serve", "shelf")
    web = run("here", "web", "share-forked", "--bind", "store/shelf")
    killed = 0
    for host in RULES:
        cuts = cutter.cuts
        wait_for("some cuts", lambda: cutter.cuts >= cuts + 2 or web.poll() is not None)
        kill_hub(host)
    for host in ("here", "there", "here", "there"):
        before = echoed()
        wait_for("packets pass", lambda: echoed() > before + 5 or web.poll() is not None)
        if start(host, "twice", *words[host][1:]).wait(PATIENCE_S) != 65:
            fail("a second one has the same record")
        far[host].kill()
        far[host].wait()
        far[host] = start(host, *words[host])
        killed += web.poll() is None
    if killed < 3:
        fail("they ended before umbra far was killed")
    for name, machine in (("web", web), ("store", store)):
        wait_for(f"{name} ends", lambda: machine.poll() is not None)
        if machine.returncode < 0 or "not ok" in said(name) or not re.search(r"^1\.\.[1-9]", said(name), re.M):
            fail(name)
    if cutter.cuts < 4:
        fail(f"only {cutter.cuts} cuts")
    print(f"each packet once and in order, over {cutter.cuts} cuts")


try:
    main()
finally:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
