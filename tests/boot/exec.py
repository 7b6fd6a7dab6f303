#!/usr/bin/env python3
# Linux with hv_sock and the agent: umbra exec and cp, connections both ways, who does not read, who is not there, limits, a relay that dies.
# exec.py UMBRA AGENT
import atexit, hashlib, os, pty, select, signal, socket, struct, subprocess, sys, tempfile, threading, time

import peer_program

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
peer = peer_program.make("tests/boot/vsock_peer.c")
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "vsock", "hv_sock")]
subprocess.run(["tools/fetch-guest", "tests/boot/exec.init", "build/guest/exec.cpio.gz"] + modules + [agent, peer], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)

def check(what, good, *more):
    global failed
    if not good:
        print("exec:", what, *more)
        failed = 1

def path(name):
    return os.path.join(work.name, name)

def run(*words, **more):
    return subprocess.run([umbra, *words], env=env, stdin=more.pop("stdin", subprocess.DEVNULL) if "input" not in more else None, capture_output=True, timeout=60, **more)

def guest(*words, **more):
    return run("exec", "-T", "one", "--", *words, **more)

def start():
    p = subprocess.Popen([umbra, "run", "--name", "one", "--socket", path("s"), "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/exec.cpio.gz", "--cpus", "2",
                          "--append", "console=ttyS0 quiet", "--statistics"], env=env, stdin=subprocess.DEVNULL, stdout=open(path("console"), "wb"), stderr=subprocess.STDOUT)
    atexit.register(p.kill)
    until = time.time() + 60
    while time.time() < until and b"SERVES" not in open(path("console"), "rb").read():
        time.sleep(0.05)
    if run("exec", "-T", "--wait", "60", "one", "--", "true").returncode:
        print("exec: no agent answers", guest("true"), open(path("console"), "rb").read()[-1000:])
        p.kill()
        sys.exit(1)
    return p

def connect(port):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(path("s"))
    s.sendall(b"CONNECT %d\n" % port)
    return s

def line(s):
    said = b""
    while not said.endswith(b"\n"):
        byte = s.recv(1)
        if not byte:
            return said
        said += byte
    return said

def all_of(s):
    parts = []
    while True:
        part = s.recv(1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)

def executes():
    r = guest("sh", "-c", "cat; echo wrong >&2; exit 7", input=b"some\n")
    check("streams and code", (r.returncode, r.stdout, r.stderr) == (7, b"some\n", b"wrong\n"), r)
    r = guest("not-there")
    check("no such program", r.returncode == 127 and b"not-there" in r.stderr, r)
    check("killed", guest("sh", "-c", "kill -9 $$").returncode == 137)
    r = run("exec", "-T", "--env", "WORD=a b", "one", "sh", "-c", "echo $WORD; pwd")
    check("variables", r.stdout == b"a b\n/root\n", r)
    data = os.urandom(3000001)
    r = guest("cat", input=data)
    check("3 MB both ways", r.stdout == data, len(r.stdout))
    p = subprocess.Popen([umbra, "exec", "-T", "one", "--", "sh", "-c", "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.05; done"], env=env, stdout=subprocess.PIPE)
    check("begins", p.stdout.readline() == b"ready\n")
    p.send_signal(signal.SIGTERM)
    check("a signal", (p.stdout.read(), p.wait(60)) == (b"got\n", 9))
    # who goes hangs up what he has begun
    p = subprocess.Popen([umbra, "exec", "-T", "one", "--", "sleep", "7777"], env=env, stdin=subprocess.DEVNULL)
    until = time.time() + 60
    while b"7777" not in guest("ps").stdout and time.time() < until:
        time.sleep(0.05)
    p.kill()
    p.wait()
    until = time.time() + 60
    while b"sleep 7777" in guest("ps").stdout and time.time() < until:
        time.sleep(0.05)
    check("a program whose caller is gone goes on", time.time() < until)
    for what, words in {"no machine of that name": ("exec", "two", "true"), "no machine and program": ("exec",), "no program": ("exec", "one"), "not a number of seconds": ("exec", "--wait", "soon", "one", "true")}.items():
        r = run(*words)
        check(words, r.returncode in (64, 65) and what.encode() in r.stderr and r.stderr.count(b"\n") == 1, r)

def has_output():
    # who reads no more ends it, as it would a program here; who has no room is told; one of the three that is closed is nobody's
    p = subprocess.Popen([umbra, "exec", "-T", "one", "--", "yes"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    check("yes", p.stdout.readline() == b"y\n")
    p.stdout.close()
    check("nobody reads", (p.wait(60), p.stderr.read()) == (128 + signal.SIGPIPE, b""), p.returncode)
    for words in (["exec", "-T", "one", "--", "echo", "a"], ["ps", "--json"], ["info", "one"], ["--version"]):
        r = subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, stdout=open("/dev/full", "wb"), stderr=subprocess.PIPE, timeout=60)
        check("no room", words, r.returncode == 65 and b"No space left" in r.stderr and r.stderr.count(b"\n") == 1, r)
    for closed, said in (("<&-", b"b\n"), (">&-", b"")):
        r = subprocess.run(["sh", "-c", '"$0" exec -T one -- sh -c "cat; echo b" ' + closed, umbra], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        check("closed", closed, (r.returncode, r.stdout) == (0, said), r)

def stands():
    check("paused", run("pause", "one").returncode == 0)
    r = run("info", "one")
    check("info of who stands still", r.returncode == 0 and b"suspended" in r.stdout and b"processor 0" in r.stdout, r)
    for words in (("info", "--hot", "one"), ("info", "--mmu", "one"), ("info", "--code", "one")):
        r = run(*words)
        check(words, r.returncode == 0 and r.stdout and not r.stderr, r)
    r = run("top", "--once")
    check("top of who stands still", r.returncode == 0 and b"paused" in r.stdout, r)
    check("resumed", run("resume", "one").returncode == 0 and b"processor 0" in run("info", "one").stdout)

def has_terminal():
    pid, fd = pty.fork()
    if not pid:
        os.execve(umbra, ["umbra", "exec", "one", "--", "sh"], env)
    said = b""
    def expect(text):
        nonlocal said
        until = time.time() + 60
        while text not in said and time.time() < until:
            if select.select([fd], [], [], 0.1)[0]:
                try:
                    said += os.read(fd, 4096)
                except OSError:
                    break
        check("on the terminal", text in said, text, said[-300:])
    import fcntl, termios
    expect(b"# ")
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    os.kill(pid, signal.SIGWINCH)
    os.write(fd, b"tty; while [ \"$(stty size)\" != '33 99' ]; do sleep 0.1; done; printf '\\033]0;ti''tle\\007'; echo si''zed\n")
    expect(b"/dev/pts/")
    expect(b"sized")
    check("a title passes", b"\033]0;title" not in said)
    os.write(fd, b"sleep 10000\n")
    time.sleep(0.3)
    os.write(fd, b"\003")
    os.write(fd, b"echo on''wards; exit 5\n")
    expect(b"onwards")
    check("its code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5)

def copies():
    data = os.urandom(1500000)
    open(path("file"), "wb").write(data)
    os.chmod(path("file"), 0o750)
    for to, at in {"one:/root/new": "/root/new", "one:/root": "/root/file"}.items():
        r = run("cp", path("file"), to)
        check("into", to, r.returncode == 0, r)
        r = guest("sh", "-c", "md5sum <%s; stat -c %%a %s" % (at, at))
        check("what came", r.stdout.split() == [hashlib.md5(data).hexdigest().encode(), b"-", b"750"], r)
    r = run("cp", "one:/root/new", path("back"))
    check("out of", r.returncode == 0 and open(path("back"), "rb").read() == data and os.stat(path("back")).st_mode & 0o777 == 0o750, r)
    os.mkdir(path("folder"))
    check("into a folder", run("cp", "one:/root/new", path("folder")).returncode == 0 and os.listdir(path("folder")) == ["new"])
    for words, text in ((("cp", "one:/nothing", path("x")), b"No such file"), (("cp", "one:/root", path("x")), b"Is a directory"), (("cp", path("nothing"), "one:/x"), b"No such file"),
                        (("cp", path("file"), "one:/nowhere/x"), b"No such file"), (("cp", path("file"), path("x")), b"one of both")):
        r = run(*words)
        check(words, r.returncode in (64, 65) and text in r.stderr and r.stderr.count(b"\n") == 1, r)
    for words, where in ((("one:/root/new", path("nowhere/x")), path("nowhere/x")), ((path("file"), "one:/nowhere/x"), "one:/nowhere/x"), (("one:/nothing", path("x")), "one:/nothing")):
        check("whose path it is", run("cp", *words).stderr.startswith(b"umbra: " + where.encode() + b": "), run("cp", *words))
    # what says no length, what is no file, what a link leads to
    r = run("cp", "one:/proc/cmdline", path("line"))
    check("a file of /proc", r.returncode == 0 and open(path("line"), "rb").read() == guest("cat", "/proc/cmdline").stdout, r)
    os.mkfifo(path("fifo"))
    for words in ((path("file"), "one:/dev/null"), ("one:/root/new", path("fifo"))):
        r = run("cp", *words)
        check("no file is replaced by one", r.returncode == 65 and b"no regular file" in r.stderr, r)
    check("the device is there", guest("sh", "-c", "test -c /dev/null").returncode == 0)
    os.symlink("back", path("link"))
    guest("sh", "-c", "ln -s new /root/link; echo >/root/new")
    check("by links", run("cp", path("file"), "one:/root/link").returncode == 0 and run("cp", "one:/root/link", path("link")).returncode == 0 and os.path.islink(path("link")))
    check("where they lead", guest("sh", "-c", "test -h /root/link && md5sum </root/new").stdout.split()[:1] == [hashlib.md5(data).hexdigest().encode()] and open(path("back"), "rb").read() == data)
    check("something is left", not [n for n in os.listdir(work.name) if n.startswith(("x", "back.", "fifo."))], os.listdir(work.name))

def connects():
    # from the host, both directions, each ending by itself
    p = subprocess.Popen([umbra, "exec", "-T", "one", "--", "vsock_peer", "accept", "5000"], env=env, stdout=subprocess.PIPE)
    p.stdout.readline()
    s = connect(5000)
    check("OK", line(s).startswith(b"OK "))
    data = os.urandom(2000003)
    threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)), daemon=True).start()
    check("what comes back", all_of(s) == data)
    check("the guest's program ends", p.wait(60) == 0)
    # from the guest
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path("s_6000"))
    listener.listen()
    listener.settimeout(60)
    p = subprocess.Popen([umbra, "exec", "-T", "one", "--", "vsock_peer", "count", "6000", "1234567"], env=env)
    s = listener.accept()[0]
    check("a million bytes", all_of(s) == bytes(((n * 7) >> 3) & 255 for n in range(1234567)))
    s.close()
    check("the guest's program ends", p.wait(60) == 0)
    check("nobody listens", guest("vsock_peer", "connect", "6001").returncode == 1)

def is_refused():
    for greeting in b"HELLO\n", b"CONNECT \n", b"CONNECT x\n", b"CONNECT 4294967296\n", b"CONNECT 1 2\n", b"x" * 100, b"CONNECT -1\n":
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(path("s"))
        s.sendall(greeting)
        try:
            check("a wrong greeting", s.recv(10) == b"", greeting)
        except ConnectionResetError:
            pass
    s = connect(4999)
    check("a port where nobody is", line(s) == b"")
    # who does not read keeps his own connection waiting
    p = subprocess.Popen([umbra, "exec", "-T", "one", "--", "vsock_peer", "hold", "5001"], env=env, stdout=subprocess.PIPE)
    p.stdout.readline()
    s = connect(5001)
    line(s)
    s.setblocking(False)
    sent = 0
    idle = 0
    while idle < 10:
        try:
            sent += s.send(bytes(1 << 16))
            idle = 0
        except BlockingIOError:
            idle += 1
            time.sleep(0.05)
    check("who does not read takes everything", sent < 8 << 20, sent)
    check("others wait for it", guest("echo", "x").stdout == b"x\n")
    p.kill()
    p.wait()
    s.close()
    # more than there can be at a time: the next ones wait
    waiting = [connect(4998) for _ in range(40)]
    check("after many", [line(w) for w in waiting] == [b""] * 40)
    check("and then", guest("echo", "x").stdout == b"x\n")

# A machine with a name: who listens for its guest does in a folder of its own, and not where a name that begins as its name does leads.
def has_a_folder(names, place):
    check("its sockets alone", os.listdir(place) == ["s"], os.listdir(place))
    for there, port in ((os.path.join(names, ".socket-two_6000"), 6000), (os.path.join(names, "two_6001"), 6001), (os.path.join(place, "s_6002"), 6002)):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(there)
            listener.listen()
            listener.settimeout(60)
            p = subprocess.Popen([umbra, "exec", "-T", "two", "--", "vsock_peer", "connect", str(port)], env=env)
            if there.startswith(place):
                listener.accept()[0].close()
            check("reaches " + there, (p.wait(60) == 0) == there.startswith(place), p.returncode)
        os.unlink(there)

def is_detached():
    names = os.path.join(env["XDG_RUNTIME_DIR"], "umbra")
    place = os.path.join(names, ".sockets-two")
    words = ("run", "--detach", "--name", "two", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/exec.cpio.gz", "--append", "console=ttyS0 quiet")
    r = subprocess.run(["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    check("few descriptors", r.returncode == 65 and b"Too many open files; permit more" in r.stderr and r.stderr.count(b"\n") == 1, r)
    r = run(*words)
    check("detached", (r.returncode, r.stdout, r.stderr) == (0, b"", b""), r)
    r = run(*words)
    check("twice", r.returncode == 64 and b"of that name runs" in r.stderr and r.stderr.count(b"\n") == 1, r)
    until = time.time() + 60
    while b"SERVES" not in run("console", "--once", "two").stdout and time.time() < until:
        time.sleep(0.1)
    readers = [subprocess.Popen([umbra, "console", "two"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in range(2)]
    while run("exec", "-T", "two", "--", "sh", "-c", "echo said later >/dev/console").returncode and time.time() < until:
        time.sleep(0.1)
    has_a_folder(names, place)
    check("stop", run("stop", "two").returncode == 0)
    for reader in readers:
        said = reader.communicate(timeout=60)[0]
        check("a reader of the console", b"SERVES" in said and b"said later" in said and reader.returncode == 0, said[-300:])
    # the folder of its sockets goes with the name, at the latest when somebody takes that again
    check("it is gone", run("info", "two").returncode == 65)

# A relay that ends costs the connections that there are, and nothing else; as does who has started it.
def loses_its_relay(machine):
    def serving():
        rows = [l.split(None, 2) for l in subprocess.run(["ps", "-eo", "pid,ppid,args"], stdout=subprocess.PIPE).stdout.decode().split("\n")[1:] if l]
        starters = {r[0] for r in rows if r[1] == str(machine.pid) and r[2].endswith("--role=supervisor")}
        return [(int(r[0]), int(r[1])) for r in rows if r[2].endswith("--role=relay") and r[1] in starters]
    def lose(pid):
        p = subprocess.Popen([umbra, "exec", "-T", "one", "--", "sh", "-c", "echo here; cat"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        check("here", p.stdout.readline() == b"here\n")
        os.kill(pid, signal.SIGKILL)
        check("what was connected is at its end", p.wait(60) != 0, p.returncode)
        r, until = guest("true"), time.time() + 60
        while r.returncode and time.time() < until:
            r = guest("true")
        check("it is reached again", r.returncode == 0, r)
        until = time.time() + 60
        while b"cat" in guest("ps").stdout and time.time() < until:
            time.sleep(0.1)
        check("the guest's program has ended", time.time() < until)
    for _ in range(3):
        relays = serving()
        check("one relay", len(relays) == 1, relays)
        lose(relays[0][0])
    lose(serving()[0][1])
    for _ in range(80): # as many as there can be at a time, twice: none is lost for good
        if guest("true").returncode:
            check("exec, after other relays", False)
            break

# A connection is used again, and by one after the other: nothing of who had it before is seen, and what has ended is not left in the guest.
def uses_again():
    def agents():
        return sum(l.endswith("umbra-agent") for l in guest("ps").stdout.decode().split("\n"))
    check("agents at rest", agents() <= 6, agents())
    for n in range(40):
        r = guest("sh", "-c", "cat; echo $N; exit %d" % n, input=b"%d\n" % n)
        check("one after the other", (r.returncode, r.stdout, r.stderr) == (n, b"%d\n\n" % n, b""), n, r)
        p = subprocess.Popen([umbra, "exec", "-T", "one", "--", "true"], env=env, stdin=subprocess.PIPE) # what it is sent is for nobody
        try:
            p.stdin.write(b"for nobody")
            p.stdin.close()
        except BrokenPipeError:
            pass
        check("input that nobody reads", p.wait(60) == 0)
    fds = guest("sh", "-c", "for p in $(pidof umbra-agent); do ls /proc/$p/fd | wc -l; done").stdout.split()
    check("descriptors are left", len(fds) <= 6 and all(int(n) <= 12 for n in fds), fds)
    check("zombies", b" Z" not in guest("sh", "-c", "cat /proc/[0-9]*/stat").stdout)
    many = [subprocess.Popen([umbra, "exec", "-T", "one", "--", "sh", "-c", "sleep 1; exit %d" % n], env=env, stdin=subprocess.DEVNULL) for n in range(12)]
    check("twelve at once", [p.wait(60) for p in many] == list(range(12)))

machine = start()
for part in executes, has_output, stands, uses_again, has_terminal, copies, connects, is_refused:
    part()
for _ in range(50):
    if guest("true").returncode:
        check("exec, again and again", False)
        break
is_detached()
loses_its_relay(machine)
check("stop", run("stop", "one").returncode == 0 and machine.wait(60) == 0)
said = open(path("console"), "rb").read().decode(errors="replace")
begun = [int(l.split()[2].rstrip(",")) for l in said.split("\n") if l.startswith("sockets: connections")]
check("connections are not used again", begun and begun[0] < 250, begun)
check("the kernel complains", not any(w in said for w in ("BUG:", "WARNING:", "Oops")), said[-2000:])
sys.exit(failed)
