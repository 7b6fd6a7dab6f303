#!/usr/bin/env python3
"""sharing-away.py: a machine that uses a disk which another one serves is sent to another place, once the first time beside itself and once with its
end. Where nobody offers it a port what was under way is answered, as failed, and the disk is gone; the machine here goes on. Where it gets its port it goes on with its disk:
each request is done once."""
import re, subprocess
from sharing_hosts import allow, begin, bus, end, env, fail, key, passed, port_of, run, said, start, umbra, wait_for, wait_for_guest, where

HOST = "here"


def rules(rate):
    return f"allow store offer,pass store/*\nallow web* see,open,lend store/*\nallow web* pass store/*{rate}\n"


def moved():
    return sum(int(n) for n in re.findall(r"(\d+) packets", bus(HOST)))


def listen(name, *words):
    """Somebody who listens, and where."""
    start(HOST, name, "listen", "0", "--key", key, "--folder", where.name, *words)
    wait_for(f"{name} listens", lambda: re.search(r":(\d+)", said(name)))
    return re.search(r":(\d+)", said(name)).group(1)


def send(name, port, *words):
    done = subprocess.run([umbra, "fork", "web", "--to", "127.0.0.1:" + port, "--key", key, "--name", name, *words], env=env(HOST), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=200)
    if done.returncode:
        fail(f"{name} is not sent: {done.stderr}")


def console(name):
    try:
        return open(f"{where.name}/{HOST}/umbra/.console-{name}", errors="replace").read()
    except OSError:
        return ""


def main():
    begin({HOST: rules(" requests 20")})
    run(HOST, "web", "share-disk", "--bind", "store/shelf=disk")
    store = run(HOST, "store", "share-disk", "--serve", "shelf=disk")
    wait_for("requests pass", lambda: moved() > 30)
    send("web-alone", listen("nobody"))
    wait_for("of what nobody is at all is answered", lambda: passed(console("web-alone")))
    before = moved()
    wait_for("who was sent goes on", lambda: moved() > before + 30)
    send("web-joined", listen("joins", "--bind", "store/shelf=disk"), "--end-parent")
    wait_for("it joins there", lambda: "web-joined binds store/shelf (disk): open with store" in bus(HOST))
    allow(HOST, rules(""))
    wait_for("and goes on with its disk", lambda: passed(console("web-joined")))
    wait_for_guest("store", store) # which counts that each request was done once


try:
    main()
finally:
    end()
