#!/usr/bin/env python3
"""Who reads a machine's console stops, while its guest prints without end: the machine goes on, is asked, and ends, by each way to end it.
usage: stopped.py UMBRA GUEST"""
import os, signal, subprocess, sys, tempfile

import observed
from observed import expect, state, wait_for

umbra, guest = sys.argv[1:3]


def asked(*arguments):
    return subprocess.run([umbra, *arguments], capture_output=True, timeout=60)


def stopped(how, ends):
    reader, console = os.pipe()
    machine = subprocess.Popen([umbra, "run", "--name", "stopped", "--kernel", guest, "--memory", "64M", "--console", "stdio"],
                               stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    os.close(console)
    expect("%s: it prints" % how, os.read(reader, 1) != b"")
    cat = subprocess.Popen(["cat"], stdin=reader, stdout=subprocess.DEVNULL)
    os.close(reader)
    os.kill(cat.pid, signal.SIGSTOP)
    expect("%s: who reads has stopped" % how, wait_for(lambda: state(cat.pid) == "T"))
    for _ in range(40): # long enough for all pipes and buffers to be full; it may be asked at any time
        good = asked("info", "stopped").returncode == 0
        if not good:
            wait_for(lambda: asked("info", "stopped").returncode == 0)
    expect("%s: it is asked all the same" % how, asked("info", "stopped").returncode == 0)
    ends(machine)
    expect("%s: and ends" % how, wait_for(lambda: machine.poll() is not None), machine.poll())
    cat.kill()
    cat.wait()


with tempfile.TemporaryDirectory() as where:
    os.environ["XDG_RUNTIME_DIR"] = where
    stopped("umbra stop", lambda machine: asked("stop", "stopped"))
    stopped("SIGTERM", lambda machine: machine.send_signal(signal.SIGTERM))
    stopped("umbra kill", lambda machine: asked("kill", "stopped"))
sys.exit(observed.failed != 0)
