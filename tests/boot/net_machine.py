"""Linux with networks and the agent, which a test forks or saves: what it consists of, how it begins, and what the test asks it. The test's own arguments are
UMBRA AGENT; it ends with `failed`, by the name of its module."""
import atexit, os, socket, subprocess, sys, tempfile, time

import peer_program

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
test = os.path.basename(sys.argv[0])[:-len(".py")]
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
peer = peer_program.make("tests/boot/net_peer.c")
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "vsock", "hv_sock", "failover", "net_failover", "hv_netvsc")]
subprocess.run(["tools/fetch-guest", "tests/boot/forked.init", "build/guest/forked.cpio.gz"] + modules + [agent, peer], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)


def check(what, good, *more):
    global failed
    if not good:
        print(test + ":", what, *more)
        failed = 1


def run(*words, timeout=180):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


def guest(name, text):
    return run("exec", "-T", name, "--", "sh", "-c", text).stdout.strip()


def until(what, good, *more):
    end = time.time() + 120
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


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def begin(switch):
    """The machine `one`, with a network in user mode and one on a switch of this name, whose agent answers. All machines end with the test."""
    atexit.register(end_all)
    process = subprocess.Popen([umbra, "run", "--name", "one", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/forked.cpio.gz", "--cpus", "2",
                                "--append", "console=ttyS0 quiet", "--net", "user,host-loopback", "--net", "switch=" + switch], env=env, stdin=subprocess.DEVNULL,
                               stdout=open(os.path.join(work.name, "one.log"), "wb"), stderr=subprocess.STDOUT)
    until("the agent answers", lambda: guest("one", "echo here") == "here")
    check("DHCP", guest("one", "join && ifconfig eth1 10.9.0.1 up && echo joined") == "joined")
    return process


def begin_flow():
    """A connection of `one` with a program of the host, which is checked byte for byte until end_flow()."""
    port = free_port()
    host = subprocess.Popen([peer, "listen", str(port)], stdout=subprocess.DEVNULL)
    atexit.register(host.kill)
    guest("one", "(net_peer check-give-until 10.0.2.2 %d /tmp/enough && echo WHOLE || echo CUT) >/tmp/given 2>&1 &" % port)
    until("bytes go", lambda: int(guest("one", "cat /sys/class/net/eth0/statistics/tx_bytes") or 0) > 1000000)


def end_flow(what):
    guest("one", "touch /tmp/enough")
    until(what, lambda: "WHOLE" in guest("one", "cat /tmp/given"), guest("one", "cat /tmp/given"))
