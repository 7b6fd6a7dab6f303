#!/usr/bin/env python3
"""Forks to another host, over a wire that is bad: netem.py UMBRA LOOKS [ROUNDS]. Hosts seldom have tc netem in their kernel, but Debian's has it: a Debian is booted, Umbra runs in it
once more (it needs no hardware for that), and its network namespaces are the two hosts (netem_inside.py)."""
import os, re, subprocess, sys

umbra, looks, rounds = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "1"
from programs_machine import Machines

machines = Machines("netem", umbra)
wire = os.path.join(os.path.dirname(umbra), "src/wire/umbra-wire")


def send(name, to, files):
    """Files, by their names in the guest's folder."""
    folder = machines.path(name)
    os.makedirs(folder)
    for inside, file in files.items():
        os.makedirs(os.path.join(folder, os.path.dirname(inside)), exist_ok=True)
        subprocess.run(["cp", "-L", file, os.path.join(folder, inside)], check=True)
    tar = subprocess.run(["tar", "-C", folder, "-cf", "-", "."], check=True, stdout=subprocess.PIPE).stdout
    r = machines.run("exec", "-T", "outer", "--", "tar", "-C", to, "-xf", "-", input=tar, stdin=None)
    machines.check("it is there", r.returncode == 0, r)


machines.begin("outer", "--cpus", "2", "--memory", "2G", "--net", "user")
libraries = set(re.findall(r"(/\S+\.so\S*) \(", subprocess.run(["ldd", umbra, wire], check=True, capture_output=True, text=True).stdout))
# those that Debian has beside libc: put where its linker looks last
there = machines.guest("outer", "ls " + " ".join(sorted(libraries)) + " 2>/dev/null")[0].split()
send("libraries", "/usr/local/lib", {os.path.basename(l): l for l in libraries - set(there)})
send("programs", "/root", {"umbra": umbra, "src/wire/umbra-wire": wire, "looks": looks, "netem_inside.py": "tests/boot/netem_inside.py"})
machines.guest("outer", "ldconfig; modprobe veth; modprobe sch_netem")
said, status = machines.guest("outer", "python3 /root/netem_inside.py /root/umbra /root/looks %s 2>&1" % rounds, 3000)
print(said)
machines.check("all of it inside", status == 0, status)
machines.kernel_is_well("outer", "netem")
machines.run("kill", "outer")
sys.exit(machines.failed)
