#!/usr/bin/env python3
# A tree of small files by every way between host and guest: shared folders (each way, for reading alone, and with nobody else in it), an archive through
# umbra exec and umbra cp, and the guest's own copying daemon. Each file is compared at the other end; files a second are said. tree.py UMBRA AGENT [FILES]
import os, subprocess, sys, tempfile, time

import peer_program

umbra, agent, files = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "120"
failed = 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
peer = peer_program.make("tests/boot/tree_peer.c")
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "vsock", "hv_sock", "fuse")]
libraries = [w for w in subprocess.run(["ldd", "build/guest/hv_fcopy_daemon"], stdout=subprocess.PIPE, text=True).stdout.split() if w.startswith("/")]
subprocess.run(["tools/fetch-guest", "tests/boot/share.init", "build/guest/tree.cpio.gz"] + modules + [agent, peer, "build/guest/hv_fcopy_daemon"] + libraries, check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name, HOME=work.name)


def check(what, good, *more):
    global failed
    if not good:
        print("tree:", what, *more)
        failed = 1
    return good


def path(*names):
    return os.path.join(work.name, *names)


def run(*words, **more):
    return subprocess.run([umbra, *words], env=env, stdin=more.pop("stdin", subprocess.DEVNULL), capture_output=True, timeout=6000, **more)


def guest(*words, **more):
    return run("exec", "-T", "one", "--", *words, **more)


def wait_for(what, good):
    until = time.time() + 90
    while not good() and time.time() < until:
        time.sleep(0.1)
    check(what, time.time() < until, run("console", "--once", "one").stdout[-1500:])


def said(way, result):
    text = result.stdout.decode()
    if check(way, result.returncode == 0 and "a second" in text, result):
        print("%-34s %s" % (way, text.split(": ")[-1].strip()))


def host(way, what, folder):
    said(way, subprocess.run([peer, what, folder, files], capture_output=True))


def within(way, what, folder):
    said(way, guest("tree_peer", what, folder, files))


def share(*words):
    it = subprocess.Popen([umbra, "share", *words], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    line = it.stdout.readline()
    check("share", b" in one" in line, words, line)
    return it


def end(it, where):
    it.terminate()
    it.wait()
    wait_for("it is gone", lambda: guest("grep", "-q", " %s fuse" % where, "/proc/mounts").returncode)


def by_shares():
    os.mkdir(path("folder"))
    for manner in (), ("--alone",):
        it = share(*manner, "one", path("folder"), "/mnt/folder")
        within("share %s: made in the guest" % " ".join(manner), "make", "/mnt/folder/made" + "".join(manner))
        host("  as the host sees it", "check", path("folder", "made" + "".join(manner)))
        within("  read in the guest", "check", "/mnt/folder/made" + "".join(manner))
        within("  once more", "check", "/mnt/folder/made" + "".join(manner))
        end(it, "/mnt/folder")
    it = share("--read-only", "one", path("tree"), "/mnt/tree")
    within("share --read-only", "check", "/mnt/tree")
    end(it, "/mnt/tree")


def by_archives():
    subprocess.run(["tar", "-C", path("tree"), "-cf", path("tar"), "."], check=True)
    begin = time.time()
    with open(path("tar")) as archive:
        r = guest("sh", "-c", "mkdir /tmp/piped && tar -C /tmp/piped -x", stdin=archive)
    check("tar | umbra exec tar", r.returncode == 0, r)
    print("%-34s %.0f a second" % ("tar | umbra exec tar", int(files) / (time.time() - begin)))
    within("  compared", "check", "/tmp/piped")
    for way in ("cp",), ("cp", "--service"):
        begin = time.time()
        r = run(*way, path("tar"), "one:/tmp/" + "".join(way))
        check(way, r.returncode == 0, r)
        r = guest("sh", "-c", "mkdir /tmp/there && tar -C /tmp/there -xf /tmp/" + "".join(way))
        check("tar", r.returncode == 0, r)
        print("%-34s %.0f a second" % ("umbra " + " ".join(way) + " of a tar", int(files) / (time.time() - begin)))
        within("  compared", "check", "/tmp/there")
        guest("rm", "-r", "/tmp/there", "/tmp/" + "".join(way))
    with open(path("back"), "wb") as archive:
        subprocess.run([umbra, "exec", "-T", "one", "--", "tar", "-C", "/tmp/piped", "-c", "."], env=env, stdin=subprocess.DEVNULL, stdout=archive, timeout=6000)
    os.mkdir(path("backwards"))
    subprocess.run(["tar", "-C", path("backwards"), "-xf", path("back")], check=True)
    host("umbra exec tar | tar", "check", path("backwards"))


r = run("run", "--detach", "--name", "one", "--memory", "1G", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/tree.cpio.gz", "--append", "console=ttyS0 quiet")
check("run", r.returncode == 0, r)
try:
    wait_for("the agent", lambda: not guest("true").returncode)
    host("the host's own: made", "make", path("tree"))
    host("  compared", "check", path("tree"))
    by_shares()
    by_archives()
    check("stop", run("stop", "one").returncode == 0)
finally:
    run("kill", "one")
sys.exit(failed)
