#!/usr/bin/env python3
"""sharing-packets.py: a channel between machines of two hosts, which are two folders here. Its connection is cut again and again, at any byte, and the
hub of each host is killed in between, and so is umbra far on each side, which is started again: each packet comes once, and in order, which the guests
compare, and neither sees the other go. One that makes no sense is left."""
import re, socket
from sharing_hosts import PATIENCE_S, Cutter, begin, bus, end, fail, key, kill_hub, port_of, run, start, wait_for, wait_for_guest

RULES = {"there": "allow store offer,pass store/*\nallow far see,open,pass store/*\n",
         "here": "allow store offer,pass store/*\nallow web see,open store/*\nallow web pass store/* requests 40\n"}


def echoed():
    """How many packets have passed the hub here."""
    return sum(int(n) for n in re.findall(r"(\d+) packets", bus("here")))


def main():
    begin(RULES)
    far = {"there": start("there", "serve", "far", "serve", "--packets", "store/shelf", "0", "--key", key)}
    port = port_of("serve")
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"nothing that makes sense" * 100)
    cutter = Cutter(port, lambda part: 2000 + 4000 * part)
    words = {"there": ("serve", "far", "serve", "--packets", "store/shelf", str(port), "--key", key),
             "here": ("reach", "far", "reach", "--packets", "store/shelf", f"127.0.0.1:{cutter.port}", "--key", key)}
    far["here"] = start("here", *words["here"])
    store = run("there", "store", "share", "--serve", "shelf")
    web = run("here", "web", "share-forked", "--bind", "store/shelf")
    killed = 0
    for host in RULES:
        cuts = cutter.cuts
        wait_for("some cuts", lambda: cutter.cuts >= cuts + 2 or web.poll() is not None)
        kill_hub(host)
    for host in ("here", "there", "here", "there"):
        before = echoed()
        wait_for("packets pass", lambda: echoed() > before + 5 or web.poll() is not None)
        if start(host, "twice", *words[host][1:]).wait(PATIENCE_S) != 65:
            fail("a second one has the same record")
        far[host].kill()
        far[host].wait()
        far[host] = start(host, *words[host])
        killed += web.poll() is None
    if killed < 3:
        fail("they ended before umbra far was killed")
    wait_for_guest("web", web)
    wait_for_guest("store", store)
    if cutter.cuts < 4:
        fail(f"only {cutter.cuts} cuts")
    print(f"each packet once and in order, over {cutter.cuts} cuts")


try:
    main()
finally:
    end()
