"""What tests of umbra far have in common: hosts, which are folders here, with what is started on each, and a connection that is cut at any byte."""
import os, random, re, select, signal, socket, subprocess, sys, tempfile, threading, time

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
umbra = os.environ.get("UMBRA", "build/umbra")
guests = os.path.join(os.path.dirname(umbra), "tests/guest/guest-")
where = tempfile.TemporaryDirectory()
key = where.name + "/key"
PATIENCE_S = 200
processes = []
hosts = []


def begin(rules):
    """Hosts with their rules, and a key that all have."""
    for host, text in rules.items():
        hosts.append(host)
        os.makedirs(f"{where.name}/{host}/config/umbra")
        allow(host, text)
    subprocess.run([umbra, "listen", "--make-key", key], check=True)


def allow(host, text):
    """From now on these rules."""
    rules = f"{where.name}/{host}/config/umbra/share.rules"
    with open(rules + ".new", "w") as file:
        file.write(text)
    os.rename(rules + ".new", rules)


def end():
    for host in hosts:
        shown = subprocess.run([umbra, "ps", "--json"], env=env(host), capture_output=True, text=True, timeout=60).stdout
        for name in re.findall(r'"name": "([^"]*)"', shown):
            subprocess.run([umbra, "kill", name], env=env(host), capture_output=True, timeout=60)
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()


def fail(what):
    print(os.path.basename(sys.argv[0]) + ":", what)
    for name in sorted(os.listdir(where.name)):
        if name.endswith(".log"):
            print(name + ":", open(where.name + "/" + name, errors="replace").read()[-3000:])
    for host in hosts:
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


def port_of(name):
    """Where what was started so listens, once it does."""
    wait_for("it listens", lambda: "listens at" in said(name))
    return int(re.search(r"listens at .*:(\d+)", said(name)).group(1))


def passed(text):
    """Of what a guest has said: all was good."""
    return "not ok" not in text and re.search(r"^1\.\.[1-9]", text, re.M)


def wait_for_guest(name, machine):
    wait_for(f"{name} ends", lambda: machine.poll() is not None)
    if machine.returncode < 0:
        fail(f"{name} was ended by signal {-machine.returncode}")
    if not passed(said(name)):
        fail(name)


def kill_hub(host):
    hub = re.search(r'"pid": (\d+)', bus(host, "--json"))
    if hub:
        os.kill(int(hub.group(1)), signal.SIGKILL)


class Cutter:
    """Between the two: passes bytes on, and cuts each connection after so many, which `length` says of a number from 0 to 1."""

    def __init__(self, port, length):
        self.to, self.length, self.random, self.cuts = port, length, random.Random(7), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            here, _ = self.listener.accept()
            try:
                there = socket.create_connection(("127.0.0.1", self.to))
                self.carry(here, there)
                there.close()
            except OSError:
                pass
            here.close()

    def carry(self, here, there):
        left = int(self.length(self.random.random()))
        other = {here: there, there: here}
        while left > 0:
            for one in select.select([here, there], [], [])[0]:
                some = one.recv(max(1, min(65536, left)))
                if not some:
                    return
                other[one].sendall(some)
                left -= len(some)
        self.cuts += 1
