#!/usr/bin/env python3
"""cutter.py HOST:PORT: says a port of its own, passes on what comes there, and cuts all connections at SIGUSR1."""
import contextlib, select, signal, socket, sys, threading


class Cutter(threading.Thread):
    """Passes on what comes to a port of its own, and cuts each connection of `cuts` after so many bytes of the sender's, and all of them when it is told to."""

    def __init__(self, port, cuts=()):
        super().__init__(daemon=True)
        self.port, self.cuts, self.passed, self.connections, self.now = port, list(cuts), 0, 0, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.place = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.start()

    def cut(self):
        for end in self.now:
            with contextlib.suppress(OSError): # it has ended meanwhile
                end.shutdown(socket.SHUT_RDWR)

    def run(self):
        while True:
            a = self.listener.accept()[0]
            b = socket.create_connection(("127.0.0.1", self.port))
            for end in a, b: # as whoever tests how long something takes has them
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.now = [a, b]
            left = self.cuts.pop(0) if self.cuts else 1 << 60
            self.connections += 1
            while left > 0:
                ready = select.select([a, b], [], [])[0]
                try:
                    data = ready[0].recv(min(65536, left))
                    if not data:
                        break
                    (b if ready[0] is a else a).sendall(data)
                except OSError:
                    break
                if ready[0] is a:
                    left -= len(data)
                    self.passed += len(data)
            self.now = []
            a.close()
            b.close()


if __name__ == "__main__":
    cutter = Cutter(int(sys.argv[1].split(":")[-1]))
    signal.signal(signal.SIGUSR1, lambda *_: cutter.cut())
    print(cutter.place, flush=True)
    while True:
        signal.pause()
