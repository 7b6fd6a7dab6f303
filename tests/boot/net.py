#!/usr/bin/env python3
# Linux with network cards: its own driver, DHCP, files from a server on the host and from one in the guest, the host's loopback that
# stays closed, a net process that is killed under load. net.py UMBRA
import hashlib, http.client, http.server, os, signal, socket, subprocess, sys, tempfile, threading, time, urllib.request

import peer_program

umbra, failed = sys.argv[1], 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "failover", "net_failover", "hv_netvsc")]
subprocess.run(["tools/fetch-guest"], check=True)
peer = peer_program.make("tests/boot/net_peer.c")
subprocess.run(["tools/fetch-guest", "tests/boot/net.init", "build/guest/net.cpio.gz"] + modules + [peer], check=True)
work = tempfile.TemporaryDirectory()

def bad(*what):
    global failed
    print("net:", *what)
    failed = 1

class Files(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *rest):
        super().__init__(*rest, directory=work.name)
    def log_message(self, *rest):
        pass

def serve(address):
    server = http.server.ThreadingHTTPServer((address, 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port

def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def command(what, *options, **values):
    text = "console=ttyS0 quiet umbra.do=" + what + "".join(" umbra.%s=%s" % v for v in values.items())
    return [umbra, "run", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/net.cpio.gz", "--append", text, *options]

def guest(what, *options, **values):
    p = subprocess.run(command(what, *options, **values), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    lines = p.stdout.decode(errors="replace").replace("\r", "").split("\n")
    if p.returncode or "NET DONE" not in lines or any(l.startswith("BAD") for l in lines):
        bad(what, options, "ended with", p.returncode, *lines[-8:])
    return lines

class Running:
    def __init__(self, what, *options, **values):
        self.lines = []
        self.p = subprocess.Popen(command(what, *options, **values), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self.read, daemon=True).start()
    def read(self):
        for line in self.p.stdout:
            self.lines.append(line.decode(errors="replace").strip())
    def expect(self, text, seconds=300):
        until = time.time() + seconds
        while time.time() < until:
            for line in list(self.lines):
                if line.startswith(text):
                    return line
            time.sleep(0.05)
        bad("not said:", text, *self.lines[-8:])
        return ""
    def children(self, role):
        out = subprocess.run(["ps", "-eo", "pid,ppid,args"], stdout=subprocess.PIPE).stdout.decode()
        rows = [l.split(None, 2) for l in out.split("\n")[1:] if l]
        family = {str(self.p.pid)}
        for _ in range(4):
            family |= {r[0] for r in rows if r[1] in family}
        return [int(r[0]) for r in rows if r[0] in family and r[2] == "umbra --role=" + role]
    def stop(self):
        self.p.send_signal(signal.SIGTERM)
        if self.p.wait(300):
            bad("stopped, it ended with", self.p.returncode, *self.lines[-8:])

def is_there(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

def md5(data):
    return hashlib.md5(data).hexdigest()

def get(port, path="/file"):
    with urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, path), timeout=60) as r:
        return r.read()

for n in 1, 2, 3:
    with open(os.path.join(work.name, "file%d" % n), "wb") as f:
        f.write(os.urandom(n * 2000003))
sums = [md5(open(os.path.join(work.name, "file%d" % n), "rb").read()) for n in (1, 2, 3)]
port = serve("127.0.0.1")

def looks():
    # two cards; a machine with a name has the same addresses each time
    macs = []
    for cpus in "1", "4":
        lines = guest("look", "--net", "user", "--net", "user,mac=02:12:34:56:78:9a", "--name", "net-one-%d" % os.getpid(), "--cpus", cpus)
        if not any(l == "DHCP eth0 10.0.2.15 255.255.255.0 10.0.2.2 10.0.2.3" for l in lines):
            bad("another DHCP", lines)
        macs.append(sorted(l[4:] for l in lines if l.startswith("MAC")))
    if macs[0] != macs[1] or "02:12:34:56:78:9a" not in macs[0] or len(macs[0]) != 2 or any(int(m[:2], 16) & 3 != 2 for m in macs[0]):
        bad("addresses", macs)

def fetches():
    for cpus in "1", "4":
        lines = guest("fetch", "--net", "user,host-loopback", "--cpus", cpus, port=port)
        if [l[4:36] for l in lines if l.startswith("SUM")] != sums:
            bad("other bytes came", cpus, lines)
    guest("refused", "--net", "user", port=port)

def serves():
    tcp, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    machine = Running("serve", "-p", "127.0.0.1:%d:80" % tcp, "-p", "127.0.0.1:%d:53/udp" % udp, "--statistics")
    want = machine.expect("SUM")[4:36]
    machine.expect("SERVES")
    for _ in range(600): # it says so before it listens
        try:
            get(tcp)
            break
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
    for _ in range(3):
        if md5(get(tcp)) != want:
            bad("other bytes came from the guest")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(b"echo", ("127.0.0.1", udp))
        if s.recvfrom(100)[0] != b"echo":
            bad("UDP")
    # killed under load; the port is there again, and so is the link
    for _ in range(3):
        stop = threading.Event()
        def load():
            while not stop.is_set():
                try:
                    get(tcp)
                except (OSError, http.client.HTTPException):
                    time.sleep(0.05)
        threads = [threading.Thread(target=load, daemon=True) for _ in range(3)]
        for t in threads:
            t.start()
        time.sleep(0.2)
        before = machine.children("net")
        os.kill(before[0], signal.SIGKILL)
        time.sleep(0.2)
        stop.set()
        for t in threads:
            t.join(30)
        for _ in range(1200):
            try:
                if md5(get(tcp)) == want:
                    break
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.25)
        else:
            bad("the network does not come back", machine.lines[-5:])
        if machine.children("net") == before or len(machine.children("net")) != 1:
            bad("net processes", before, machine.children("net"))
    # who has started it is killed: a net process ends with it, and another one goes on
    last = machine.children("net")
    os.kill(machine.children("supervisor")[0], signal.SIGKILL)
    for _ in range(1200):
        try:
            if not is_there(last[0]) and md5(get(tcp)) == want:
                break
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.25)
    else:
        bad("the network does not come back without its supervisor", last, machine.lines[-5:])
    machine.stop()
    if not any("link-changes 9," in l for l in machine.lines):
        bad("the link", [l for l in machine.lines if "link-changes" in l])

def switch_of(name):
    """The process that listens at the place that has the name: other tests have switches, too."""
    with open("/proc/net/unix") as f:
        sockets = {"socket:[%s]" % l.split()[6] for l in f if l.rstrip().endswith(name)}
    for line in subprocess.run(["ps", "-eo", "pid,args"], stdout=subprocess.PIPE).stdout.decode().split("\n"):
        if not line.endswith("umbra --role=switch"):
            continue
        fds = "/proc/%s/fd" % line.split()[0]
        if any(os.readlink(os.path.join(fds, fd)) in sockets for fd in os.listdir(fds)):
            return int(line.split()[0])
    return None


def switches():
    # two machines of different MTUs, a third card that is not for them; the switch is killed under load
    name = "net-%d" % os.getpid()
    other = Running("peer", "--net", "switch=" + name, "--statistics", ip="10.9.0.1", mtu=9000)
    third = Running("peer", "--net", "switch=" + name, "--statistics", ip="10.9.0.3", mtu=1500)
    other.expect("SERVES")
    third.expect("SERVES")
    for mtu in 1500, 9000:
        guest("meet", "--net", "switch=" + name, "--cpus", "2", ip="10.9.0.2", mtu=mtu, peer="10.9.0.1", bytes=16000008, rounds=1, asks=200)
    machine = Running("meet", "--net", "switch=" + name, ip="10.9.0.2", mtu=9000, peer="10.9.0.1", bytes=160000008, rounds=0, asks=0)
    machine.expect("take")
    time.sleep(0.1)
    switch = switch_of(name)
    if switch:
        os.kill(switch, signal.SIGKILL)
    else:
        bad("no switch")
    machine.expect("give")
    if machine.p.wait(300) or any(l.startswith("BAD") for l in machine.lines):
        bad("a stream while the switch dies", *machine.lines[-6:])
    other.stop()
    third.stop()
    if not any("link-changes 3," in l for l in other.lines):
        bad("the link", [l for l in other.lines if "link" in l])

def refuses():
    def refused(code, text, *options):
        p = subprocess.run([umbra, "run", "--kernel", "build/guest/vmlinuz", *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=60)
        said = p.stderr.decode()
        if p.returncode != code or said.count("\n") != 1 or text not in said:
            bad(options, "ended with", p.returncode, said)
    refused(64, "not a network", "--net", "bridge")
    refused(64, "not an option", "--net", "user,fast")
    refused(64, "not an option", "--net", "tap=x,host-loopback")
    refused(64, "Invalid argument", "--net", "switch=../x")
    refused(64, "not an address", "--net", "user,mac=01:00:00:00:00:00")
    refused(64, "not an address", "--net", "user,mac=02:00:00:00:00")
    refused(64, "too many network cards", *["--net", "user"] * 5)
    refused(64, "none and another", "--net", "none", "-p", "8080:80")
    refused(64, "not an open descriptor", "--net", "tap=fd:77")
    for text in "80", "x:80", "1:", "65536:80", "1.2.3:80:x", "80:80/sctp", "0:80", ":80":
        refused(64, "ADDRESS", "-p", text)
    refused(64, "need the features", "--net", "user", "--hv", "none")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        refused(65, "Address already in use", "-p", "127.0.0.1:%d:80" % s.getsockname()[1])

for part in sys.argv[2:] or ("looks", "fetches", "serves", "switches", "refuses"):
    globals()[part]()
sys.exit(failed)
