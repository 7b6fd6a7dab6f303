#!/usr/bin/env python3
# Linux with its own drivers, and disks that come, go and grow while it runs: a file system written in one and read on the host, a chain with a seal,
# discs in a drive (sr_mod, isofs), and what is refused. hot_disk.py UMBRA AGENT
import atexit, hashlib, json, os, random, shutil, subprocess, sys, tempfile, time

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
names = ("hv_vmbus", "scsi_common", "scsi_mod", "scsi_transport_fc", "hv_storvsc", "sd_mod", "cdrom", "sr_mod", "isofs", "hv_utils", "vsock", "hv_sock")
modules = ["build/guest/modules/%s.ko" % name for name in names]
subprocess.run(["tools/fetch-guest", "tests/boot/hot_disk.init", "build/guest/hot_disk.cpio.gz"] + modules + [agent], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)

def check(what, good, *more):
    global failed
    if not good:
        print("hot_disk:", what, *more)
        failed = 1

def path(name):
    return os.path.join(work.name, name)

def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=180)

def must(*words):
    done = run(*words)
    check(" ".join(words), done.returncode == 0, done.returncode, done.stderr)
    return done.stdout.decode()

def refused(code, text, *words):
    done = run(*words)
    said = done.stderr.decode()
    check("not refused: " + " ".join(words), done.returncode == code and text in said and said.count("\n") == 1, done.returncode, said)

def guest(script):
    done = run("exec", "-T", "one", "--", "sh", "-c", script)
    return done.stdout.decode().strip() if done.returncode == 0 else "FAILED %d %s" % (done.returncode, done.stderr.decode())

def eventually(what, script, wanted):
    until = time.time() + 120
    said = guest(script)
    while said != wanted and time.time() < until:
        time.sleep(0.1)
        said = guest(script)
    check(what, said == wanted, said, "and not", wanted)

def start(name, *words):
    console = open(path(name + ".console"), "wb")
    p = subprocess.Popen([umbra, "run", "--name", name, "--socket", path(name), "--time-limit", "600", *words], env=env, stdin=subprocess.DEVNULL,
                         stdout=console, stderr=subprocess.STDOUT)
    atexit.register(p.kill)
    until = time.time() + 240
    while time.time() < until and p.poll() is None and run("exec", "-T", name, "--", "true").returncode:
        time.sleep(0.1)
    check("no agent in " + name, time.time() < until and p.poll() is None, open(path(name + ".console"), "rb").read()[-2000:])
    return p

def disks(name="one"):
    return json.loads(must("info", "--json", name)).get("disks")

def lun(n):  # which device of the guest's it is
    return "$(ls /sys/bus/scsi/devices/0:0:0:%d/block 2>/dev/null)" % n

def random_file(name, count):
    with open(path(name), "wb") as to:
        to.write(random.Random(name).randbytes(count))
    return hashlib.md5(open(path(name), "rb").read()).hexdigest()

def disc(name, *members):
    os.mkdir(path(name + ".d"))
    sums = {member: random_file(name + ".d/" + member, count) for member, count in members}
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", path(name), path(name + ".d")], check=True, stderr=subprocess.DEVNULL)
    return sums

must("disk", "create", path("first.vhdx"), "--size", "32M")
must("disk", "create", path("base.vhdx"), "--size", "64M")
must("disk", "create", path("top.vhdx"), "--parent", path("base.vhdx"))
one = start("one", "--cpus", "2", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/hot_disk.cpio.gz", "--append", "console=ttyS0 quiet",
            "--disk", path("first.vhdx"), "--dvd", "")

# one comes, with a parent; a file system is written; it goes, and another program reads it on the host
check("its number", must("disk", "attach", "one", path("top.vhdx"), "--json") == '{"disk": 2}\n')
check("what info says of it", disks()[2]["file"] == os.path.realpath(path("top.vhdx")), disks())
eventually("a disk that comes is not seen", "cat /sys/block/%s/size" % lun(2), "131072")
refused(65, "in use", "disk", "attach", "one", path("top.vhdx"))
check("mkfs", "FAILED" not in guest("mke2fs /dev/%s >/dev/null 2>&1; mount -t ext2 /dev/%s /mnt && dd if=/dev/urandom of=/mnt/a bs=100003 count=10 2>/dev/null; umount /mnt" % (lun(2), lun(2))))
summed = guest("mount -t ext2 /dev/%s /mnt && md5sum </mnt/a && umount /mnt" % lun(2)).split()
must("disk", "detach", "one", path("top.vhdx"))
check("it is still said of", disks()[2] is None, disks())
eventually("a disk that goes is still seen", "ls /sys/bus/scsi/devices | grep -c 0:0:0:2", "FAILED 1 ")
must("disk", "check", path("top.vhdx"), "--chain")
must("disk", "convert", path("top.vhdx"), path("flat"), "--to", "raw")
read = subprocess.run(["/sbin/debugfs", "-R", "cat /a", path("flat")], capture_output=True).stdout
check("what the guest wrote", summed[:1] == [hashlib.md5(read).hexdigest()], summed, len(read))
check("its history", "detached" in must("image", "history", path("top.vhdx")))
os.remove(path("flat"))

# the seal of a child whose parent has changed behind it holds here, too
os.chmod(path("base.vhdx"), 0o644)
must("disk", "write", path("base.vhdx"), "--offset", "0", "--from", path("first.vhdx"))
refused(65, "", "disk", "attach", "one", path("top.vhdx"))

# raw, read-only; and one that grows, at the same number as the one before
random_file("only", 4 << 20)
check("its number", must("disk", "attach", "one", path("only") + ",format=raw,readonly") == "disk 2\n")
eventually("a disk that is only read", "md5sum </dev/%s" % lun(2), hashlib.md5(open(path("only"), "rb").read()).hexdigest() + "  -")
refused(65, "only read", "disk", "resize", "2", "--machine", "one", "--size", "8M")
must("disk", "detach", "one", "2")
refused(65, "Invalid", "disk", "resize", "0", "--machine", "one", "--size", "16M")
must("disk", "resize", path("first.vhdx"), "--machine", "one", "--size", "48M")
eventually("a disk that has grown", "cat /sys/block/%s/size" % lun(0), "98304")
check("what is at its end", guest("echo end >/tmp/e; dd if=/tmp/e of=/dev/%s bs=512 seek=98303 conv=notrunc 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/%s bs=512 skip=98303 2>/dev/null | head -n 1" % (lun(0), lun(0))) == "end")

# discs: into the drive that is there, checked, changed by the guest's leave only
sums = disc("one.iso", ("a", 3000001), ("b", 17))
more = disc("two.iso", ("c", 900000))
check("into the drive", must("disk", "attach", "one", path("one.iso") + ",dvd", "--json") == '{"disk": 1}\n')
eventually("a disc", "mount -t iso9660 -o ro /dev/sr0 /disc 2>/dev/null; cd /disc; md5sum a b", "%s  a\n%s  b" % (sums["a"], sums["b"]))
refused(65, "kept in its drive", "disk", "detach", "one", "1")
check("umount", guest("umount /disc; eject -T /dev/sr0 2>/dev/null; echo") == "")
must("disk", "detach", "one", path("one.iso"))
check("what info says of an empty drive", disks()[1].get("dvd") and "file" not in disks()[1], disks())
eventually("an empty drive", "dd if=/dev/sr0 of=/dev/null count=1 2>/dev/null || echo none", "none")
must("disk", "attach", "one", path("two.iso") + ",dvd")
eventually("another disc", "mount -t iso9660 -o ro /dev/sr0 /disc 2>/dev/null; md5sum </disc/c", more["c"] + "  -")
check("umount", guest("umount /disc; echo") == "")
must("disk", "detach", "one", "1")
must("disk", "detach", "one", "1")  # the drive itself
refused(65, "no disk of the machine one is that", "disk", "detach", "one", "1")

# as many as there are places, while what is there is read
guest("(while :; do dd if=/dev/%s of=/dev/null bs=64k iflag=direct 2>/dev/null; done) >/dev/null 2>&1 &" % lun(0))
for n in range(5):
    must("disk", "create", path("more%d.vhdx" % n), "--size", "8M")
for n in range(5):
    must("disk", "attach", "one", path("more%d.vhdx" % n))
refused(65, "no place", "disk", "attach", "one", path("only") + ",format=raw,readonly")
eventually("all of them", "ls /sys/block | grep -c sd", "6")
for n in (3, 0, 4):
    must("disk", "detach", "one", path("more%d.vhdx" % n))
eventually("those that are left", "ls /sys/block | grep -c sd", "3")

# what is left is what a machine goes on with that was saved, also the holes
must("save", "one", path("saved"), "--stop")
one.wait(60)
must("disk", "check", path("more1.vhdx"))
start("two", "--restore", path("saved"))
check("its disks then", [bool(about) for about in disks("two")] == [bool(n) for n in (1, 0, 1, 1, 0, 0)][:len(disks("two"))], disks("two"))
done = run("exec", "-T", "two", "--", "sh", "-c", "ls /sys/block | grep -c sd; dd if=/dev/sda of=/dev/null bs=1M count=4 iflag=direct 2>/dev/null && echo reads")
check("restored", done.stdout == b"3\nreads\n", done)
must("disk", "attach", "two", path("only") + ",format=raw,readonly")
refused(65, "", "disk", "attach", "two", path("first.vhdx") + ",format=vmdk")
refused(64, "not of a disk", "disk", "attach", "two", path("only") + ",format=raw,direct")
refused(65, "No such file", "disk", "attach", "two", path("nothing"))
refused(65, "no machine", "disk", "attach", "three", path("only") + ",format=raw")
must("stop", "two")
sys.exit(failed)
