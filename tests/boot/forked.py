#!/usr/bin/env python3
# Linux with networks is forked, and so is a child: each has its networks to itself, and its sockets. A connection under way goes on in the
# parent, every byte of it, and ends in the children; on a switch a child has a card of its own, and all can talk to each other; what only one
# machine can have is refused for others; the agent renews what is asked for, and who has none is ended. forked.py UMBRA AGENT
import os, subprocess, sys

import net_machine
from net_machine import check, end_all, env, guest, mac, run, umbra, until, work


def fork(name, child, *more):
    forked = run("fork", name, "--name", child, "--console", os.path.join(work.name, child + ".log"), *more)
    check("fork of " + name, forked.returncode == 0, forked.stderr)


machine = net_machine.begin("forked")

# a connection under way
net_machine.begin_flow()
fork("one", "two", "-n", "2", "--renew", "all")
for child in "two-1", "two-2":
    until("the link of %s is up" % child, lambda: guest(child, "cat /sys/class/net/eth0/carrier") == "1")
    address, alone = mac("one", 0), mac(child, 0)
    check("alone it keeps its address", alone == address, alone, address)
    until("the network of %s answers" % child, lambda: "1 packets received" in guest(child, "ping -c 1 -W 2 10.0.2.2"))
    until("its copy of the connection ends", lambda: "CUT" in guest(child, "cat /tmp/given"), guest(child, "cat /tmp/given"))
net_machine.end_flow("the parent's goes on to its end")

# what the agent has renewed, in a kernel without a driver for the generation id
for what in "hostname", "cat /etc/machine-id", "cat /proc/sys/kernel/random/uuid":
    said = [guest(name, what) for name in ("one", "two-1", "two-2")]
    check("none as another: " + what, len(set(said)) == 3 and "" not in said[1:], said)
check("called as the machine is", guest("two-1", "hostname") == "two-1")

# on a switch; by the old card frames go all the time, of which the guest awaits that they are sent
guest("two-1", "for n in 1 2; do net_peer flood 10.0.2.2 9 >/dev/null 2>&1 & done")
until("frames go", lambda: int(guest("two-1", "cat /sys/class/net/eth0/statistics/tx_packets") or 0) > 10000)
fork("two-1", "three", "--mac", "new")
for name in "two-1", "three":
    guest(name, "killall net_peer")
until("a new card in user mode", lambda: mac("three", 0) not in ("", mac("one", 0)))
known = [mac("one", 1)]
for n, name in enumerate(["two-1", "two-2", "three"], 2):
    until("the new card of " + name, lambda: mac(name, 1) not in ["", *known]) # its guest may not have heard of it yet
    known.append(mac(name, 1))
    until("it is up", lambda: guest(name, "ifconfig eth1 10.9.0.%d up && cat /sys/class/net/eth1/carrier" % n) == "1")
macs = [mac(name, 1) for name in ("one", "two-1", "two-2", "three")]
check("each has an address of its own", len(set(macs)) == 4 and "" not in macs, macs)
for n in range(1, 4):
    until("three reaches 10.9.0.%d" % n, lambda: "1 packets received" in guest("three", "ping -c 1 -W 2 10.9.0.%d" % n))

# one that takes the connection and then says nothing, which is heard at the end; who asked it to stop hears no end of that
asked = subprocess.Popen([umbra, "exec", "-T", "three", "--", "sh", "-c", "kill -STOP $(pidof umbra-agent); echo MUTE >/dev/console"], env=env,
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
until("the agent stands still", lambda: b"MUTE" in open(os.path.join(work.name, "three.log"), "rb").read())
mute = subprocess.Popen([umbra, "fork", "three", "--name", "six", "--renew", "random"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE, text=True)

# what only one can have
for more, why in ((["-n", "2", "-p", "0:80"], "not [ADDRESS"), (["-n", "2", "-p", "8080:80"], "only one child"), (["--mac", "keep"], "can meet"),
                  (["--net", "user"], "as many network cards"), (["--net", "none"], "as many network cards"), (["-n", "2", "--net", "user", "--net", "tap=any"], "only one child")):
    refused = run("fork", "one", "--name", "none", *more)
    check("refused: %s" % more, refused.returncode in (2, 64, 65) and why in refused.stderr, refused.returncode, refused.stderr)
fork("one", "four", "--net", "user", "--net", "user,mac=02:12:34:56:78:9a")
until("another network, another card", lambda: mac("four", 1) == "02:12:34:56:78:9a")
guest("four", "kill $(pidof umbra-agent)")
none = run("fork", "four", "--name", "five", "--net", "user", "--net", "user", "--renew", "random")
check("without an agent", none.returncode == 65, none.returncode, none.stderr)
until("it is ended", lambda: "five" not in run("ps").stdout)

# the agent that says nothing
said = mute.communicate(timeout=300)[1]
check("an agent that says nothing", mute.returncode == 65 and "timed out" in said, mute.returncode, said)
until("it is ended", lambda: "six" not in run("ps").stdout)
asked.kill()
asked.wait()
end_all()
check("the parent ends", machine.wait(60) == 0, machine.returncode)
sys.exit(net_machine.failed)
