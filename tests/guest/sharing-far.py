#!/usr/bin/env python3
"""sharing-far.py: a disk behind TCP. A guest uses it while its connection is cut again and again, at any byte, and the hub is killed in between: each
change of it is done once, which who serves it records. Then far sides that lie: each is left, and a sound one is connected to again."""
import re, subprocess
from sharing_hosts import Cutter, begin, end, fail, key, kill_hub, port_of, run, said, start, umbra, wait_for, wait_for_guest, where

# what guest-share-disk writes, in pieces of 256 KiB; four times its longest, beside two others; its flush, and its last
CHANGES = sum(-(-(1 + n * 7919 % 768) // 512) for time in range(90) for n in range(time, time + 6)) + 4 * 6 + 1 + 1


def main():
    begin({"here": "allow far offer,pass far/*\nallow web see,open,pass,lend far/shelf class disk\n"})
    subprocess.run([umbra, "listen", "--make-key", where.name + "/other"], check=True)
    with open(where.name + "/disk.raw", "wb") as disk:
        disk.truncate(4 << 20)
    server = start("here", "server", "far", "serve", where.name + "/disk.raw", "0", "--format", "raw", "--key", key)
    port = port_of("server")
    wrong = start("here", "wrong", "far", "reach", "far/other", f"127.0.0.1:{port}", "--key", where.name + "/other")
    wait_for("another key is said to be one", lambda: "another key" in said("wrong"))
    wrong.terminate()
    cutter = Cutter(port, lambda part: 4000 + part ** 3 * 12_000_000)
    start("here", "reach", "far", "reach", "far/shelf", f"127.0.0.1:{cutter.port}", "--key", key)
    web = run("here", "web", "share-disk", "--bind", "far/shelf=disk")
    wait_for("some cuts", lambda: cutter.cuts >= 2 or web.poll() is not None)
    if web.poll() is None:
        kill_hub("here")
    wait_for_guest("web", web)
    counts = re.search(r"served disk 0: (\d+) requests, (\d+) answered, (\d+) asked again", said("web"))
    if not counts or counts.group(1) != counts.group(2):
        fail("not each request was answered")
    server.terminate()
    server.wait(60)
    done = re.search(r"(\d+) changes, (\d+) reads, (\d+) answered again", said("server"))
    if not done or int(done.group(1)) != CHANGES:
        fail(f"not each change was done once: {done and done.group(0)}, of {CHANGES}")
    if cutter.cuts < 3:
        fail(f"only {cutter.cuts} cuts")
    print(f"{CHANGES} changes, each once, over {cutter.cuts} cuts: {done.group(0)}")


try:
    main()
finally:
    end()
