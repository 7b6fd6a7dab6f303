#!/usr/bin/env python3
# Linux with its own drivers for a screen (hyperv_fb) and a keyboard (hyperv_keyboard), and its daemon for files that are copied in
# (hv_fcopy_daemon): what it draws is in a screenshot, what is typed it reads, a file arrives as it was. display.py UMBRA AGENT [UMBRAD]
import base64, hashlib, json, os, struct, subprocess, sys, tempfile, time, zlib

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "vsock", "hv_sock", "hyperv_fb", "hyperv-keyboard")]
daemons = ["build/guest/hv_fcopy_daemon", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
subprocess.run(["tools/fetch-guest", "tests/boot/display.init", "build/guest/display.cpio.gz"] + modules + daemons + [agent], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name, HOME=work.name)

def check(what, good, *more):
    global failed
    if not good:
        print("display:", what, *more)
        failed = 1

def path(name):
    return os.path.join(work.name, name)

def run(*words, **more):
    return subprocess.run([umbra, *words], env=env, capture_output=True, timeout=100, **{"stdin": subprocess.DEVNULL, **more})

def guest(*words):
    return run("exec", "-T", "one", "--", *words)

def console():
    return run("console", "--once", "one").stdout.decode(errors="replace").replace("\r", "")

def wait_for(what, good):
    until = time.time() + 90
    while not good() and time.time() < until:
        time.sleep(0.1)
    check(what, time.time() < until, console()[-1500:])

def png(data):
    """Width, height and rows of a picture whose rows have no filter."""
    check("a PNG", data[:8] == b"\x89PNG\r\n\x1a\n", data[:16])
    at, packed = 8, b""
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + size]
        check("a sum", zlib.crc32(name + body) == struct.unpack_from(">I", data, at + 8 + size)[0], name)
        if name == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">IIBB", body)
            check("as it says", (depth, colour) == (8, 2), depth, colour)
        if name == b"IDAT":
            packed += body
        at += 12 + size
    rows = zlib.decompress(packed)
    check("all rows", len(rows) == height * (1 + 3 * width) and not any(rows[::1 + 3 * width]), len(rows))
    return width, height, [rows[n * (1 + 3 * width) + 1:(n + 1) * (1 + 3 * width)] for n in range(height)]

def no_driver_yet():
    for words, said in (("screenshot", "one"), "hyperv_fb"), (("console", "--keyboard", "one", "x"), "hyperv_keyboard"):
        r = run(*words)
        check("nobody is there yet", r.returncode == 65 and said in r.stderr.decode(), words, r)

def has_screen():
    r = guest("insmod", "/bin/hyperv_fb.ko")
    check("hyperv_fb", r.returncode == 0, r, console()[-1500:])
    wait_for("a picture", lambda: not run("screenshot", "one", path("one.png")).returncode)
    width, height, rows = png(open(path("one.png"), "rb").read())
    check("its size", (width, height) == (1024, 768), width, height)
    guest("sh", "-c", "printf '\\033[2J\\033[9;1Hon the screen' >/dev/tty1")
    shown = lambda: len(set(b"".join(png(run("screenshot", "one", "-").stdout)[2][100:200]))) > 1
    wait_for("text of the console", shown)
    # a red, a green and a blue pixel at the left of the last row
    guest("sh", "-c", "printf '\\0\\0\\377\\0\\0\\377\\0\\0\\377\\0\\0\\0' | dd of=/dev/fb0 bs=4096 seek=767 conv=notrunc 2>/dev/null")
    last = lambda: png(run("screenshot", "one", "-").stdout)[2][767]
    wait_for("pixels", lambda: last()[:9] == bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    check("no folder", run("screenshot", "one", path("none/one.png")).returncode == 65)

def daemon_shows_it(program):
    """The same picture through the daemon's API."""
    sys.path.insert(0, "tests/daemon")
    from umbrad import Connection
    daemon = subprocess.Popen([program, "--umbra", umbra, "--store", path("store")], env=env)
    try:
        wait_for("a daemon", lambda: os.path.exists(path("umbra/.daemon")))
        connection = Connection(path("umbra/.daemon"))
        connection.request("GET", "/v1/machines/one/screenshot")
        answer = connection.getresponse()
        said = json.loads(answer.read())
        check("by the API", answer.status == 200 and list(said) == ["png"], answer.status, str(said)[:300])
        width, height, rows = png(base64.b64decode(said["png"]))
        check("the picture", (width, height) == (1024, 768) and rows[767][:9] == bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]), width, height)
    finally:
        daemon.terminate()
        daemon.wait()

def has_keyboard():
    check("hyperv_keyboard", guest("insmod", "/bin/hyperv-keyboard.ko").returncode == 0)
    wait_for("a keyboard", lambda: not run("console", "--keyboard", "one", "\n").returncode)
    text = "It's [typed]: 100% \\ \"so\"; a~b_c, {x|y} <z>? #!"
    r = run("console", "--keyboard", "one", text + "\n")
    check("typed", r.returncode == 0, r)
    wait_for("what was typed", lambda: "TYPED " + text.replace("\\ ", " ") in console())
    long = "".join(chr(ord("a") + n % 26) for n in range(1000))
    r = run("console", "--keyboard", "one", stdin=None, input=(long + "\n").encode())
    check("much", r.returncode == 0, r)
    wait_for("all of it", lambda: "TYPED " + long in console())

def has_files():
    guest("sh", "-c", "LD_LIBRARY_PATH=/bin /bin/hv_fcopy_daemon >/dev/null 2>&1 </dev/null")
    data = os.urandom(200001)
    for size in 0, 1, len(data):
        open(path("file"), "wb").write(data[:size])
        # the daemon says that it is there a while after it has begun
        wait_for("copied", lambda: not run("cp", "--service", path("file"), "one:/tmp/a/b/").returncode)
        said = guest("sha256sum", "/tmp/a/b/file").stdout.decode().split()
        check("as it was", said[:1] == [hashlib.sha256(data[:size]).hexdigest()], size, said)
    for bad in "one:relative", "one:/tmp/" + "x" * 300, "one:/proc/none/":
        r = run("cp", "--service", path("file"), bad)
        check("refused", r.returncode == 65 and r.stderr.count(b"\n") == 1, bad, r)
    check("out", run("cp", "--service", "one:/tmp/x", path("y")).returncode == 64)
    # one that is killed halfway is given up, and the next one goes on
    open(path("long"), "wb").write(os.urandom(20 << 20))
    half = subprocess.Popen([umbra, "cp", "--service", path("long"), "one:/tmp/"], env=env, stdin=subprocess.DEVNULL)
    wait_for("it is begun", lambda: not guest("test", "-e", "/tmp/long").returncode)
    half.kill()
    half.wait()
    check("after it", run("cp", "--service", path("file"), "one:/tmp/after").returncode == 0)
    check("nothing is left of it", guest("test", "-e", "/tmp/long").returncode == 1)

r = run("run", "--detach", "--name", "one", "--time-limit", "600", "--display", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/display.cpio.gz",
        "--append", "console=tty1 console=ttyS0 quiet")
check("run", r.returncode == 0, r)
wait_for("the agent", lambda: not guest("true").returncode)
no_driver_yet()
has_screen()
if sys.argv[3:]:
    daemon_shows_it(os.path.abspath(sys.argv[3]))
has_keyboard()
has_files()
check("stop", run("stop", "one").returncode == 0)
said = console()
check("the kernel complains", not any(w in said for w in ("BUG:", "WARNING:", "Oops", "BAD")), said[-2000:])
r = run("run", "--kernel", "build/guest/vmlinuz", "--no-bus", "--display")
check("no bus, no screen", r.returncode == 64 and b"--no-bus" in r.stderr, r)
sys.exit(failed)
