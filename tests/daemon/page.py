#!/usr/bin/env python3
"""The page in a headless Chromium: who is let in, every view, every action, barriers (axe-core), narrow and dark, what it asks for and of whom; pictures of the views are
kept.   usage: page.py UMBRA UMBRAD GUEST AXE PICTURES"""
import base64, http.client, json, os, shutil, socket, struct, sys, zlib

from browser import Browser
from umbrad import Daemon, FakeMachine

umbra, program, guest, axe, pictures = sys.argv[1:6]
guest, axe = os.path.abspath(guest), open(axe).read()
shutil.rmtree(pictures, ignore_errors=True)
os.makedirs(pictures)
failed = 0


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# a red and a blue pixel
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 2, 0, 0, 0)) +
                           chunk(b"IDAT", zlib.compress(b"\0\xff\0\0\0\0\xff")) + chunk(b"IEND", b"")).decode()


def check(what, good, *more):
    global failed
    if not good:
        print("page:", what, *more)
        failed = 1


def ask(port, method, path, body=None, **headers):
    """(status, text) by HTTP alone, as any program of this host could."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, None if body is None else json.dumps(body), dict(sent, **({"Content-Type": "application/json"} if body is not None else {})))
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers


def address():
    said = daemon.run("page")
    check("umbra page", said.returncode == 0 and said.stdout.startswith(b"http://127.0.0.1:"), said)
    return said.stdout.decode().strip()


def barriers(where):
    browser.run(axe)
    found = browser.run_async("axe.run(document, {resultTypes: ['violations']}).then((r) => arguments[0](r.violations.filter((v) => ['serious', 'critical'].includes(v.impact))"
                              ".map((v) => [v.id, v.nodes.map((n) => n.html + ': ' + n.failureSummary)])), (e) => arguments[0]([['axe', [String(e)]]]))")
    check("a barrier in " + where, not found, json.dumps(found, indent=1))


def seen(name):
    browser.screenshot(os.path.join(pictures, name + ".png"))
    barriers(name)


def go(view):
    browser.run("location.hash = arguments[0]", "#/" + view)


def state(name, word):
    browser.until("%s is %s" % (name, word), "const e = document.querySelector(`[data-machine='${arguments[0]}'] .state`); return e && e.innerText === arguments[1]", name, word)


def act(label, name):
    browser.click("%s %s" % (label, name))


# ---- who is let in ----
daemon = Daemon(umbra, program)
nobody = daemon.run("page")
check("without umbrad", nobody.returncode == 65 and b"umbrad &" in nobody.stderr, nobody)
daemon.start()
first = address()
port, ticket = int(first.split(":")[2].split("/")[0]), first.split("=")[1]
check("the page's files are everybody's", ask(port, "GET", "/")[0] == 200 and ask(port, "GET", "/page/main.js")[0] == 200)
for path, status in (("/v1/machines", 401), ("/metrics", 401), ("/openapi.json", 401), ("/v1/events", 401), ("/page/none.js", 401), ("/page/../etc/passwd", 401)):
    check("without a session", ask(port, "GET", path)[0] == status, path)
check("a session that is none", ask(port, "GET", "/v1/machines", Authorization="Bearer " + "0" * 64)[0] == 401)
check("a ticket is no session", ask(port, "GET", "/v1/machines", Authorization="Bearer " + ticket)[0] == 401)
check("a ticket that is none", ask(port, "POST", "/v1/session", {"ticket": "0" * 64})[0] == 401)
check("of another site", ask(port, "POST", "/v1/session", {"ticket": ticket}, Origin="http://example.org")[0] == 403)
check("fetched by another site", ask(port, "POST", "/v1/session", {"ticket": ticket}, Sec_Fetch_Site="cross-site")[0] == 403)
check("of another port", ask(port, "POST", "/v1/session", {"ticket": ticket}, Origin="http://127.0.0.1:1")[0] == 403)
check("by another name", ask(port, "POST", "/v1/session", {"ticket": ticket}, Host="example.org:%d" % port)[0] == 403 and ask(port, "GET", "/", Host="localhost:%d" % port)[0] == 403)
status, text, headers = ask(port, "POST", "/v1/session", {"ticket": ticket})
session = json.loads(text)["session"]
check("let in", status == 201 and ask(port, "GET", "/v1/machines", Authorization="Bearer " + session)[0] == 200)
check("a ticket twice", ask(port, "POST", "/v1/session", {"ticket": ticket})[0] == 401)
check("with a session, of another site", ask(port, "GET", "/v1/machines", Authorization="Bearer " + session, Origin="https://example.org")[0] == 403)
policy = headers["Content-Security-Policy"]
check("the policy", "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy and headers["X-Frame-Options"] == "DENY", policy)
check("no cookie", headers["Set-Cookie"] is None)
listens = [line.split()[1] for line in open("/proc/net/tcp") if line.split()[3] == "0A" and line.split()[1].endswith(":%04X" % port)]
check("only here", listens == ["0100007F:%04X" % port], listens)
key_of_others = ask(port, "POST", "/v1/session", {"ticket": "0" * 64}, Idempotency_Key="k")[0]
check("no key without a session", key_of_others == 400 and daemon.ask("POST", "/v1/machines", {"name": "keyed", "kernel": guest}, Idempotency_Key="k")[0] == 201)
check("no key for a ticket", daemon.ask("POST", "/v1/page", {}, Idempotency_Key="t")[0] == 400)
late = address().split("=")[1]
check("no secret for a key", ask(port, "POST", "/v1/session", {"ticket": late}, Idempotency_Key="s")[0] == 400 and ask(port, "POST", "/v1/session", {"ticket": late})[0] == 201)


def open_at_port(text):
    """A connection on which this was sent."""
    opened = socket.create_connection(("127.0.0.1", port), 60)
    opened.sendall((text.replace("\n", "\r\n") % {"port": port, "session": session}).encode())
    return opened


def rest(opened):
    text = b""
    while part := opened.recv(4096):
        text += part
    return text


head = "%s HTTP/1.1\nHost: 127.0.0.1:%%(port)d\nAuthorization: Bearer %%(session)s\n"
daemon.done(daemon.ask("POST", "/v1/machines/keyed/start", {}))
streams = [open_at_port(head % "GET /v1/events" + "Connection: close\n\n"),  # or it is kept for another request, for half a minute
           open_at_port(head % "GET /v1/machines/keyed/console" + "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\n\n")]
check("streams", [stream.recv(12)[9:] for stream in streams] == [b"200", b"101"])
unsent = open_at_port(head % "POST /v1/machines/keyed/pause" + "Content-Type: application/json\nContent-Length: 2\nExpect: 100-continue\n\n")
check("its head is heard", unsent.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n")
check("--end", daemon.run("page", "--end").returncode == 0 and ask(port, "GET", "/v1/machines", Authorization="Bearer " + session)[0] == 401)
unsent.sendall(b"{}")
check("--end, between head and body", unsent.recv(12) == b"HTTP/1.1 401")
for stream in streams:
    rest(stream)  # to its end, or it waits for a minute
check("ended", daemon.run("kill", "keyed").returncode == 0 and daemon.until(lambda: daemon.ask("DELETE", "/v1/machines/keyed")[0] == 200))
many = [json.loads(daemon.run("page", "--json").stdout)["address"] for _ in range(9)]
check("the oldest ticket goes", ask(port, "POST", "/v1/session", {"ticket": many[0].split("=")[1]})[0] == 401 and ask(port, "POST", "/v1/session", {"ticket": many[1].split("=")[1]})[0] == 201)

# ---- the first look ----
disk = daemon.path("disk.vhdx")
daemon.run("disk", "create", daemon.path("base.vhdx"), "--size", "64M")
daemon.run("disk", "create", disk, "--parent", daemon.path("base.vhdx"))
daemon.run("disk", "create", daemon.path("other.vhdx"), "--size", "64M")
check("run", daemon.run("run", "--detach", "--name", "with-bus", "--kernel", guest, "--memory", "start=128M,min=128M,max=256M", "--disk", disk).returncode == 0)
browser = Browser()
browser.open("http://127.0.0.1:%d/" % port)
browser.until_text("You are not let in", "main")
seen("not-let-in")
browser.log("performance")
browser.open(address())
state("with-bus", "running")
check("the ticket stays in the address", "ticket" not in browser.run("return location.href + JSON.stringify(history.state)"))
browser.until("live", "return document.getElementById('link').innerText === 'live'")
paint = browser.run("return performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime)[0]")
moved = browser.run("return performance.getEntries().reduce((all, e) => all + (e.transferSize || 0), 0)")
check("more than 300 KiB", 0 < moved <= 300 << 10, moved)
browser.until("figures", "return /MiB/.test(document.querySelector('[data-figure=memory]').innerText) && document.querySelector('[data-figure=disk]').innerText !== '–'")
seen("machines")

# ---- a machine's life, by what is pressed ----
browser.click("New machine")
browser.fill("name", "one")
browser.fill("kernel", guest)
browser.fill("memory", "64M")
browser.click("More")
browser.fill("no-bus", True)
browser.fill("Start it at once", False)
seen("create")
browser.fill("kernel", "relative")
browser.click("Create")
browser.until_text("absolute path", ".wrong")
browser.fill("kernel", guest)
browser.click("Create")
browser.until("its view", "return location.hash === '#/machine/one'")
browser.until_text("stopped", ".head")
act("Start", "one")
browser.until_text("running", ".head")
browser.click("Console")
browser.until_text("READY", ".terminal")
browser.until("graphs", "return document.querySelectorAll('.chart').length === 3")
seen("machine")
browser.click("Processors")
browser.until_text("translations", "[aria-label=Counters]")
browser.click("Screen")
browser.until_text("it has no screen", "#said")
browser.run("""const real = window.fetch, png = arguments[0];
    window.fetch = (path, ...more) => path.endsWith('/screenshot') ? Promise.resolve(new Response(JSON.stringify({ png }))) : real(path, ...more);""", PICTURE)
browser.click("Screen")
pixels = browser.until("a picture", "const c = document.querySelector('canvas.screen'); return c && [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, 2, 1).data]")
check("its pixels", pixels == [2, 1, 255, 0, 0, 255, 0, 0, 255, 255], pixels)
barriers("a screen")
browser.click("Shell")
browser.click("Run", "dialog")
browser.until_text("ended", "main")  # this guest has no agent
act("Pause", "one")
browser.until_text("paused", ".head")
act("Resume", "one")
browser.until_text("running", ".head")
act("Save", "one")
browser.fill("File", daemon.path("saved"), "dialog")
seen("dialog")
browser.click("Save", "dialog")
browser.until_text("Save one: done", "#said")
check("saved", os.path.getsize(daemon.path("saved")) > 0)
act("Save", "one")
browser.fill("File", daemon.path("saved"), "dialog")
browser.click("Save", "dialog")
browser.until_text("exists", "#said")
act("Fork", "one")
browser.fill("Name of the child", "child", "dialog")
browser.click("Fork", "dialog")
browser.until_text("Fork one: done", "#said")

# ---- lineage, memory, bus, images, work ----
browser.click("Lineage", "nav")
browser.until("the child beneath its parent", "return document.querySelector('[data-machine=one] > ul [data-machine=child]')")
browser.until_text("its own", "[data-machine=child]")
browser.until_text("base.vhdx")
browser.until("identity", "return [...document.querySelectorAll('.state')].some((e) => e.innerText === 'same')")
seen("lineage")
browser.click("Memory", "nav")
browser.until_text("Available", "main")
browser.until("the graph", "return document.querySelector('.chart path')")
browser.until_text("with-bus", "main")
seen("memory")
browser.click("Set reserve")
browser.fill("What guests never get", "512M", "dialog")
browser.click("Set", "dialog")
browser.until_text("512 MiB", "main")
browser.click("Bus", "nav")
browser.until_text("Channels", "main")
seen("bus")
browser.click("Images", "nav")
browser.click("Index folders")
browser.fill("Folders", daemon.folder.name, "dialog")
browser.click("Index", "dialog")
browser.until_text("2 images", "main")  # the third is in use
browser.fill("Search", "base")
browser.until_text("1 image", "main")
browser.click("About " + os.path.realpath(daemon.path("base.vhdx")))
browser.until_text("All that it says", "main")
browser.fill("Search", "other")
browser.until_text("other.vhdx", "main")
browser.click("Policy of " + os.path.realpath(daemon.path("other.vhdx")))
browser.until_text("What its policies allow", "main")
browser.click("Set rule")
browser.fill("Value", "true", "dialog")
browser.click("Set", "dialog")
browser.until_text("no-export, says the image", "main")
seen("images")
browser.click("Set rule")
browser.click("Set", "dialog")
browser.until("it is allowed again", "return !document.querySelector('main').innerText.includes('no-export')")
browser.fill("Search", "os:(")
browser.until("what is wrong with it", "return !/^[0-9]+ images?$/.test(document.querySelector('[role=status].hint').innerText)")
browser.click("Work", "nav")
browser.until_text("forkMachine", "main")
seen("work")

# ---- ends; what others do is seen, too ----
browser.click("Machines", "nav")
state("child", "running")
act("Kill", "child")
browser.press("Escape")
browser.until("nothing was done", "return !document.querySelector('dialog')")
act("Kill", "child")
browser.click("Kill", "dialog")
browser.until("its end", "return !document.querySelector('[data-machine=child]')")
daemon.run("pause", "one")
state("one", "paused")
daemon.run("resume", "one")
state("one", "running")
# an answer that comes late is not shown last
browser.run("""const real = window.fetch; window.late = 0;
    window.fetch = async (path, ...more) => { const answer = await real(path, ...more);
        if (path === '/v1/machines' && !window.late++) await new Promise((go) => setTimeout(() => { window.late = 99; go(); }, 1500)); return answer; };""")
daemon.run("pause", "one")
browser.until("it is asked", "return window.late")
daemon.run("resume", "one")
browser.until("the late answer", "return window.late >= 99")
state("one", "running")
browser.run_async("setTimeout(arguments[0], 300)")
state("one", "running")
# one whose place is taken again at once, by what says nothing and goes
fake = FakeMachine(daemon, "fake")
watch = fake.watch()
fake.describe(watch)
state("fake", "running")
watch.close()
watch = fake.watch()
state("fake", "starting")
fake.close()
watch.close()
browser.until("it is gone", "return !document.querySelector('[data-machine=fake]')")
act("Stop", "one")
state("one", "stopped")
act("Forget", "one")
browser.click("Forget", "dialog")
browser.until("it is forgotten", "return !document.querySelector('[data-machine=one]')")

# ---- keyboard, narrow, dark ----
browser.do("/refresh")
state("with-bus", "running")  # the tab is still let in
browser.press("Tab")
check("the first stop leads to the content", browser.run("return document.activeElement.className") == "skip")
browser.press("l")
browser.until("by a key", "return location.hash === '#/lineage'")
browser.press("i")
browser.until("by a key", "return location.hash === '#/images' && document.querySelector('input[type=search]')")
browser.press("/")
check("the search has the keys", browser.run("return document.activeElement.type") == "search")
browser.press("m")
check("what is typed leads nowhere", browser.run("return location.hash") == "#/images")
browser.command("Emulation.setDeviceMetricsOverride", width=340, height=700, deviceScaleFactor=1, mobile=False)
browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
for view in ("machines", "lineage", "memory", "images", "create"):
    go(view)
    browser.until("the view", "return document.querySelector('main h1')")
    check("wider than a narrow screen: " + view, browser.run("return document.documentElement.scrollWidth") <= 340)
go("machines")
state("with-bus", "running")
seen("narrow-dark")

# ---- the terminal ----
screen = browser.run_async("""import('/page/terminal.js').then(({Terminal}) => {
    const sent = [], t = new Terminal('test', 6, 20, (s) => sent.push(s)), w = (s) => t.write(new TextEncoder().encode(s)), seen = [];
    w('one\\r\\ntwo\\x1b[1;1HO\\x1b[31mred\\x1b[0m'); seen.push(t.text());
    w('\\x1b[2J\\x1b[Habc\\x1b[1D\\x1b[K\\x1b[3;3Hx\\x1b'); w('[6n'); seen.push(t.text());
    w('\\x1b[?1049h\\x1b[Hother'); seen.push(t.text()); w('\\x1b[?1049l'); seen.push(t.text());
    w('\\x1bc'); for (let n = 0; n < 9; n++) w('line ' + n + '\\r\\n'); w('\\x1b]0;title\\x07\\xe2'.slice(0, -1)); t.write(new Uint8Array([0xc3])); t.write(new Uint8Array([0xa9])); seen.push(t.text());
    w('\\x1b[2;4r\\x1b[4;1H\\n\\x1b[Lin\\x1b[r'); seen.push(t.text()); w('\\x1b[99999999999999;1H\\x1b[1000000@\\x1b[1000000L\\x1b[1000000P' + '\\x1b[' + '1;'.repeat(5000)); w('m\\x1b[HZ');
    seen.push(t.text()); t.draw(); t.key(new KeyboardEvent('keydown', {key: 'ArrowUp'})); t.key(new KeyboardEvent('keydown', {key: 'c', ctrlKey: true})); t.key(new KeyboardEvent('keydown', {key: 'Tab', shiftKey: true}));
    const past = t.past.childElementCount; w('\\x1b[r\\x1b[6;1H' + 'x\\r\\n'.repeat(3000));
    arguments[0]([seen.map((s) => s.trimEnd()), sent, past, t.scrolled.length]); }).catch((e) => arguments[0](String(e)))""")
check("the terminal", isinstance(screen, list) and screen[0][:4] == ["Ored\ntwo", "ab\n\n  x", "other", "ab\n\n  x"], screen)
check("its region", isinstance(screen, list) and screen[0][4] == "line 4\nline 5\nline 6\nline 7\nline 8\né" and screen[0][5].splitlines()[:1] == ["line 4"] and "in" in screen[0][5].split("\n"), screen)
check("what scrolls away unseen", isinstance(screen, list) and screen[3] == 2000, screen)
check("whatever comes", isinstance(screen, list) and screen[0][6].startswith("Z") and screen[1] == ["\x1b[3;4R", "\x1b[A", "\x03"] and 4 < screen[2] <= 2000, screen)

# ---- a daemon that is gone, and comes back: whoever was let in is let in anew ----
daemon.stop()
browser.until_text("not connected", "#link")
daemon.start()
browser.open(address())
state("with-bus", "running")

# ---- what it asked for, and of whom ----
asked = {json.loads(row["message"])["message"]["params"]["request"]["url"] for row in browser.log("performance") if "Network.requestWillBeSent\"" in row["message"]}
check("asked elsewhere", asked and all(url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:")) for url in asked if not url.startswith(("data:", "chrome"))), asked)
wrong = [row["message"] for row in browser.log("browser") if "Content Security Policy" in row["message"] or "Uncaught" in row["message"]]
check("said by the browser", not wrong, wrong)
browser.close()
daemon.close()
check("something was said:", daemon.log() == "", daemon.log())
if "-v" in sys.argv:
    print("first paint %.0f ms, %d KiB" % (paint or -1, moved >> 10))
sys.exit(failed)
