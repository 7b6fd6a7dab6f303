#!/usr/bin/env python3
"""The clients: what they know of the API is what its document says, and they do it; a page of metrics has all that the board asks for.
usage: clients.py UMBRA UMBRAD GUEST CLIENT_TEST"""
import json, os, re, subprocess, sys

from umbrad import Daemon

umbra, program, guest, client_test = (os.path.abspath(p) for p in sys.argv[1:5])
top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
sys.path.insert(0, os.path.join(top, "python"))
sys.dont_write_bytecode = True
from umbra_client import Client, Failure, OperationFailed

failed = 0
daemon = Daemon(umbra, program).start()


def check(what, good, *more):
    global failed
    if not good:
        print("clients:", what, *more)
        failed = 1


def refused(kind, status, call, *rest, **more):
    try:
        said = call(*rest, **more)
        check("was not refused", False, call, said)
    except kind as failure:
        check("as it was refused", failure.status == status and failure.reason and failure.error, call, failure.__dict__)


# both are what the document says
with open(daemon.path("openapi.json"), "w") as f:
    json.dump(daemon.ask("GET", "/openapi.json")[1], f)
said = subprocess.run([os.path.join(top, "tools/gen-client"), daemon.path("openapi.json"), "--check"], capture_output=True, text=True)
check("generated", said.returncode == 0, said.stdout, said.stderr)

# in C
said = subprocess.run([client_test, daemon.socket, guest], capture_output=True, text=True, timeout=120)
check("in C", said.returncode == 0, said)

# in Python
client = Client(daemon.socket)
check("version", client.get_version()["api"] == "1")
check("described", client.create_machine("py", kernel=guest, memory="64M", no_bus=True, cpus=1, idempotency_key="k")["state"] == "stopped")
check("its key", client.create_machine("py", kernel=guest, memory="64M", no_bus=True, cpus=1, idempotency_key="k")["name"] == "py")
client.wait(client.start_machine("py"))
check("runs", client.get_machine("py")["state"] == "running" and [m["name"] for m in client.list_machines() if m["state"] == "running"] == ["py"])
refused(Failure, 409, client.start_machine, "py")
refused(Failure, 404, client.get_machine, "nobody")
refused(Failure, 400, client.create_machine, "x/y")
refused(Failure, 409, client.get_disk, "/no where/&file=x", chain=True)
refused(OperationFailed, 202, lambda: client.wait(client.save_machine("py", "/nowhere/x")))
check("metrics", 'umbra_machine_running{machine="py"} 1' in client.get_metrics())
for number, event in client.events(after=0, subject="py"):
    if event["kind"] == "started":
        break
check("events", number > 0)

# every metric of the board is there, once there is a machine with a disk and a network
client.create_disk(daemon.path("disk.vhdx"), size="64M")
client.create_machine("seen", kernel=guest, memory="64M", disks=[daemon.path("disk.vhdx")], networks=["user"])
client.wait(client.start_machine("seen"))
metrics = client.get_metrics()
with open(os.path.join(top, "packaging/grafana/umbra.json")) as f:
    board = json.load(f)
asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
names = {name for expr in asked for name in re.findall(r"\bumbra_[a-z_]+", expr)}
known = set(re.findall(r"^# TYPE (\S+)", metrics, re.M))
with open(os.path.join(top, "src/daemon/metrics.c")) as f:
    known |= set(re.findall(r'"(umbra_machine_memory_\w+)"', f.read()))  # of a guest with a balloon
check("the board asks for", len(names) >= 30 and names <= known, names - known)
client.wait(client.kill_machine("py"))
client.wait(client.kill_machine("seen"))
daemon.close()
sys.exit(failed)
