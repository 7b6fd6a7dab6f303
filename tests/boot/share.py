#!/usr/bin/env python3
# Folders of the host in a Linux guest (umbra share): read and written, a tree of files, links and what is refused; read-only; several at
# once; and what happens when the one or the other ends. share.py UMBRA AGENT
import hashlib, os, signal, stat, subprocess, sys, tempfile, time

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "vsock", "hv_sock", "fuse")]
subprocess.run(["tools/fetch-guest", "tests/boot/share.init", "build/guest/share.cpio.gz"] + modules + [agent], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name, HOME=work.name)

def check(what, good, *more):
    global failed
    if not good:
        print("share:", what, *more)
        failed = 1

def path(*names):
    return os.path.join(work.name, *names)

def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=100)

def guest(*words):
    return run("exec", "-T", "one", "--", *words)

def shell(text):
    return guest("sh", "-c", text)

def wait_for(what, good):
    until = time.time() + 90
    while not good() and time.time() < until:
        time.sleep(0.1)
    check(what, time.time() < until, run("console", "--once", "one").stdout[-1500:])

def share(*words):
    it = subprocess.Popen([umbra, "share", *words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = it.stdout.readline()
    check("share", b" in one" in said, words, said, it.poll() and it.stderr.read())
    return it

def end(it, where):
    it.terminate()
    it.wait()
    wait_for("it is gone", lambda: shell("grep -q ' %s fuse' /proc/mounts" % where).returncode)

def make(name, data):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    open(path(name), "wb").write(data)

big = os.urandom(3000001)
make("folder/big", big)
make("folder/sub/deep/small", b"small\n")
make("outside/secret", b"of the host\n")
os.symlink(path("outside/secret"), path("folder/out"))
os.symlink("../outside", path("folder/up"))
os.symlink("sub/deep/small", path("folder/in"))
os.mkfifo(path("folder/pipe"))
r = run("run", "--detach", "--name", "one", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/share.cpio.gz", "--append",
        "console=ttyS0 quiet")
check("run", r.returncode == 0, r)
wait_for("the agent", lambda: not guest("true").returncode)

def reads():
    said = shell("cd /mnt/folder && sha256sum big && cat in && ls -A && ls -A sub/deep && stat -c '%u %g %a' sub").stdout.decode().strip().split("\n")
    check("a file", said[0].split()[:1] == [hashlib.sha256(big).hexdigest()], said)
    check("a link within", said[1] == "small", said)
    check("all that is shown", set(said[2:-1]) == {"big", "in", "out", "sub", "up", "small"}, said)
    check("whose they are", said[-1] == "0 0 755", said)
    check("a link out is the guest's to follow", shell("cat /mnt/folder/out; cat /mnt/folder/up/secret").stdout == b"")
    r = shell("cat /mnt/folder/pipe")
    check("a pipe is not there", r.returncode and b"ermission" in r.stderr, r)

it = share("one", path("folder"))
reads()
r = shell("""cd /mnt/folder && echo of mine >new && mkdir -p a/b && mv new a/b/moved && ln a/b/moved a/second && ln -s ../sub a/link && chmod 640 a/second &&
    touch -d '2001-02-03 04:05:06' a/second && dd if=/dev/zero of=a/zeros bs=1000 count=777 2>/dev/null && truncate -s 5 a/b/moved && echo more >>a/b/moved""")
check("writes", r.returncode == 0, r)
check("what was written", open(path("folder/a/b/moved"), "rb").read() == b"of mimore\n", open(path("folder/a/b/moved"), "rb").read())
st = os.stat(path("folder/a/second"))
check("its mode, and its names", stat.S_IMODE(st.st_mode) == 0o640 and st.st_nlink == 2, st)
check("zeros", os.path.getsize(path("folder/a/zeros")) == 777000 and os.readlink(path("folder/a/link")) == "../sub")
for what, told in ("ln -s /etc/passwd x", "not permitted"), ("ln -s ../../outside a/x", "not permitted"), ("mkfifo x", "not permitted"), ("mknod x c 1 3", "not permitted"), \
        ("chown 5 big", "not permitted"), ("mkdir sub", "exists"), ("rmdir sub", "not empty"), ("cat none", "No such"), ("ln -s . here && ln -s here/../x a/x", "not permitted"), ("ln -s ../.. a/x", "not permitted"):
    r = shell("cd /mnt/folder && " + what)
    check("refused", r.returncode and told in r.stderr.decode(), what, r)
r = shell("cd /mnt/folder/a && chmod 7777 second; cp /bin/busybox run; chmod 4755 run; ls -l second run")
check("no more rights", b"-rwxrwxrwx" in r.stdout and b"-rwxr-xr-x" in r.stdout, r)
# a tree, and its end; a file that is removed while it is open
r = shell("""cd /mnt/folder && n=0; mkdir tree; while [ $n -lt 300 ]; do mkdir -p tree/$((n%7)); echo $n >tree/$((n%7))/$n; n=$((n+1)); done;
    find tree -type f | wc -l; cat tree/*/* | md5sum; (rm big; wc -c) <big; rm -r tree; ls tree""")
check("a tree", r.stdout.split()[:1] == [b"300"] and r.stdout.split()[-1] == b"3000001" and b"No such" in r.stderr and not os.path.exists(path("folder/tree")), r)
check("nothing else is there", sorted(os.listdir(path("outside"))) == ["secret"])
# what changes on the host is seen, and a second folder is there beside it
make("folder/later", b"later\n")
wait_for("from the host", lambda: shell("cat /mnt/folder/later").stdout == b"later\n")
# what the guest has of a file's bytes goes when the file changes, also when it is as long as before; that there is none is believed no longer than that
os.utime(path("folder/later"), (1e9, 1e9))
wait_for("an old file", lambda: shell("cat /mnt/folder/later; cat /mnt/folder/sudden").stdout == b"later\n")
make("folder/later", b"newer\n")
make("folder/sudden", b"sudden\n")
wait_for("a change of as many bytes", lambda: shell("cat /mnt/folder/later").stdout == b"newer\n")
wait_for("a file that was not there", lambda: shell("cat /mnt/folder/sudden").stdout == b"sudden\n")
make("other/file", b"other\n")
other = share("--read-only", "one", path("other"), "/mnt/second")
check("another one", shell("cat /mnt/second/file").stdout == b"other\n")
for what in "touch /mnt/second/file", "rm /mnt/second/file", "mkdir /mnt/second/x", "echo x >>/mnt/second/file", "mount -o remount,rw /mnt/second && touch /mnt/second/x":
    r = shell(what)
    check("read-only", r.returncode and b"Read-only" in r.stderr, what, r)
check("as it was", os.listdir(path("other")) == ["file"])
end(other, "/mnt/second")
# alone: what the guest does is there at once, on both sides
other = share("--alone", "one", path("other"), "/mnt/second")
r = shell("cd /mnt/second && cat none; echo a >none && cat none && mkdir d && mv none d/there && rm file && ln -s there d/link && cat d/link && ls d; cat none file")
check("alone", r.stdout == b"a\na\nlink\nthere\n" and r.stderr.count(b"No such") == 3, r)
check("on the host", os.listdir(path("other")) == ["d"] and open(path("other/d/there"), "rb").read() == b"a\n")
end(other, "/mnt/second")
check("the first goes on", shell("cat /mnt/folder/later").stdout == b"newer\n")
# ends: of who serves, by force, and of who has mounted
it.send_signal(signal.SIGKILL)
it.wait()
wait_for("it is gone", lambda: shell("grep -q /mnt/folder /proc/mounts").returncode)
it = share("one", path("folder"))
check("again", shell("umount /mnt/folder").returncode == 0)
check("it ends with the mount", it.wait(60) == 0, it.stderr.read())
for bad, code, told in (("none", path("folder")), 65, "no machine"), (("one", path("nowhere")), 65, "nowhere"), (("one", path("outside/secret")), 65, "secret"), \
        (("one", path("folder"), "relative"), 65, "relative"), (("one",), 64, "arguments"):
    r = run("share", *bad)
    check("refused", r.returncode == code and told in r.stderr.decode() and r.stderr.count(b"\n") == 1, bad, r)
it = share("one", path("folder"))
check("stop", run("stop", "one").returncode == 0)
check("it ends with the machine", it.wait(60) in (0, 70), it.stderr.read())
sys.exit(failed)
