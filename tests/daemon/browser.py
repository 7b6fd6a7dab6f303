"""A headless Chromium, by ChromeDriver (the W3C's WebDriver protocol): only what the page's test needs."""
import atexit, base64, http.client, json, os, re, shutil, subprocess, sys, tempfile, time

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c"}


class Browser:
    def __init__(self, width=1200, height=900, dark=False):
        self.folder = tempfile.TemporaryDirectory()
        driver = shutil.which("chromedriver") or sys.exit("browser: no chromedriver; tools/install-deps test")
        self.process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ, HOME=self.folder.name, TMPDIR=self.folder.name))
        atexit.register(self.close)
        line = next((line for line in self.process.stdout if "successfully on port" in line), "") or sys.exit("browser: ChromeDriver did not start")
        self.port = int(re.search(r"port (\d+)", line).group(1))
        words = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--disable-extensions", "--disable-default-apps", "--mute-audio", "--window-size=%d,%d" % (width, height)]
        words += ["--no-sandbox"] * (os.getuid() == 0) + ["--force-dark-mode"] * dark
        made = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": words}, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}}})
        self.session = "/session/" + made["sessionId"]

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
        value = json.loads(connection.getresponse().read())["value"]
        connection.close()
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError("%s: %s" % (value["error"], value["message"].splitlines()[0]))
        return value

    def do(self, verb, body=None, method="POST"):
        return self.ask(method, self.session + verb, {} if body is None and method == "POST" else body)

    def open(self, address):
        self.do("/url", {"url": address})

    def run(self, script, *arguments):
        return self.do("/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script, *arguments):
        return self.do("/execute/async", {"script": script, "args": list(arguments)})

    def command(self, name, **more):
        return self.do("/goog/cdp/execute", {"cmd": name, "params": more})

    def text(self, selector="body"):
        return self.run("const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", selector)

    def until(self, what, script, *arguments):
        end = time.time() + (60 if "-v" not in sys.argv else 12)
        while time.time() < end:
            found = self.run(script, *arguments)
            if found:
                return found
            time.sleep(0.05)
        raise SystemExit("page: waited in vain for %s: %s" % (what, self.text()))

    def until_text(self, text, selector="body"):
        return self.until("'%s' in %s" % (text, selector), "const e = document.querySelector(arguments[1]); return e && e.innerText.includes(arguments[0])", text, selector)

    def find(self, what, script, *arguments):
        self.until(what, "return Boolean((() => { %s })(...arguments))".replace("(() =>", "((...arguments) =>") % script, *arguments)
        return self.run(script, *arguments)[ELEMENT]

    def click(self, label, within="body"):
        """What has this text or name, as a person would."""
        found = self.find("'%s'" % label, "return [...document.querySelectorAll(arguments[1] + ' button, ' + arguments[1] + ' a, ' + arguments[1] + ' summary')]"
                          ".find((e) => !e.disabled && e.offsetParent && (e.innerText.trim() === arguments[0] || e.getAttribute('aria-label') === arguments[0]))", label, within)
        self.do("/element/%s/click" % found)

    def fill(self, label, text, within="body"):
        found = self.find("the field '%s'" % label, "const l = [...document.querySelectorAll(arguments[1] + ' label')].find((e) => e.innerText.trim() === arguments[0]); return l && l.control", label, within)
        if text is True or text is False:
            if self.run("return arguments[0].checked", {ELEMENT: found}) != text:
                self.do("/element/%s/click" % found)
            return
        self.do("/element/%s/clear" % found)
        self.do("/element/%s/value" % found, {"text": text})

    def press(self, *keys):
        events = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.do("/actions", {"actions": [{"type": "key", "id": "keys", "actions": events}]})

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.do("/screenshot", method="GET")))

    def log(self, kind):
        return self.do("/se/log", {"type": kind})

    def close(self):
        if self.process.poll() is None:
            try:
                self.do("", method="DELETE")
            except (OSError, RuntimeError, AttributeError):
                pass
            self.process.terminate()
            self.process.wait()
        self.folder.cleanup()
