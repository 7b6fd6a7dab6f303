#!/usr/bin/env python3
"""Every operation of the daemon's OpenAPI document is driven as the document says, and every answer is checked against it; machines that were
started without the daemon, a daemon that is started anew, keys of idempotency, operations, events. usage: conforms.py UMBRA UMBRAD GUEST [sanitized],
whose machines are not forked"""
import json, os, re, socket, sys

import jsonschema

from umbrad import Connection, Daemon, FakeMachine

umbra, program, guest = sys.argv[1:4]
forks = sys.argv[4:] != ["sanitized"]
guest = os.path.abspath(guest)
failed, driven = 0, set()
daemon = Daemon(umbra, program).start()
document = daemon.ask("GET", "/openapi.json")[1]


def check(what, good, *more):
    global failed
    if not good:
        print("conforms:", what, *more)
        failed = 1


def find(operation):
    for path, methods in document["paths"].items():
        for method, row in methods.items():
            if row["operationId"] == operation:
                return path, method, row
    raise SystemExit("conforms: no operation %s" % operation)


def valid(value, schema):
    schema = dict(schema, components=document["components"])
    try:
        jsonschema.Draft202012Validator(schema).validate(value)
        return None
    except jsonschema.ValidationError as error:
        return error.message


def call(of, body=None, headers={}, **arguments):
    """Does it, with what stands in the path filled in, and looks at its answer."""
    path, method, row = find(of)
    driven.add(of)
    query = []
    for parameter in row["parameters"]:
        name = parameter.get("name")
        if name in arguments:
            wrong = valid(arguments[name], parameter["schema"])
            check(of, not wrong, name, wrong)
        if parameter.get("in") == "path":
            path = path.replace("{%s}" % name, str(arguments[name]))
        elif parameter.get("in") == "query" and name in arguments:
            value = arguments[name]
            query += ["%s=%s" % (name, str(v).lower() if isinstance(v, bool) else v) for v in (value if isinstance(value, list) else [value])]
    if body is not None:
        wrong = valid(body, row["requestBody"]["content"]["application/json"]["schema"])
        check(of, not wrong, body, wrong)
    answer = daemon.ask(method.upper(), path + ("?" + "&".join(query) if query else ""), body, **headers)
    described = row["responses"].get(str(answer[0]), row["responses"]["default"])
    check(of, answer[0] < 400 and str(answer[0]) in row["responses"] or answer[0] >= 400, "a status that the document does not have", answer[0])
    wrong = valid(answer[1], next(iter(described["content"].values()))["schema"])
    check(of, not wrong, answer, wrong)
    return answer


def refused(status, error, of, *rest, **arguments):
    answer = call(of, *rest, **arguments)
    check(of, answer[0] == status and answer[1].get("error") == error, "was not refused with %d %s:" % (status, error), answer[:2])


check("the document", document["openapi"] == "3.1.0" and document["paths"], document)
call("getDocument")
check("version", call("getVersion")[1]["api"] == "1")

# a machine of the daemon's: described, started, forked, saved, restored
check("none", call("listMachines")[1] == [])
what = {"name": "one", "kernel": guest, "no-bus": True, "cpus": 1, "memory": "64M"}
check("described", call("createMachine", what)[0] == 201)
refused(409, "unusable", "createMachine", what)
check("stopped", call("getMachine", machine="one")[1]["state"] == "stopped")
check("started", daemon.done(call("startMachine", machine="one"))["state"] == "done")
check("runs", call("getMachine", machine="one")[1]["state"] == "running")
refused(409, "unusable", "startMachine", machine="one")
refused(409, "unusable", "forgetMachine", machine="one")
check("registers", len(call("getRegisters", machine="one")[1]["processors"]) == 1)
traced = call("traceMachine", machine="one", seconds=1, kinds="exits,interrupts")[1]
check("traced", isinstance(traced.get("traceEvents"), list) and "dropped" in traced["otherData"], traced)
refused(400, "usage", "traceMachine", machine="one", seconds=1, kinds="nothing")
refused(409, "unusable", "getScreenshot", machine="one")  # it has no screen; what has one: streams.py
refused(404, "unusable", "getScreenshot", machine="nobody")
check("paused", call("pauseMachine", machine="one")[0] == 200)
daemon.until(lambda: daemon.ask("GET", "/v1/machines/one")[1]["state"] == "paused")
refused(409, "unusable", "pauseMachine", machine="one")
check("resumed", call("resumeMachine", machine="one")[0] == 200)
refused(409, "unusable", "resumeMachine", machine="one")
daemon.until(lambda: daemon.ask("GET", "/v1/machines/one")[1]["state"] == "running")
fork = daemon.done(call("forkMachine", {"name": "child"}, machine="one"))
if forks:
    check("forked", fork["state"] == "done" and fork["result"], fork)
else:
    check("not forked", fork["state"] == "failed" and fork["error"]["error"] == "unusable", fork)
    daemon.run("run", "--detach", "--name", "child", "--kernel", guest, "--no-bus", "--memory", "64M")
daemon.until(lambda: daemon.ask("GET", "/v1/machines/child")[0] == 200)
check("saved", daemon.done(call("saveMachine", {"file": daemon.path("saved")}, machine="one"))["state"] == "done")
again = daemon.done(call("saveMachine", {"file": daemon.path("saved")}, machine="one"))
check("saved twice", again["state"] == "failed" and again["error"]["error"] == "unusable" and "exists" in again["error"]["reason"], again)
check("restored", daemon.done(call("restoreMachine", {"name": "back", "file": daemon.path("saved")}))["state"] == "done")
daemon.until(lambda: daemon.ask("GET", "/v1/machines/back")[0] == 200)
check("all of them", [row["name"] for row in call("listMachines")[1]] == ["back", "child", "one"])
check("killed", daemon.done(call("killMachine", machine="child"))["state"] == "done")
refused(404, "unusable", "killMachine", machine="child")

# one that was started without it, by a user; the command says the same of it
check("run", daemon.run("run", "--detach", "--name", "other", "--kernel", guest, "--memory", "64M").returncode == 0)
daemon.until(lambda: daemon.ask("GET", "/v1/machines/other")[0] == 200)
rows = {row["name"]: row for row in json.loads(daemon.run("ps", "--json").stdout)}
seen = call("getMachine", machine="other")[1]
check("ps --json", all(seen.get(key) == rows["other"][key] for key in ("pid", "cpus", "memory", "from", "started", "process")), seen, rows["other"])
check("memory", call("setMachineMemory", {"bytes": 0}, machine="other")[0] == 200)
call("getMachineMemory", machine="other")
check("all memory", call("getMemory")[0] in (200, 409))
check("reserve", call("setReserve", {"size": "auto"})[0] in (200, 409))
check("their history", call("getMemoryHistory")[0] in (200, 409))
usage = call("getUsage", shares=True)[1]
check("usage", usage["one"]["processor-ms"] >= 0 and usage["one"]["unique"] > 0 and usage["one"]["counters"]["engine"][0]["translations"] > 0 and usage["other"]["occupied"] > 0, usage)
check("the page", "#ticket=" in call("openPage", {})[1]["address"])
ticket = call("openPage", {"end": True})[1]["address"].split("=")[1]
check("a session", len(call("enterPage", {"ticket": ticket})[1]["session"]) == 64)
refused(401, "policy", "enterPage", {"ticket": ticket})
check("bus", call("getBus")[0] in (200, 409))
refused(409, "unusable", "runProgram", {"command": ["true"]}, machine="other")  # it has no agent
refused(404, "unusable", "runProgram", {"command": ["true"]}, machine="nobody")
refused(409, "unusable", "attachDisk", {"file": daemon.path("nothing.vhdx")}, machine="other")  # disks that come: tests/boot/hot_disk.py
refused(409, "unusable", "detachDisk", {"disk": "0"}, machine="other")

# metrics: each sample after its HELP and TYPE, of every machine that runs
text, typed = call("getMetrics")[1], {}
for row in text.splitlines():
    words = row.split()
    if row.startswith("# TYPE"):
        check("a type once", words[2] not in typed and words[3] in ("counter", "gauge"), row)
        typed[words[2]] = words[3]
    elif not row.startswith("#"):
        name = re.fullmatch(r'([a-z_]+)(?:\{machine="[A-Za-z0-9._-]+"(?:,(?:processor|controller|card)="[0-9]+")?\})? [0-9]+(?:\.[0-9]{3})?', row)
        check("base units", not re.search("_(?:milliseconds|kibibytes)", row), row)
        check("a sample", name and name.group(1) in typed and name.group(1).endswith("_total") == (typed[name.group(1)] == "counter"), row)
for sample in ('umbra_machine_running{machine="one"} 1', 'umbra_exits_port_write_total{machine="other"} ', 'umbra_mmu_syncs_total{machine="other",processor="0"} ', "umbra_daemon_requests_total ",
               'umbra_machine_steal_seconds_total{machine="one"} ', 'umbra_machine_processor_seconds_total{machine="other"} ', 'umbra_engine_translations_total{machine="one",processor="0"} '):
    check("it has", sample in text, sample, text[:2000])

# disks and images
os.mkdir(daemon.path("images"))
disk = daemon.path("images/disk.vhdx")
check("disk", call("createDisk", {"file": disk, "size": "64M"})[0] == 201)
refused(409, "unusable", "createDisk", {"file": disk, "size": "64M"})
same = json.loads(daemon.run("disk", "info", "--json", disk).stdout)
check("disk info", call("getDisk", file=disk)[1] == same, same)
check("sound", call("checkDisk", file=disk, chain=True)[1]["sound"] is True)
noise = daemon.path("images/noise.vhdx")
with open(noise, "wb") as file:
    file.write(b"no disk at all")
for of in ("getDisk", "checkDisk"):
    answer = call(of, file=noise)
    refusal = answer[1].get("refusal", {})
    check(of, answer[0] == 409 and (refusal.get("file"), refusal.get("offset"), refusal.get("structure")) == (noise, 0, "file type identifier"), answer[:2])
child = call("createDisk", {"file": daemon.path("child.vhdx"), "parent": noise})
check("a child of it", child[0] == 409 and child[1]["refusal"]["file"] == noise, child[:2])
unread = daemon.done(call("convertDisk", {"source": noise, "target": daemon.path("none.vhdx")}))
check("a long operation's refusal", unread["state"] == "failed" and unread["error"]["refusal"]["kind"] == "VHDX_TYPE", unread)
with open(daemon.path("full.raw"), "wb") as f:
    f.write(os.urandom(8 << 20))
converted = daemon.done(call("convertDisk", {"source": daemon.path("full.raw"), "from": "raw", "target": daemon.path("full.vhdx")}))
check("converted", converted["state"] == "done" and converted.get("all") == 8 << 20 and converted["done"] > 0, converted)
refused(409, "unusable", "getDisk", file=daemon.path("nothing"))
indexed = daemon.done(call("indexImages", {"folders": [daemon.path("images")], "catalog": daemon.path("catalog")}))
check("indexed", indexed["state"] == "done", indexed)
found = call("searchImages", query="not:expired", limit=5, catalog=daemon.path("catalog"))
check("found", found[1].get("count") == 1, found[:2])
call("getImage", file=disk)
check("set", call("setImage", {"file": disk, "values": ["policy.no-export=true", "title=a disk"]})[0] == 200)
check("it says so", call("getImage", file=disk)[1].get("title") == "a disk")
refused(400, "usage", "setImage", {"file": disk, "values": ["policy.not-after=never"]})
allowed = call("getImagePolicy", file=disk)[1]
check("policy", allowed["read"]["allowed"] is True and allowed["export"]["allowed"] is False and allowed == json.loads(daemon.run("image", "policy", "--json", disk).stdout), allowed)
check("a rule is taken away", call("setImage", {"file": disk, "values": ["policy.no-export="]})[0] == 200 and call("getImagePolicy", file=disk)[1]["export"]["allowed"] is True)

# operations
operations = call("listOperations")[1]
check("operations", operations and call("getOperation", operation=operations[0]["id"])[1] == operations[0])
refused(404, "unusable", "getOperation", operation="none")
refused(409, "unusable", "cancelOperation", operation=operations[0]["id"])

# keys: done once, answered alike, and nothing else
first = call("createMachine", dict(what, name="keyed"), {"Idempotency_Key": "k1"})
check("keyed", first[0] == 201 and call("createMachine", dict(what, name="keyed"), {"Idempotency_Key": "k1"})[:2] == first[:2])
refused(422, "usage", "createMachine", dict(what, name="other-keyed"), {"Idempotency_Key": "k1"})
starts = dict(what, name="begun", start=True)
first_start = call("createMachine", starts, {"Idempotency_Key": "k2"})
check("keyed, and started", first_start[0] == 202 and call("createMachine", starts, {"Idempotency_Key": "k2"})[:2] == first_start[:2])
check("it started", daemon.done(first_start)["state"] == "done" and daemon.done(call("killMachine", machine="begun"))["state"] == "done")
check("it is forgotten", call("forgetMachine", machine="begun")[0] == 200)
check("a bad request", daemon.ask("POST", "/v1/machines", {"name": "y", "more": 1}, Idempotency_Key="k1")[0] == 400)  # and the key stays
check("the key stays", call("createMachine", dict(what, name="keyed"), {"Idempotency_Key": "k1"})[:2] == first[:2])
check("a key that is none", daemon.ask("POST", "/v1/machines", dict(what, name="x"), Idempotency_Key="a b")[0] == 400)

# a daemon that is started anew knows all of it, and has missed no end
before = call("listMachines")[1]
operations = call("listOperations")[1]
if daemon.stop():
    check("its end", False, daemon.log())
daemon.run("kill", "back")
daemon.start()
daemon.until(lambda: daemon.ask("GET", "/v1/machines/one")[1]["state"] == "running")
daemon.until(lambda: daemon.ask("GET", "/v1/machines/other")[1].get("state") == "running")
daemon.until(lambda: daemon.ask("GET", "/v1/machines/back")[0] == 404)
# who comes without a number hears of nothing that was before, who brings one of another store hears of all
def first_event(path, meanwhile=None, **headers):
    connection = Connection(daemon.socket)
    connection.request("GET", path, headers=headers)
    stream = connection.getresponse()
    stream.readline()  # it is heard from here on
    if meanwhile:
        check(meanwhile, call(meanwhile, machine="one")[0] == 200)
    number = next(int(line[4:]) for line in iter(stream.readline, b"") if line.startswith(b"id: "))
    connection.close()
    return number


check("nothing of before", first_event("/v1/events", "pauseMachine") > first_event("/v1/events?after=0&subject=keyed"))
check("the next", first_event("/v1/events", "resumeMachine") > 1)
check("all of another store", first_event("/v1/events", **{"Last-Event-ID": "1000000000"}) == 1)
now = call("listMachines")[1]
check("found again", [row["name"] for row in now] == [row["name"] for row in before if row["name"] != "back"], now)
check("operations are kept", [o["id"] for o in call("listOperations")[1]] == [o["id"] for o in operations])
check("the key is kept", call("createMachine", dict(what, name="keyed"), {"Idempotency_Key": "k1"})[:2] == first[:2])
check("stopped", daemon.done(call("stopMachine", machine="other"))["state"] == "done")
check("forgotten", call("forgetMachine", machine="keyed")[0] == 200)

# whoever hears that a machine has ended finds nobody at its place
call("createMachine", dict(what, name="last"))
for n in range(5):
    check("again", daemon.done(call("startMachine", machine="last"))["state"] == "done")
    watch = socket.socket(socket.AF_UNIX)
    watch.connect(daemon.path("run/umbra/last"))
    watch.sendall(b'{"id":1,"do":"watch"}\n')
    check("it is watched", b'"ok":true' in watch.recv(4096))
    ended = call("killMachine", machine="last")
    while watch.recv(4096):
        pass
    late = socket.socket(socket.AF_UNIX)
    check("nobody is there", late.connect_ex(daemon.path("run/umbra/last")) != 0)
    check("killed", daemon.done(ended)["state"] == "done")
# one whose place is taken again at once, by what says nothing and goes: that it was seen as one that starts is taken back
fake = FakeMachine(daemon, "fake")
watch = fake.watch()
fake.describe(watch)
daemon.until(lambda: daemon.ask("GET", "/v1/machines/fake")[1].get("state") == "running")
watch.close()
watch = fake.watch()
daemon.until(lambda: daemon.ask("GET", "/v1/machines/fake")[1].get("state") == "starting")
fake.close()
watch.close()
daemon.until(lambda: daemon.ask("GET", "/v1/machines/fake")[0] == 404)
check("the last is forgotten", call("forgetMachine", machine="last")[0] == 200)

# events: all, in order, each as the document says, each end once
schema = document["components"]["schemas"]["Event"]
connection = Connection(daemon.socket)
connection.request("GET", "/v1/events?after=0")
stream = connection.getresponse()
driven.add("watchEvents")
events, number = [], 0
while True:
    line = stream.readline().decode().rstrip("\n")
    if line.startswith("id: "):
        check("a number", int(line[4:]) == number + 1, line, number)
        number = int(line[4:])
    elif line.startswith("data: "):
        events.append(json.loads(line[6:]))
        wrong = valid(events[-1], schema)
        check("an event", not wrong, events[-1], wrong)
        if events[-1]["kind"] == "forgotten" and events[-1]["subject"] == "last":
            break
connection.close()
seen = [(event["kind"], event.get("machine", {}).get("state")) for event in events if event["subject"] == "fake"]
check("the events of one that seemed to start", seen == [("started", None), ("ended", None), ("changed", "stopped")], seen)
for name, kinds in {"child": ["started", "ended"], "back": ["started", "ended"], "other": ["started", "ended"], "keyed": ["described", "forgotten"]}.items():
    seen = [event["kind"] for event in events if event["subject"] == name and event["kind"] != "changed"]
    check("the events of " + name, seen == kinds, seen)

# what is wrong with a request, each with its status
for status, method, path, body in (
        (404, "GET", "/v2/machines", None), (405, "PUT", "/v1/machines", {}), (400, "POST", "/v1/machines", {}),
        (400, "POST", "/v1/machines", dict(what, name="../x")), (400, "POST", "/v1/machines", dict(what, name="y", kernel="relative")),
        (400, "POST", "/v1/machines", dict(what, name="y", cpus=17)), (400, "POST", "/v1/machines", dict(what, name="y", more=1)),
        (400, "POST", "/v1/machines", b'{"name":"y","name":"z"}'), (400, "POST", "/v1/machines", b"[1]"), (400, "POST", "/v1/machines", b"\xff{"),
        (400, "POST", "/v1/machines", {"name": "y"}), (400, "GET", "/v1/disks/info?file=/x&file=/y", None), (400, "GET", "/v1/events?after=x", None),
        (400, "GET", "/v1/disks/info?file=relative", None), (400, "POST", "/v1/machines/one/pause", {"machine": "other"})):
    answer = daemon.ask(method, path, body)
    check("%s %s" % (method, path), answer[0] == status and answer[1].get("error") == "usage", body, answer[:2])
check("a body of another type", daemon.ask("POST", "/v1/machines", {"name": "y"}, Content_Type="text/plain")[0] == 400)
streams = {"watchConsole", "attachProgram"}  # streams.py
every = {row["operationId"] for methods in document["paths"].values() for row in methods.values()}
check("not driven:", every - driven - streams == set(), every - driven - streams)
daemon.close()
check("something was said:", daemon.log() == "", daemon.log())
sys.exit(failed)
