#!/usr/bin/env python3
"""sharing-far.py: a disk behind TCP. A guest uses it while its connection is cut again and again, at any byte, and the hub is killed in between: each
change of it is done once, which who serves it records. Then far sides that lie: each is left, and a sound one is connected to again."""
import os, random, re, select, signal, socket, subprocess, sys, tempfile, threading, time

os.chdir(os.path.join(os.path.dirname(__file__), "../.."))
umbra = os.environ.get("UMBRA", "build/umbra")
guest = os.path.join(os.path.dirname(umbra), "tests/guest/guest-share-disk")
where = tempfile.TemporaryDirectory()
os.environ["XDG_RUNTIME_DIR"] = where.name
os.environ["XDG_CONFIG_HOME"] = where.name + "/config"
os.makedirs(where.name + "/config/umbra")
PATIENCE_S = 200
processes = []
CHANGES = 60 * 6 + 1 + 1  # what guest-share-disk writes, and its flush


def fail(what):
    print("sharing-far:", what)
    for name in sorted(os.listdir(where.name)):
        if name.endswith(".log"):
            print(name + ":", open(where.name + "/" + name, errors="replace").read()[-3000:])
    print(subprocess.run([umbra, "bus"], capture_output=True, text=True, timeout=20).stdout)
    sys.exit(1)


def start(name, *words):
    log = open(f"{where.name}/{name}.log", "w")
    process = subprocess.Popen([umbra, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    processes.append(process)
    return process


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
        self.port, self.random, self.cuts, self.may_cut = port, random.Random(seed), 0, True
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            here, _ = self.listener.accept()
            try:
                there = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                here.close()
                continue
            self.carry(here, there)

    def carry(self, here, there):
        left = 4000 + int(self.random.random() ** 3 * 12_000_000)
        other = {here: there, there: here}
        while left > 0 or not self.may_cut:
            for one in select.select([here, there], [], [])[0]:
                try:
                    some = one.recv(65536 if not self.may_cut else min(65536, max(left, 1)))
                    if not some:
                        left = -1
                    other[one].sendall(some)
                except OSError:
                    some, left = b"", -1
                left -= len(some)
            if left < 0 and not self.may_cut:
                break
        self.cuts += 1
        here.close()
        there.close()


def serve(name, *words):
    process = start(name, "far", "serve", where.name + "/disk.raw", "0", "--format", "raw", "--key", where.name + "/key", *words)
    wait_for("it listens", lambda: "listens at" in said(name))
    return process, int(re.search(r"listens at .*:(\d+)", said(name)).group(1))


def main():
    subprocess.run([umbra, "listen", "--make-key", where.name + "/key"], check=True)
    subprocess.run([umbra, "listen", "--make-key", where.name + "/other"], check=True)
    with open(where.name + "/config/umbra/share.rules", "w") as rules:
        rules.write("allow far offer,pass far/*\nallow web see,open,pass,lend far/shelf class disk\n")
    with open(where.name + "/disk.raw", "wb") as disk:
        disk.truncate(4 << 20)
    server, port = serve("server")
    wrong = start("wrong", "far", "reach", "far/other", f"127.0.0.1:{port}", "--key", where.name + "/other")
    wait_for("another key is said to be one", lambda: "another key" in said("wrong"))
    wrong.terminate()
    cutter = Cutter(port, 7)
    start("reach", "far", "reach", "far/shelf", f"127.0.0.1:{cutter.listener.getsockname()[1]}", "--key", where.name + "/key")
    web = start("web", "run", "--name", "web", "--kernel", guest, "--memory", "64M", "--debug-exit", "0xf4", "--statistics", "--bind", "far/shelf=disk")
    wait_for("some cuts", lambda: cutter.cuts >= 2 or web.poll() is not None)
    hub = re.search(r'"pid": (\d+)', subprocess.run([umbra, "bus", "--json"], capture_output=True, text=True).stdout)
    if hub and web.poll() is None:
        os.kill(int(hub.group(1)), signal.SIGKILL)
    wait_for("the guest ends", lambda: web.poll() is not None)
    if web.returncode < 0:
        fail(f"the machine was ended by signal {-web.returncode}")
    if "not ok" in said("web") or not re.search(r"^1\.\.[1-9]", said("web"), re.M):
        fail("the guest")
    counts = re.search(r"served disk 0: (\d+) requests, (\d+) answered, (\d+) asked again", said("web"))
    if not counts or counts.group(1) != counts.group(2):
        fail("not each request was answered")
    server.terminate()
    server.wait(60)
    done = re.search(r"(\d+) changes, (\d+) reads, (\d+) answered again", said("server"))
    if not done or int(done.group(1)) != CHANGES:
        fail(f"not each change was done once: {done and done.group(0)}, of {CHANGES}")
    if cutter.cuts < 3:
        fail(f"only {cutter.cuts} cuts")
    print(f"{CHANGES} changes, each once, over {cutter.cuts} cuts: {done.group(0)}")


try:
    main()
finally:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
