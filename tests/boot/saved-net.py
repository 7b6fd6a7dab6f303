#!/usr/bin/env python3
# Linux with networks, sockets and a program that the host runs in it is saved and goes on; each machine that is restored has its networks to itself:
# a connection under way goes on in the machine that was saved, every byte of it, and ends in the others, and so does what the host has run. On a
# switch each has a card of its own. What does not fit is refused. saved-net.py UMBRA AGENT
import os, random, subprocess, sys

import net_machine
from net_machine import check, end_all, env, guest, mac, run, umbra, until, work
from saved_sections import changed_value, seal, sections


def save(name, *more):
    path = os.path.join(work.name, name + ".saved")
    saved = run("save", "--replace", *more, name, path)
    check("save of " + name, saved.returncode == 0, saved.stderr)
    return path


def restore(path, name, *more):
    process = subprocess.Popen([umbra, "run", "--restore", path, "--name", name, *more], env=env, stdin=subprocess.DEVNULL,
                               stdout=open(os.path.join(work.name, name + ".log"), "wb"), stderr=subprocess.STDOUT)
    until("the agent of %s answers" % name, lambda: guest(name, "echo here") == "here", open(os.path.join(work.name, name + ".log")).read())
    return process


machine = net_machine.begin("saved")

# a connection under way, and a program that the host runs
net_machine.begin_flow()
running = subprocess.Popen([umbra, "exec", "-T", "one", "--", "sh", "-c", "sleep 1234; echo NEVER"], env=env, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
until("it runs", lambda: "sleep 1234" in guest("one", "ps"))
saved = save("one")
check("it goes on", "sleep 1234" in guest("one", "ps") and running.poll() is None)
restore(saved, "two")
restored = restore(saved, "three")
for name in "two", "three":
    until("the link of %s is up" % name, lambda: guest(name, "cat /sys/class/net/eth0/carrier") == "1")
    address, alone = mac("one", 0), mac(name, 0)
    check("alone it keeps its address", alone == address, alone, address)
    until("the network of %s answers" % name, lambda: "1 packets received" in guest(name, "ping -c 1 -W 2 10.0.2.2"))
    until("its copy of the connection ends", lambda: "CUT" in guest(name, "cat /tmp/given"), guest(name, "cat /tmp/given"))
    until("what the host ran ends there", lambda: "sleep 1234" not in guest(name, "ps"), guest(name, "ps"))
net_machine.end_flow("that of the one that was saved goes on to its end")
running.kill()
running.wait()

# what was restored is saved again, and ends; what it is renewed from has an address that was new once
until("the new card of three", lambda: mac("three", 1) not in ("", mac("one", 1)))
before = mac("three", 1)
again = save("three", "--stop")
check("it ends", restored.wait(60) == 0, restored.returncode)
restore(again, "four")
for n, name in enumerate(["two", "four"], 2):
    until("the new card of " + name, lambda: mac(name, 1) not in ("", mac("one", 1), before))
    until("it is up", lambda: guest(name, "ifconfig eth1 10.9.0.%d up && cat /sys/class/net/eth1/carrier" % n) == "1")
for n in 1, 2:
    until("four reaches 10.9.0.%d" % n, lambda: "1 packets received" in guest("four", "ping -c 1 -W 2 10.9.0.%d" % n))

# what does not fit
for more, why in ((["--net", "user"], "as many network cards"), (["--net", "none"], "as many network cards"), (["--memory", "1G"], "brings these itself")):
    refused = run("run", "--restore", saved, "--name", "five", *more)
    check("refused: %s" % more, refused.returncode == 64 and why in refused.stderr, refused.returncode, refused.stderr)


# files that lie: of every part that a bus has, values that are others under right checksums. Umbra refuses them, or runs them: it never fails
def lie(data, seconds, *want):
    path = os.path.join(work.name, "lie")
    with open(path, "wb") as f:
        f.write(data)
    p = subprocess.Popen([umbra, "run", "--restore", path], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        err = p.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        p.terminate()
        err = p.communicate(timeout=200)[1]
    return p.returncode in want and (p.returncode != 65 or err.count(b"\n") == 1), (p.returncode, err)


with open(again, "rb") as f:
    good = f.read()
rng = random.Random(1)
found = [part for part in sections(good) if part[1] in ("BUS ", "STOR", "DMEM", "IC  ", "KEYS", "VSS ", "NET ")]
check("all parts of a bus are there", {name for _, name, _ in found} >= {"BUS ", "STOR", "DMEM", "IC  ", "KEYS", "VSS ", "NET "}, found)
for n in range(len(found)):
    at, name, size = found[n]
    data = bytearray(good)
    changed_value(rng, data, at, size)
    seal(data, at)
    check("a changed %s" % name, *lie(data, 1, 0, 65, 75))
for cut in 1, 31, 32, 33, 200:
    check("without its last %d bytes" % cut, *lie(good[:-cut], 60, 64, 65))
for at in range(1, 34, 3):
    data = bytearray(good)
    data[-at] ^= 1 << at % 8
    check("a bit of its end is another: %d" % at, *lie(data, 60, 64, 65))
end_all()
check("the first ends", machine.wait(60) == 0, machine.returncode)
sys.exit(net_machine.failed)
