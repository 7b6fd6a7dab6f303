#!/usr/bin/env python3
"""sharing-away.py: a machine that uses a disk which another one serves is sent to another place, once the first time beside itself and once with its
end. Where nobody offers it a port what was under way is answered, as failed, and the disk is gone; the machine here goes on. Where it gets its port it goes on with its disk:
each request is done once."""
import os, re, signal, subprocess, sys, tempfile, time

umbra = os.path.abspath(os.environ.get("UMBRA", "build/umbra"))
guest = os.path.join(os.path.dirname(umbra), "tests/guest/guest-share-disk")
work = tempfile.mkdtemp()
os.environ["XDG_RUNTIME_DIR"] = work
os.environ["XDG_CONFIG_HOME"] = work + "/config"
os.makedirs(work + "/config/umbra")
rules, key, failed, started = work + "/config/umbra/share.rules", work + "/key", [], []
PATIENCE_S = 60

def allow(rate):
    text = "allow store offer,pass store/*\nallow web* see,open,lend store/*\nallow web* pass store/*%s\n" % rate
    open(rules + ".new", "w").write(text)
    os.rename(rules + ".new", rules)

def start(name, *words):
    log = open("%s/%s.log" % (work, name), "wb")
    started.append(subprocess.Popen([umbra, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    log.close()
    return started[-1]

def said(name, end=".log"):
    try:
        return open("%s/%s%s" % (work, name, end), errors="replace").read()
    except OSError:
        return ""

def expect(what, good, *more):
    print("ok  " if good else "FAIL", what, *([] if good else more))
    if not good:
        failed.append(what)

def until(what, good):
    end = time.time() + PATIENCE_S
    while time.time() < end and not good():
        time.sleep(0.05)
    expect(what, good())

def bus():
    return subprocess.run([umbra, "bus"], capture_output=True, text=True).stdout

def moved():
    return sum(int(n) for n in re.findall(r"(\d+) packets", bus()))

def listen(*words):
    """Somebody who listens, and where."""
    one = start("listen%d" % len(started), "listen", "0", "--key", key, "--folder", work, *words)
    name = "listen%d" % (len(started) - 1)
    until("somebody listens", lambda: re.search(r":(\d+)", said(name)))
    return one, re.search(r":(\d+)", said(name)).group(1)

def send(name, port, *words):
    done = subprocess.run([umbra, "fork", "web", "--to", "127.0.0.1:" + port, "--key", key, "--name", name, *words], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=PATIENCE_S)
    expect("%s is sent" % name, done.returncode == 0, done.stderr)

def passed(text):
    return re.search(r"^1\.\.[1-9]", text, re.M) and not re.search(r"^not ok", text, re.M)

def console(name):
    return said("umbra/.console-" + name, "")

try:
    subprocess.run([umbra, "listen", "--make-key", key], check=True)
    allow(" requests 20")
    options = ["--kernel", guest, "--memory", "64M", "--debug-exit", "0xf4"]
    start("web", "run", "--name", "web", "--bind", "store/shelf=disk", *options)
    store = start("store", "run", "--name", "store", "--serve", "shelf=disk", *options)
    until("requests pass", lambda: moved() > 30)
    alone, port = listen()
    send("web-alone", port)
    until("of what nobody is at all is answered", lambda: passed(console("web-alone")))
    before = moved()
    until("who was sent goes on", lambda: moved() > before + 30)
    joins, port = listen("--bind", "store/shelf=disk")
    send("web-joined", port, "--end-parent")
    until("it joins there", lambda: "web-joined binds store/shelf (disk): open with store" in bus())
    allow("")
    until("and goes on with its disk", lambda: passed(console("web-joined")))
    store.wait(PATIENCE_S)
    expect("each request was done once", passed(said("store")), said("store"), console("web-joined"))
finally:
    for name in "web", "web-alone", "web-joined", "store":
        subprocess.run([umbra, "kill", name], capture_output=True)
    for one in started:
        one.send_signal(signal.SIGTERM)
    for one in started:
        one.wait()
    subprocess.run(["rm", "-rf", work])
sys.exit(1 if failed else 0)
