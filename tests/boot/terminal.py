#!/usr/bin/env python3
"""The console on a terminal: a shell answers, reports and titles are filtered, Ctrl-] ? helps, Ctrl-] q and SIGTERM end the
machine within a second (three allowed here), and the terminal is afterwards as it was."""
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

subprocess.run(["tools/fetch-guest", "src/demo/demo-init", "build/guest/demo.cpio.gz"], check=True)
COMMAND = [os.environ.get("UMBRA", "build/umbra"), "run", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/demo.cpio.gz", "--append",
           "console=ttyS0 quiet umbra.shell"]


def read(fd, seconds, until=None):
    out, end = b"", time.time() + seconds
    while time.time() < end and not (until and until in out):
        if select.select([fd], [], [], 0.05)[0]:
            try:
                out += os.read(fd, 4096)
            except OSError:
                break
    return out


def session(finish):
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    pid = os.fork()
    if not pid:
        os.login_tty(slave) if hasattr(os, "login_tty") else (os.setsid(), [os.dup2(slave, n) for n in range(3)])
        os.execv(COMMAND[0], COMMAND)
    text = read(master, 120, b"guest # ")
    os.write(master, b"echo $((6*7))\n")
    text += read(master, 10, b"\n42")
    os.write(master, b"printf '\\033[6n\\033]0;title\\007\\033[31mred\\033[0m\\n'\n")
    text += read(master, 10, b"red\x1b[0m") # with the escape itself: not the echo of the line
    os.write(master, b"\x1d?")
    text += read(master, 5, b"send Ctrl-]")
    start = time.time()
    finish(master, pid)
    while time.time() - start < 3:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        read(master, 0.02)
    good = [("a shell answers", b"\n42" in text), ("colours pass", b"\x1b[31mred" in text), ("a report does not", b"\x1b[6n" not in text),
            ("a title does not", b"\x1b]0;" not in text), ("Ctrl-] ? helps", b"end the machine" in text),
            ("it ends in time", ended == pid and status == 0), ("the terminal is as it was", termios.tcgetattr(slave)[:6] == before[:6])]
    for what, ok in good:
        print("ok  " if ok else "FAIL", what)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    return all(ok for _, ok in good)


os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
results = [session(lambda master, pid: os.write(master, b"\x1dq")), session(lambda master, pid: os.kill(pid, signal.SIGTERM))]
sys.exit(0 if all(results) else 1)
