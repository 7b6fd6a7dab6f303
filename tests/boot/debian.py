#!/usr/bin/env python3
"""A stock Debian that people live in. Its first boot is umbra demo's, from the disk that this builds, with Debian's kernel, initial file system and init: a network,
a command, a page through -p, a shell. Its second one, of a child of that disk, has Linux 6.12 with its own drivers, a tap beside the network in user mode, a seed with a
key: apt installs from a mirror of this host's, ssh comes in through -p, pages come by the tap.   usage: debian.py UMBRA AGENT"""
import glob, hashlib, http.server, lzma, os, pty, re, select, socket, subprocess, sys, tempfile, threading, time

umbra = os.path.abspath(sys.argv[1])
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
tun = "/dev/net/tun"
if "inside" not in sys.argv:
    # a network of the test's own, in which it may make a tap
    alone = ["unshare", "--user", "--map-root-user", "--net"] if not subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], capture_output=True).returncode else []
    subprocess.run(["tools/fetch-guest"], check=True)
    tree = subprocess.run(["tests/image/debian-tree"], stdout=subprocess.PIPE, text=True).stdout.strip() or sys.exit(1)
    newer = subprocess.run(["tests/image/debian-kernel"], stdout=subprocess.PIPE, text=True).stdout.strip() or sys.exit(1)
    os.execvp((alone + [sys.executable])[0], alone + [sys.executable, os.path.abspath(__file__), umbra, "inside", tree, newer] + ["alone"][:len(alone)])
tree, newer = sys.argv[3:5]
has_tap = "alone" in sys.argv and os.path.exists(tun)
if "alone" in sys.argv:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name, HOME=work.name, XDG_CACHE_HOME=os.path.join(work.name, "cache"), DEMO_TREE=tree, DEMO_SECONDS="500")
disk = os.path.join(work.name, "cache/umbra/demo/debian.vhdx")
failed = 0


def check(what, good, *more):
    global failed
    if not good:
        print("debian:", what, *more)
        failed = 1
    return good


def path(name):
    return os.path.join(work.name, name)


def run(*words, **more):
    more = {"stdin": subprocess.DEVNULL, **more}
    return subprocess.run([umbra, *words], env=env, capture_output=True, timeout=500, **more)


def guest(text, **more):
    r = run("exec", "-T", "demo", "--", "sh", "-c", text, **more)
    said = r.stdout.decode(errors="replace").strip()
    return said if r.returncode == 0 else "%s\n%s\nended with %d" % (said, r.stderr.decode(errors="replace"), r.returncode)


def runs():
    return run("info", "demo").returncode == 0


def console():
    with open(path("umbra/.console-demo"), "rb") as f:
        return f.read().decode(errors="replace")


def until(what, good):
    end = time.time() + 500
    while time.time() < end:
        if good():
            return True
        time.sleep(0.1)
    check("waited in vain: " + what, False)
    sys.exit(1)


def digest(name):
    with open(name, "rb") as f:
        return hashlib.file_digest(f, "md5").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.md5(f.read()).hexdigest()


# ---- the demo ----

class Terminal:
    """umbra demo on a terminal; what it says."""

    def __init__(self, *words):
        master, slave = pty.openpty()
        self.process = subprocess.Popen([umbra, "demo", *words], env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.master, self.said = master, b""

    def wait_for(self, pattern):
        end = time.time() + 500
        while not re.search(pattern, self.said) and time.time() < end and self.read():
            pass
        return check("umbra demo says " + str(pattern), re.search(pattern, self.said), self.said.decode(errors="replace")[-2000:])

    def read(self):
        if select.select([self.master], [], [], 1)[0]:
            try:
                self.said += os.read(self.master, 4096)
            except OSError:
                return False  # it has ended
        return True

    def say(self, text):
        os.write(self.master, text)


def give_newer_kernel():
    """Its modules, which the guest then knows: another kernel, but nothing else of it, from outside."""
    version = os.path.basename(glob.glob(newer + "/lib/modules/*")[0])
    packed = subprocess.Popen(["tar", "-c", "-C", newer, "lib/modules"], stdout=subprocess.PIPE)
    said = guest("tar -x --no-same-owner -C / && depmod %s && echo known" % version, stdin=packed.stdout)
    check("the modules of 6.12", said == "known" and packed.wait() == 0, said)
    return version


def has_its_drivers():
    said = guest("lsmod | grep -o '^hv_[a-z]*' | sort")
    check("its drivers", {"hv_balloon", "hv_netvsc", "hv_sock", "hv_storvsc", "hv_utils", "hv_vmbus"} <= set(said.split()), said)


def the_demo():
    demo = Terminal("--memory-min", "256M")
    good = demo.wait_for(rb"building Debian's disk") and demo.wait_for(rb"Debian GNU/Linux 12") and demo.wait_for(rb"eth0 +UP +10\.0\.2\.15/24") and \
        demo.wait_for(rb"<h1>A page of the guest</h1> Linux 6\.1") and demo.wait_for(rb"root@demo:~# ")
    if not good:
        sys.exit(1)
    demo.say(b"echo $((6*7)) $(tty)\n")
    demo.wait_for(rb"[\r\n]42 /dev/pts/")
    until("a memory driver", lambda: b"automatic" in run("info", "demo").stdout)
    has_its_drivers()
    said = guest("findmnt -no SOURCE,FSTYPE /")
    check("its disk", said.split() == ["/dev/sda", "ext4"], said)
    version, root = give_newer_kernel(), guest("findmnt -no UUID /")
    demo.say(b"exit\n")
    while demo.read() and demo.process.poll() is None:
        pass
    check("the demo ends, and its machine", demo.process.wait(60) == 0 and not runs(), demo.said[-500:])
    return version, root


# ---- the newer kernel ----

def make_initrd():
    folder = path("modules")
    os.mkdir(folder)
    names = ["hv_vmbus", "scsi_common", "scsi_mod", "scsi_transport_fc", "hv_storvsc", "sd_mod"]
    for name in names:
        packed = glob.glob("%s/lib/modules/*/kernel/**/%s.ko*" % (newer, name), recursive=True)[0]
        with (lzma.open(packed) if packed.endswith(".xz") else open(packed, "rb")) as f, open("%s/%s.ko" % (folder, name), "wb") as to:
            to.write(f.read())
    subprocess.run(["tools/fetch-guest", "tests/image/build.init", path("initrd")] + ["%s/%s.ko" % (folder, n) for n in names], check=True)


def make_tap():
    subprocess.run("ip tuntap add tap0 mode tap vnet_hdr && ip addr add 10.7.0.1/24 dev tap0 && ip link set tap0 up", shell=True, check=True)


def make_package(name, version, depends, files):
    top = path("packages/" + name)
    os.makedirs(top + "/DEBIAN")
    with open(top + "/DEBIAN/control", "w") as f:
        f.write("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@example.org>\n%sDescription: x\n" % (name, version, depends))
    for at, data in files.items():
        os.makedirs(os.path.dirname(top + at), exist_ok=True)
        with open(top + at, "wb") as f:
            f.write(data)
    os.makedirs(path("mirror"), exist_ok=True)
    deb = path("mirror/%s_%s_all.deb" % (name, version))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", top, deb], check=True, stdout=subprocess.DEVNULL)
    with open(deb, "rb") as f, open(path("mirror/Packages"), "a") as index:
        index.write("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: x <x@example.org>\n%sDescription: x\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n" %
                    (name, version, depends, os.path.basename(deb), os.path.getsize(deb), hashlib.sha256(f.read()).hexdigest()))


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked = []

    def __init__(self, *words):
        super().__init__(*words, directory=path("mirror"))

    def log_message(self, *words):
        self.asked.append(self.path)


def make_mirror():
    make_package("lives-base", "1.2", "", {"/usr/share/lives/data": bytes(range(256)) * 20000})
    make_package("lives", "2.0", "Depends: lives-base (>= 1.1)\n", {"/usr/share/lives/more": b"more"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def fetched(address):
    """What the web server there says, or nothing."""
    try:
        with socket.create_connection((address, 80), timeout=10) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: s.recv(65536), b""))
    except OSError as e:
        return str(e).encode()


def apt_installs(port):
    said = guest("echo 'deb [trusted=yes] http://10.0.2.2:%d ./' >/etc/apt/sources.list && rm -rf /etc/apt/sources.list.d/* && apt-get -q update && "
                 "apt-get -qy install lives && cmp /usr/share/lives/more /dev/stdin && dpkg -s lives lives-base | grep -c '^Status: install ok installed'" % port, input=b"more", stdin=None)
    check("apt", said.split("\n")[-1] == "2", said[-2000:])
    want = hashlib.sha256(bytes(range(256)) * 20000).hexdigest()
    check("what it has installed", guest("sha256sum </usr/share/lives/data").split()[0] == want)
    check("it was got here", any("lives-base" in p for p in Quiet.asked), Quiet.asked)


def ssh_comes_in(port):
    # what cloud-init does of the seed, which this Debian has not: the seed is all that knows the key
    said = guest("mkdir -p /mnt /root/.ssh && mount -o ro $(findfs LABEL=CIDATA || findfs LABEL=cidata) /mnt && grep -o 'ssh-ed25519 [^\"]*' /mnt/meta-data /mnt/user-data | "
                 "sed 's/^[^:]*://' >/root/.ssh/authorized_keys && umount /mnt && grep -c ssh-ed25519 /root/.ssh/authorized_keys")
    check("the seed has the key", said.split("\n")[-1].isdigit() and int(said.split("\n")[-1]) >= 1, said)
    words = ["ssh", "-F", "none", "-i", path("key"), "-p", str(port), "-o", "UserKnownHostsFile=" + path("known"), "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes", "root@127.0.0.1"]
    data = os.urandom(3000000)
    r = subprocess.run(words + ["uname -r; cat >/root/came; sha256sum </root/came"], input=data, capture_output=True, timeout=500)
    check("ssh", r.returncode == 0 and r.stdout.startswith(b"6.12") and hashlib.sha256(data).hexdigest().encode() in r.stdout, r)


def by_tap():
    guest("ip addr add 10.7.0.2/24 dev eth1 && ip link set eth1 up mtu 9000")
    subprocess.run("ip link set tap0 mtu 9000", shell=True, check=True)
    guest("head -c 4000000 /dev/zero | tr '\\0' x >/var/www/html/index.html")
    page = b""
    until("the guest's page by the tap", lambda: b"200 OK" in fetched("10.7.0.2"))
    page = fetched("10.7.0.2")
    check("all of it", page.endswith(b"x" * 4000000) and not page.endswith(b"x" * 4000001), len(page), page[:300])
    counted = guest("cat /sys/class/net/eth1/statistics/tx_bytes")
    check("by that card", int(counted) > 4000000, counted)


def the_newer(version, root):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path("key")], check=True)
    make_initrd()
    port, ssh_port = make_mirror(), free_port()
    if has_tap:
        make_tap()
    kernel = glob.glob(newer + "/boot/vmlinuz-*")[0]
    r = run("disk", "create", path("child.vhdx"), "--parent", disk)
    check("a child", r.returncode == 0, r)
    before = digest(disk)
    r = run("run", "--detach", "--name", "demo", "--cpus", "2", "--memory", "1G", "--kernel", kernel, "--initrd", path("initrd"), "--append", "console=ttyS0 root=UUID=%s rw" % root,
            "--net", "user,host-loopback", *(["--net", "tap=tap0"] if has_tap else []), "-p", "127.0.0.1:%d:22" % ssh_port, "--ssh-key", path("key.pub"), "--disk", path("child.vhdx"))
    if not check("6.12 begins", r.returncode == 0, r):
        sys.exit(1)
    until("the agent answers", lambda: run("exec", "-T", "demo", "--", "true").returncode == 0 or not runs())
    if not check("it goes on", runs(), console()[-1500:]):
        sys.exit(1)
    said = guest("uname -r")
    check("its kernel", said == version, said)
    until("a network", lambda: "10.0.2.15/24" in guest("ip -brief -4 address show dev eth0"))
    apt_installs(port)
    until("sshd", lambda: guest("systemctl is-active ssh") == "active")
    ssh_comes_in(ssh_port)
    if has_tap:
        by_tap()
    else:
        print("debian: no tap here: that was not tested")
    has_its_drivers()
    said = guest("dmesg | grep -iE 'BUG:|WARNING:|hv_.*(fail|error)' || true")
    check("no complaint of its kernel", said == "", said)
    check("stop", run("stop", "demo").returncode == 0)
    until("it is off", lambda: not runs())
    check("the parent has not changed", digest(disk) == before)
    r = run("disk", "check", path("child.vhdx"), "--chain")
    check("the chain", r.returncode == 0, r)
    r = run("disk", "convert", path("child.vhdx"), path("raw"), "--to", "raw")
    check("convert", r.returncode == 0, r)
    r = subprocess.run(["/sbin/e2fsck", "-fn", path("raw")], capture_output=True)
    check("e2fsck", r.returncode == 0, r.stdout.decode())


try:
    the_newer(*the_demo())
finally:
    run("kill", "demo")
sys.exit(failed)
