#!/usr/bin/env python3
"""The daemon's TCP port: TLS, a token, and who has none; a stream through it; files that others can read.   usage: remote.py UMBRA UMBRAD GUEST"""
import base64, http.client, json, os, socket, ssl, subprocess, sys

from umbrad import Daemon

umbra, program, guest = sys.argv[1:4]
failed = 0
daemon = Daemon(umbra, program)
TOKEN = "0123456789abcdef" * 4
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]


def check(what, good, *more):
    global failed
    if not good:
        print("remote:", what, *more)
        failed = 1


def write(name, text, mode=0o600):
    with open(daemon.path(name), "w") as f:
        f.write(text)
    os.chmod(daemon.path(name), mode)


def options(token="token", key="key", certificate="certificate", listen="127.0.0.1:%d" % port):
    return ("--listen", listen, "--certificate", daemon.path(certificate), "--key", daemon.path(key), "--token", daemon.path(token))


def refused(text, *words):
    said = subprocess.run([program, "--umbra", umbra, *words], env=daemon.env, capture_output=True, text=True, timeout=60)
    check("was not refused", said.returncode == 65 and text in said.stderr and said.stderr.count("\n") == 1, words, said)


def connect():
    trusted = ssl.create_default_context(cafile=daemon.path("certificate"))
    trusted.check_hostname = False
    return trusted.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=60))


def ask(method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1:%d" % port)
    connection.sock = connect()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, dict(sent, **({"Content-Type": "application/json"} if data else {})))
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    return answer.status, json.loads(said)


made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", daemon.path("key"), "-out", daemon.path("certificate"),
                       "-subj", "/CN=umbra", "-days", "2"], capture_output=True, text=True)
check("a certificate", made.returncode == 0, made)
os.chmod(daemon.path("key"), 0o600)
write("token", TOKEN + "\n")
write("open", TOKEN, 0o644)
write("short", "secret")
write("rubbish", "no PEM\n")
refused("chmod 600", *options(token="open"))
refused("32 to 500", *options(token="short"))
refused("No such file", *options(key="nothing"))
refused("by number", *options(listen="localhost:1"))
refused("by number", *options(listen="127.0.0.1"))
refused("belong together", *options(certificate="rubbish"))
refused("--certificate, --key and --token", "--listen", "127.0.0.1:%d" % port)

daemon.start(*options())
with_token = {"Authorization": "Bearer " + TOKEN}
check("asked", ask("GET", "/v1/version", **with_token)[0] == 200)
for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer " + TOKEN[:-1]}, {"Authorization": "Bearer " + TOKEN + "0"}, {"Authorization": "Basic " + TOKEN},
                {"Authorization": "Bearer " + "x" * 3000}):
    status, said = ask("GET", "/v1/machines", **headers)
    check("no token", status == 401 and said["error"] == "policy", headers, status, said)
check("another site", ask("GET", "/v1/machines", Origin="https://example.org", **with_token)[0] == 403)
# who speaks no TLS, or begins and does not go on, hinders nobody
plain = socket.create_connection(("127.0.0.1", port), timeout=60)
plain.sendall(b"GET /v1/machines HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN.encode())
try:
    check("without TLS", b"HTTP/1.1 200" not in plain.recv(4096))
except OSError:
    pass
idle = [socket.create_connection(("127.0.0.1", port), timeout=60) for n in range(50)]
check("beside them", ask("GET", "/v1/version", **with_token)[0] == 200)
# what comes by one door is there at the other
check("described", ask("POST", "/v1/machines", {"name": "far", "kernel": os.path.abspath(guest), "no-bus": True, "memory": "64M", "start": True}, **with_token)[0] in (201, 202))
daemon.until(lambda: daemon.ask("GET", "/v1/machines/far")[1].get("state") == "running")
check("the same", ask("GET", "/v1/machines/far", **with_token)[1]["pid"] == daemon.ask("GET", "/v1/machines/far")[1]["pid"])
check("registers", ask("GET", "/v1/machines/far/registers", **with_token)[0] == 200)
# a stream
s = connect()
s.sendall(b"GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN.encode())
said = b""
while b'"started"' not in said:
    said += s.recv(4096) or sys.exit("remote: the stream ended")
s.close()
s = connect()
s.sendall(b"GET /v1/machines/far/console HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
          b"Sec-WebSocket-Key: %s\r\n\r\n" % (TOKEN.encode(), base64.b64encode(b"0123456789abcdef")))
check("a WebSocket", s.recv(4096).startswith(b"HTTP/1.1 101"))
check("killed", ask("POST", "/v1/machines/far/kill", **with_token)[0] == 202)
while s.recv(4096):  # it ends with the machine
    pass
s.close()
for s in idle:
    s.close()
check("its end", daemon.stop() == 0, daemon.log())
check("something was said:", daemon.log() == "" or "certificate" in daemon.log(), daemon.log())
daemon.close()
sys.exit(failed)
