#!/usr/bin/env python3
# umbra image build: a tar and a folder become disks, with owners, links, devices and attributes; names that lead out, and what is no
# tree, are refused; one boots with a second disk and a seed of cloud-init, which the guest reads. build.py UMBRA
import io, os, stat, subprocess, sys, tarfile, tempfile, time

umbra = os.path.abspath(sys.argv[1])
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "scsi_common", "scsi_mod", "scsi_transport_fc", "hv_storvsc", "sd_mod", "hv_utils", "vsock", "hv_sock", "cdrom", "isofs")]
subprocess.run(["tools/fetch-guest"], check=True)
subprocess.run(["tools/fetch-guest", "tests/image/build.init", "build/guest/build.cpio.gz"] + modules, check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name, HOME=work.name)
failed = 0

def check(what, good, *more):
    global failed
    if not good:
        print("build:", what, *more)
        failed = 1

def path(name):
    return os.path.join(work.name, name)

def run(*words, **more):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=200, **more)

INIT = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /dev/pts; mount -t devpts pts /dev/pts
mount -o remount,rw /
printf '#!/bin/sh\\n/bin/poweroff -f\\n' >/sbin/poweroff; chmod +x /sbin/poweroff
/usr/local/sbin/umbra-agent &
while :; do sleep 1000; done
"""

class Tar:
    def __init__(self, name):
        self.tar = tarfile.open(path(name), "w:gz", format=tarfile.PAX_FORMAT)
    def add(self, name, kind=tarfile.REGTYPE, data=b"", **more):
        entry = tarfile.TarInfo(name)
        entry.type, entry.size, entry.mode, entry.mtime = kind, len(data), 0o644, 1234567890
        for key, value in more.items():
            setattr(entry, key, value)
        self.tar.addfile(entry, io.BytesIO(data))
        return self
    def end(self):
        self.tar.close()

big = os.urandom(5000001)

def root_tar(name):
    t = Tar(name)
    for d in ("./", "./bin", "./sbin", "./etc", "./boot", "./proc", "./sys", "./dev", "./root", "./tmp"):
        t.add(d, tarfile.DIRTYPE, mode=0o755)
    t.add("./boot/vmlinuz-6.1.0-1-test", data=open("build/guest/vmlinuz", "rb").read())
    t.add("./boot/initrd.img-6.1.0-1-test", data=open("build/guest/build.cpio.gz", "rb").read())
    t.add("./bin/busybox", data=open("build/guest/busybox", "rb").read(), mode=0o4755)
    t.add("./sbin/init", data=INIT, mode=0o755)
    t.add("./etc/os-release", data=b"ID=test\n")
    t.add("./etc/fstab", data=b"# nothing\n")
    t.add("./etc/old", data=b"old")
    t.add("./etc/old", data=b"new", uid=70000, gid=42)
    t.add("./etc/again", tarfile.LNKTYPE, linkname="./etc/old")
    t.add("./etc/link", tarfile.SYMTYPE, linkname="../" + "x" * 50)
    t.add("./etc/long-link", tarfile.SYMTYPE, linkname="/" * 100 + "sbin/init")
    t.add("./dev/one", tarfile.CHRTYPE, devmajor=1, devminor=3)
    t.add("./dev/other", tarfile.BLKTYPE, devmajor=259, devminor=70000)
    t.add("./made/on/the/way", data=big, pax_headers={"SCHILY.xattr.user.word": "value", "SCHILY.xattr.trusted.no": "x"})
    for n in range(300):
        t.add("./many/%s-%d" % ("n" * 100, n), data=b"x" * n)
    t.end()

def debugfs(image, *commands):
    text = "\n".join(commands) + "\n"
    return subprocess.run(["/sbin/debugfs", "-f", "-", image], input=text.encode(), capture_output=True).stdout.decode(errors="replace")

def is_whole(image):
    raw = path("raw")
    r = run("disk", "convert", image, raw, "--to", "raw")
    check("convert", r.returncode == 0, r)
    r = subprocess.run(["/sbin/e2fsck", "-fn", raw], capture_output=True)
    check("e2fsck", r.returncode == 0, r.stdout.decode())
    return raw

def builds():
    root_tar("root.tar.gz")
    r = run("image", "build", path("root.tar.gz"), path("one.vhdx"), "--size", "256M")
    check("build", r.returncode == 0, r)
    raw = is_whole(path("one.vhdx"))
    said = debugfs(raw, "stat /etc/old", "stat /dev/one", "stat /dev/other", "stat /bin/busybox", "ea_list /made/on/the/way", "cat /etc/fstab", "stat /etc/link", "ls /many")
    for text in ("User: 70000", "Group:    42", "Links: 2", "01:03", "259:70000", "Mode:  04755", "user.word", "/ ext4 defaults 0 1", "x" * 50, "-299"):
        check("has " + text, text in said, said[:3000])
    check("of another file system", "trusted" not in said)
    subprocess.run(["/sbin/debugfs", "-R", "dump /made/on/the/way " + path("way"), raw], capture_output=True)
    check("data", open(path("way"), "rb").read() == big)
    os.unlink(raw)
    r = run("image", "build", path("root.tar.gz"), path("one.vhdx"))
    check("replaced", r.returncode == 65 and b"exists" in r.stderr, r)

def of_a_folder():
    top = path("folder")
    for d in ("sbin", "etc", "boot"):
        os.makedirs(os.path.join(top, d))
    for name, text in (("boot/vmlinuz-1", "kernel"), ("sbin/init", "init"), ("etc/fstab", "LABEL=mine / ext4 defaults 0 1\n")):
        open(os.path.join(top, name), "w").write(text)
    os.link(top + "/etc/fstab", top + "/etc/second")
    os.symlink("/etc/fstab", top + "/etc/third")
    os.mkfifo(top + "/etc/pipe")
    os.chmod(top + "/sbin/init", 0o755)
    for given in (top, top + "//"):
        if os.path.exists(path("two.vhdx")):
            os.unlink(path("two.vhdx"))
        r = run("image", "build", given, path("two.vhdx"), "--size", "64M", "--agent", "none")
        check("build of a folder", r.returncode == 0, r)
        raw = is_whole(path("two.vhdx"))
        said = debugfs(raw, "cat /etc/fstab", "stat /etc/second", "stat /etc/third", "stat /usr")
        for text in ("LABEL=mine", "Links: 2", "Type: symlink"):
            check("has " + text, text in said, said)
        check("no agent", "Type: directory" not in said)
        os.unlink(raw)

def is_refused():
    def refused(text, *words):
        r = run("image", "build", *words)
        check(" ".join(words), r.returncode in (64, 65) and text in r.stderr.decode() and r.stderr.count(b"\n") == 1, r)
        check("nothing is left", not [n for n in os.listdir(work.name) if "bad" in n and "vhdx" in n], os.listdir(work.name))
    Tar("bad-dots.tar").add("sbin/../../x", data=b"x").end()
    refused("Invalid", path("bad-dots.tar"), path("bad.vhdx"), "--size", "16M")
    Tar("bad-through.tar").add("a", tarfile.SYMTYPE, linkname="/etc").add("a/x", data=b"x").end()
    refused("Not a directory", path("bad-through.tar"), path("bad.vhdx"), "--size", "16M")
    Tar("bad-link.tar").add("a", tarfile.LNKTYPE, linkname="/etc/passwd").end()
    refused("No such file", path("bad-link.tar"), path("bad.vhdx"), "--size", "16M")
    Tar("bad-kind.tar").add("a", tarfile.DIRTYPE).add("a", data=b"x").end()
    refused("Is a directory", path("bad-kind.tar"), path("bad.vhdx"), "--size", "16M")
    Tar("bad-long.tar").add("n" * 256, data=b"x").end()
    refused("too long", path("bad-long.tar"), path("bad.vhdx"), "--size", "16M")
    Tar("bad-full.tar").add("a", data=bytes(os.urandom(1 << 20) * 20)).end()
    refused("does not fit", path("bad-full.tar"), path("bad.vhdx"), "--size", "16M")
    Tar("bad-attribute.tar").add("a", data=b"x", pax_headers={"SCHILY.xattr.user.word": "x" * 8000}).end()
    refused("does not fit", path("bad-attribute.tar"), path("bad.vhdx"), "--size", "16M")
    Tar("bad-kernel.tar").add("sbin/init", data=b"x").end()
    refused("vmlinuz", path("bad-kernel.tar"), path("bad.vhdx"), "--size", "16M")
    open(path("bad-none.tar"), "wb").write(os.urandom(5000))
    refused("", path("bad-none.tar"), path("bad.vhdx"), "--size", "16M")
    whole = open(path("root.tar.gz"), "rb").read()
    open(path("bad-short.tar"), "wb").write(whole[:len(whole) // 2])
    refused("", path("bad-short.tar"), path("bad.vhdx"), "--size", "256M")
    refused("No such file", path("bad-not-there"), path("bad.vhdx"), "--size", "16M")
    refused("not a size", path("root.tar.gz"), path("bad.vhdx"), "--size", "1M")
    refused("a tree and an image", path("root.tar.gz"))
    refused("No such file", path("root.tar.gz"), path("bad.vhdx"), "--agent", path("bad-not-there"))
    def run_refused(text, *words):
        r = run("run", *words, path("one.vhdx"))
        check(" ".join(words), r.returncode in (64, 65) and text in r.stderr.decode() and r.stderr.count(b"\n") == 1, r)
    run_refused("needs a name", "--user-data", path("root.tar.gz"))
    run_refused("not a public key", "--name", "n", "--ssh-key", path("root.tar.gz"))
    open(path("keys"), "w").write("ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n")
    run_refused("one line", "--name", "n", "--ssh-key", path("keys"))
    run_refused("No such file", "--name", "n", "--user-data", path("not-there"))
    open(path("copy.vhdx"), "wb").write(open(path("one.vhdx"), "rb").read())
    run_refused("a copy of the disk that boots", "--disk", path("copy.vhdx"))

def boots():
    open(path("key.pub"), "w").write("ssh-ed25519 AAAAC3Nz somebody\n")
    open(path("data"), "w").write("#cloud-config\nhostname: given\n")
    words = ("run", "--detach", "--name", "built", "--memory", "512M", "--disk", path("two.vhdx"), "--user-data", path("data"), "--ssh-key", path("key.pub"), path("one.vhdx"))
    seed = path("umbra/.seed-built")
    r = run(*words)
    check("run", r.returncode == 0, r)
    check("a seed is secret", stat.S_IMODE(os.stat(seed).st_mode) == 0o600)
    until = time.time() + 60
    while run("exec", "-T", "built", "--", "true").returncode and time.time() < until:
        time.sleep(0.1)
    r = run("exec", "-T", "built", "--", "sh", "-c", "cat /etc/os-release; mkdir -p /mnt; mount -t iso9660 -o ro $(findfs LABEL=CIDATA || findfs LABEL=cidata) /mnt && cat /mnt/*-data && cmp /mnt/umbra-agent /usr/local/sbin/umbra-agent && cmp /etc/long-link /sbin/init && echo SAME")
    said = r.stdout.decode()
    for text in ("ID=test", "hostname: given", "AAAAC3Nz somebody", '"local-hostname": "built"', "instance-id", "#!/bin/sh\n", "umbra-seed", "SAME"):
        check("the guest sees " + text, text in said, r, run("console", "--once", "built").stdout[-1000:])
    check("stop", run("stop", "built").returncode == 0)
    until = time.time() + 60 # who looks for a machine that is gone removes what it has left
    while os.path.exists(seed) and time.time() < until:
        run("info", "built")
        time.sleep(0.1)
    check("its seed goes", not os.path.exists(seed))

for part in builds, of_a_folder, is_refused, boots:
    part()
sys.exit(failed)
