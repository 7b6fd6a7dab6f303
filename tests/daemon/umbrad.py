"""What the daemon's tests share: a daemon in a folder of its own, a client of it, a store that is thrown away."""
import atexit, base64, fcntl, http.client, json, os, socket, struct, subprocess, tempfile, time


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Daemon:
    def __init__(self, umbra, program):
        self.umbra, self.program = os.path.abspath(umbra), os.path.abspath(program)
        self.folder = tempfile.TemporaryDirectory()
        self.env = dict(os.environ, XDG_RUNTIME_DIR=self.path("run"), XDG_STATE_HOME=self.path("state"), XDG_CONFIG_HOME=self.path("config"),
                        XDG_DATA_HOME=self.path("data"), HOME=self.path("home"))
        for name in ("run", "home"):
            os.mkdir(self.path(name))
        self.socket = self.path("run/umbra/.daemon")
        self.process = self.kept = None
        self.options = []
        atexit.register(self.end_machines)  # also of a test that gives up

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def start(self, *options):
        self.options = list(options)
        self.process = subprocess.Popen([self.program, "--umbra", self.umbra, *options], env=self.env, stderr=open(self.path("log"), "ab"))
        atexit.register(self.process.kill)
        self.until(self.answers)
        return self

    def answers(self):
        if self.process.poll() is not None:
            raise SystemExit("umbrad ended with %d: %s" % (self.process.returncode, open(self.path("log")).read()))
        try:
            return self.ask("GET", "/v1/version")[0] == 200
        except OSError:
            return False

    def stop(self, signal=15):
        self.kept = None
        self.process.send_signal(signal)
        return self.process.wait(60)

    def log(self):
        return open(self.path("log")).read()

    def until(self, condition, seconds=60):
        end = time.time() + seconds
        while time.time() < end:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        raise SystemExit("waited in vain for %s: %s" % (condition, self.log()))

    def ask(self, method, path, body=None, **headers):
        """(status, the answer's JSON, headers), on a connection of its own."""
        connection = Connection(self.socket)
        try:
            return self.ask_on(connection, method, path, body, **headers)
        finally:
            connection.close()

    def ask_on(self, connection, method, path, body=None, **headers):
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if "json" in answer.headers["Content-Type"] else text.decode(), answer.headers

    def done(self, answer):
        """The operation of a 202, once it has ended."""
        status, operation, headers = answer
        assert status == 202, answer
        return self.until(lambda: (lambda o: o if o["state"] != "running" else None)(self.ask("GET", headers["Location"])[1]))

    def run(self, *words, **more):
        return subprocess.run([self.umbra, *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, **more)

    def end_machines(self):
        for row in json.loads(self.run("ps", "--json").stdout or "[]") if os.path.exists(self.umbra) else ():
            self.run("kill", row["name"])

    def close(self):
        self.end_machines()
        if self.process and self.process.poll() is None:
            self.stop()


class FakeMachine:
    """What listens at a machine's place. watch() gives a connection of the daemon's that watches it; to others nothing is said."""
    def __init__(self, daemon, name):
        self.path = daemon.path("run/umbra/" + name)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(60)
        lock = os.open(os.path.dirname(self.path), os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)  # as who begins to listen does: a socket without a listener is removed
        self.listener.bind(self.path)
        self.listener.listen(8)
        os.close(lock)

    def watch(self):
        while True:
            peer = self.listener.accept()[0]
            if b"watch" in peer.recv(4096):
                return peer
            peer.close()

    @staticmethod
    def describe(peer):
        peer.sendall(b'{"id":1,"ok":true,"machine":{"name":"fake","pid":1,"started":1,"cpus":1,"memory":67108864}}\n')

    def close(self):
        os.unlink(self.path)
        self.listener.close()


class Socket:
    """A WebSocket."""
    def __init__(self, daemon, path, first=b""):
        """first: bytes that go with the request."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(daemon.socket)
        self.socket.sendall(("GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: %s\r\n\r\n" % (path, base64.b64encode(b"0123456789abcdef").decode())).encode() + first)
        self.data = b""
        while b"\r\n\r\n" not in self.data:
            got = self.socket.recv(4096)
            if not got:
                break
            self.data += got
        self.head, _, self.data = self.data.partition(b"\r\n\r\n")
        self.status = int(self.head.split()[1])

    def send(self, payload, code=2, mask=b"\1\2\3\4"):
        length = len(payload)
        head = bytes([0x80 | code, 0x80 | length]) if length < 126 else bytes([0x80 | code, 0x80 | 126]) + struct.pack(">H", length)
        self.socket.sendall(head + mask + bytes(b ^ mask[n % 4] for n, b in enumerate(payload)))

    def take(self, count):
        while len(self.data) < count:
            got = self.socket.recv(65536)
            if not got:
                raise EOFError
            self.data += got
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def receive(self):
        """(code, payload) of the next frame."""
        first, length = self.take(2)
        if length == 126:
            length = struct.unpack(">H", self.take(2))[0]
        elif length == 127:
            length = struct.unpack(">Q", self.take(8))[0]
        return first & 15, self.take(length)

    def close(self):
        self.socket.close()
