#!/usr/bin/env python3
"""Another user, who can reach the daemon's socket: he is refused before anything of his is kept. Only root can become one: who is not goes
into a namespace of users, if there are other users in it, or the test is skipped. usage: other.py UMBRA UMBRAD"""
import os, socket, subprocess, sys

from umbrad import Daemon

OTHER, SKIPPED = 65534, 77
alone = ["unshare", "--map-root-user", "--map-auto", "--setuid", "0", "--setgid", "0"]


def become_root():
    if os.environ.get("UMBRA_TEST_ALONE") or subprocess.run(alone + ["true"], capture_output=True).returncode:
        print("other: skipped: neither root nor a namespace with other users: run it as root, or name some in /etc/subuid")
        sys.exit(SKIPPED)
    os.execvpe(alone[0], alone + [sys.executable, *sys.argv], dict(os.environ, UMBRA_TEST_ALONE="1"))


def as_other(act):
    """Whether it is true of him."""
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setresuid(OTHER, OTHER, OTHER)
        good = False
        try:
            good = act()
        finally:
            os._exit(not good)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def says(data):
    other = socket.socket(socket.AF_UNIX)
    other.settimeout(60)
    other.connect(daemon.socket)
    other.sendall(data)
    said = b""
    while b"\r\n" not in said:
        got = other.recv(4096)
        if not got:
            break
        said += got
    return said.startswith(b"HTTP/1.1 403")


if os.getuid():
    become_root()
daemon = Daemon(*sys.argv[1:3])
daemon.socket = daemon.path("socket")
daemon.start("--socket", daemon.socket)
os.chmod(daemon.folder.name, 0o755)
os.chmod(daemon.socket, 0o777)
failed = 0
for what, data in {"a question": b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n",
                   # the answer comes though the body does not
                   "a body": b"POST /v1/machines HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"}.items():
    if not as_other(lambda: says(data)):
        print("other:", what, "was not refused")
        failed = 1
if daemon.ask("GET", "/v1/version")[0] != 200:
    print("other: the owner is not heard")
    failed = 1
daemon.close()
sys.exit(failed)
