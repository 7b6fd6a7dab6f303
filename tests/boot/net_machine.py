"""Linux with networks and the agent, which a test forks or saves: what it consists of, and what the test asks it. The test's own arguments are
UMBRA AGENT; it ends with `failed`, by the name of its module."""
import os, subprocess, sys, tempfile, time

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
test = os.path.basename(sys.argv[0])[:-len(".py")]
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
peer = "build/guest/net_peer"
if not os.path.exists(peer) or os.path.getmtime(peer) < os.path.getmtime("tests/boot/net_peer.c"):
    subprocess.run(["cc", "-O2", "-static", "-o", peer + ".new", "tests/boot/net_peer.c"], check=True)
    os.rename(peer + ".new", peer)
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "vsock", "hv_sock", "failover", "net_failover", "hv_netvsc")]
subprocess.run(["tools/fetch-guest", "tests/boot/forked.init", "build/guest/forked.cpio.gz"] + modules + [agent, peer], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)


def check(what, good, *more):
    global failed
    if not good:
        print(test + ":", what, *more)
        failed = 1


def run(*words, timeout=90):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def guest(name, text):
    return run("exec", "-T", name, "--", "sh", "-c", text).stdout.strip()


def until(what, good, *more):
    end = time.time() + 60
    while time.time() < end:
        if good():
            return True
        time.sleep(0.05)
    check("waited in vain: " + what, False, *more)
    return False


def end_all():
    for name in [l.split()[0] for l in run("ps").stdout.split("\n")[1:] if l]:
        run("kill", name)


def mac(name, card):
    return guest(name, "cat /sys/class/net/eth%d/address" % card)
