#!/usr/bin/env python3
"""far-wrong.py: far sides of a disk (umbra far) that lie. Each file in far-wrong is one lie: to who serves, who has to leave that connection and serve
the next; and to who asks, who has to leave it and connect anew, while a guest uses the disk and loses nothing. tests/guest/sharing-far.py has sound ones."""
import os, re, socket, struct, subprocess, sys, tempfile, threading, time

os.chdir(os.path.join(os.path.dirname(__file__), "../.."))
umbra = os.environ.get("UMBRA", "build/umbra")
build = os.path.dirname(umbra)
guest = os.path.join(build, "tests/guest/guest-share-disk")
where = tempfile.TemporaryDirectory()
os.environ["XDG_RUNTIME_DIR"] = where.name
os.environ["XDG_CONFIG_HOME"] = where.name + "/config"
os.makedirs(where.name + "/config/umbra")
PATIENCE_S = 200
MAGIC, HELLO, WELCOME, REQUEST, DONE = 0x66617231, 1, 2, 3, 4
READ, WRITE, ZERO, FLUSH = range(4)
DISK_BYTES = 4 << 20
processes = []


def fail(what):
    print("far-wrong:", what)
    for name in sorted(os.listdir(where.name)):
        if name.endswith(".log"):
            print(name + ":", open(where.name + "/" + name, errors="replace").read()[-2000:])
    sys.exit(1)


def start(name, *words):
    log = open(f"{where.name}/{name}.log", "w")
    process = subprocess.Popen([umbra, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    processes.append(process)
    return process


def said(name):
    return open(f"{where.name}/{name}.log", errors="replace").read()


class Line:
    """A connection behind umbra-wire, whose descriptors are 3, 4 and 5."""

    def __init__(self, connection, role):
        here, there = socket.socketpair()
        key_read, key_write = os.pipe()
        os.write(key_write, bytes.fromhex(open(where.name + "/key").read().strip()))
        high = [os.dup(connection.fileno()), os.dup(there.fileno()), os.dup(key_read)]
        script = f'exec 3<&{high[0]} 4<&{high[1]} 5<&{high[2]} && exec "$0" {role}'
        self.process = subprocess.Popen(["bash", "-c", script, build + "/src/wire/umbra-wire"], pass_fds=high, stderr=subprocess.DEVNULL)
        for fd in (*high, key_read, key_write):
            os.close(fd)
        connection.close()
        there.close()
        self.socket = here
        self.socket.settimeout(PATIENCE_S)
        if self.take(1) is None:
            fail("umbra-wire")

    def take(self, count):
        """None: it has ended."""
        bytes_ = b""
        while len(bytes_) < count:
            try:
                some = self.socket.recv(count - len(bytes_))
            except ConnectionError:
                return None
            if not some:
                return None
            bytes_ += some
        return bytes_

    def frame(self):
        head = self.take(16)
        if head is None:
            return None, None
        _, message_bytes, data_bytes, _ = struct.unpack("<4I", head)
        message = self.take(message_bytes)
        return message, self.take(data_bytes) if message is not None else None

    def say(self, message, data=b""):
        try:
            self.socket.sendall(struct.pack("<4I", MAGIC, len(message), len(data), 0) + message + data)
        except OSError:
            pass

    def is_left(self):
        """What was said before the lie may still come."""
        while True:
            try:
                if not self.socket.recv(65536):
                    return True
            except ConnectionError:
                return True
            except TimeoutError:
                return False

    def close(self):
        self.socket.close()
        self.process.wait()


class Lie:
    def __init__(self, path):
        lines = open(path).read().splitlines()
        self.name, self.when, self.tokens = os.path.basename(path), lines[1].split()[1], lines[2].split()

    def tell(self, line, round_, number):
        given = b""
        for token in self.tokens:
            kind, _, value = token.partition(":")
            given += {"u32": lambda: struct.pack("<I", int(value, 0)), "u64": lambda: struct.pack("<Q", int(value, 0)),
                      "zeros": lambda: bytes(int(value)), "round": lambda: struct.pack("<I", round_),
                      "number": lambda: struct.pack("<Q", number)}[kind]()
        try:
            line.socket.sendall(given)
        except OSError:
            pass  # left before all of it was said


def lies(kind):
    folder = "tests/guest/far-wrong"
    return [Lie(f"{folder}/{name}") for name in sorted(os.listdir(folder)) if name.startswith(kind)]


def to_who_serves():
    with open(where.name + "/disk.raw", "wb") as disk:
        disk.truncate(DISK_BYTES)
    start("server", "far", "serve", where.name + "/disk.raw", "0", "--format", "raw", "--key", where.name + "/key")
    until = time.monotonic() + PATIENCE_S
    while "listens at" not in said("server"):
        if time.monotonic() > until:
            fail("it does not listen")
        time.sleep(0.02)
    port = int(re.search(r"listens at .*:(\d+)", said("server")).group(1))
    for n, lie in enumerate(lies("asks-")):
        line = Line(socket.create_connection(("127.0.0.1", port)), "connect")
        line.say(struct.pack("<4IQ", HELLO, 0x10001, 0x10001, n + 1, 1))
        message, _ = line.frame()
        if message is None or struct.unpack_from("<3I", message)[:3] != (WELCOME, 0x10001, n + 1):
            fail(f"no welcome before {lie.name}")
        lie.tell(line, n + 1, 1)
        if not line.is_left():
            fail(lie.name)
        line.close()
    # what is no lie, and is answered: beyond the end; and left: a number of long ago
    line = Line(socket.create_connection(("127.0.0.1", port)), "connect")
    line.say(struct.pack("<4IQ", HELLO, 1, 0x20000, 99, 1))
    line.frame()
    line.say(struct.pack("<4I4Q", REQUEST, 99, WRITE, 0, 70, 70, DISK_BYTES, 512), bytes(512))
    line.say(struct.pack("<4I4Q", REQUEST, 99, FLUSH, 0, 6, 6, 0, 0))
    line.say(struct.pack("<4I4Q", REQUEST, 99, FLUSH, 0, 71, 70, 0, 0))
    answers = [struct.unpack("<2IQ", line.frame()[0]) for _ in range(2)]
    if answers != [(DONE, 1, 70), (DONE, 0, 71)]:
        fail(f"beyond the end, and a number of long ago: {answers}")
    line.close()
    # six who say nothing of the key, and six who say hello and nothing more, keep nobody out; each hello ends the one before
    strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    mute = []
    for n in range(6):
        mute.append(Line(socket.create_connection(("127.0.0.1", port)), "connect"))
        mute[-1].say(struct.pack("<4IQ", HELLO, 0x10001, 0x10001, n + 1, 2))
        message, _ = mute[-1].frame()
        if message is None or struct.unpack_from("<I", message)[0] != WELCOME:
            fail(f"no welcome for number {n} of those who are mute")
        if n and not mute[-2].is_left():
            fail("two are served")
    for line in mute:
        line.close()
    for stranger in strangers:
        stranger.close()
    if processes[0].poll() is not None:
        fail("who serves has ended")


class Server:
    """Sound but for its lies; and it records."""

    def __init__(self):
        self.disk, self.done, self.twice, self.lies = bytearray(DISK_BYTES), {}, 0, lies("answers-")
        self.told = 0

    def lie(self, line, when, round_, number):
        """Whether it has told one, and the connection is of no use."""
        if not self.lies or self.lies[0].when != when:
            return False
        lie = self.lies.pop(0)
        lie.tell(line, round_, number)
        if not line.is_left():
            fail(lie.name)
        self.told += 1
        return True

    def execute(self, act, number, offset, count, data):
        if act == READ:
            return bytes(self.disk[offset : offset + count])
        if number not in self.done:
            self.done[number] = True
            if act == WRITE:
                self.disk[offset : offset + count] = data
        return b""

    def serve(self, line):
        round_ = 0
        while True:
            message, data = line.frame()
            if message is None or data is None:
                return
            kind = struct.unpack_from("<I", message)[0]
            if kind == HELLO:
                round_ = struct.unpack_from("<4IQ", message)[3]
                if self.lie(line, "hello", round_, 0):
                    return
                line.say(struct.pack("<4IQ2I16s", WELCOME, 0x10001, round_, 0, DISK_BYTES, 512, 512, b"a lying disk"))
                continue
            _, of_round, act, _, number, _, offset, count = struct.unpack("<4I4Q", message)
            if of_round != round_:
                continue
            if self.lie(line, {READ: "read", WRITE: "write"}.get(act), round_, number):
                return
            line.say(struct.pack("<2IQ", DONE, 0, number), self.execute(act, number, offset, count, data))


def to_who_asks():
    server = Server()
    wanted = len(server.lies)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(1)
    start("reach", "far", "reach", "far/shelf", f"127.0.0.1:{listener.getsockname()[1]}", "--key", where.name + "/key")
    web = start("web", "run", "--name", "web", "--kernel", guest, "--memory", "64M", "--debug-exit", "0xf4", "--statistics", "--bind", "far/shelf=disk")
    while web.poll() is None:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        line = Line(connection, "accept")
        if server.lies:
            server.serve(line)
            line.close()
            continue
        serve_until_end(server, line, web)
    if "not ok" in said("web") or not re.search(r"^1\.\.[1-9]", said("web"), re.M):
        fail("the guest")
    if server.told != wanted:
        fail(f"{server.told} lies were told of {wanted}")
    if processes[-2].poll() is not None:
        fail("who asks has ended")


def serve_until_end(server, line, web):
    """The last connection stays: it ends with who asks, who is ended once the guest has."""
    def end():
        web.wait()
        line.socket.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=end, daemon=True).start()
    server.serve(line)
    line.close()


def main():
    subprocess.run([umbra, "listen", "--make-key", where.name + "/key"], check=True)
    with open(where.name + "/config/umbra/share.rules", "w") as rules:
        rules.write("allow far offer,pass far/*\nallow web see,open,pass,lend far/shelf class disk\n")
    to_who_serves()
    to_who_asks()
    print(f"{len(lies('asks-'))} lies to who serves, {len(lies('answers-'))} to who asks")


try:
    main()
finally:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
