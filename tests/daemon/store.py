#!/usr/bin/env python3
"""The store in an SQLite file and in a PostgreSQL server of the test's own: the same calls; a daemon whose store it is, that is started anew, whose tables somebody has
locked, whose server goes away and comes back.   usage: store.py UMBRA UMBRAD GUEST STORE_TEST"""
import glob, json, os, shutil, signal, socket, subprocess, sys, tempfile, threading, time

from umbrad import Daemon

umbra, program, guest, store_test = sys.argv[1:5]
guest = os.path.abspath(guest)
failed = 0
tools = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
if not tools:
    sys.exit("store: no PostgreSQL; tools/install-deps test")
# it does not run as root
user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}


def check(what, good, *more):
    global failed
    if not good:
        print("store:", what, *more)
        failed = 1


class Server:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        if user:
            shutil.chown(self.folder.name, "nobody", "nogroup")
        self.run("initdb", "-D", self.folder.name + "/data", "-U", "umbra", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.where = "postgresql:///%s?host=%s&user=umbra"
        self.start()

    def run(self, tool, *words):
        done = subprocess.run([os.path.join(tools[-1], tool), *words], capture_output=True, text=True, cwd="/", timeout=120, **user)
        if done.returncode:
            sys.exit("store: %s: %s" % (tool, done.stderr[-500:] + done.stdout[-500:]))
        return done.stdout

    def start(self):
        self.run("pg_ctl", "-D", self.folder.name + "/data", "-l", self.folder.name + "/log", "-w", "-t", "60", "-o",
                 "-c listen_addresses='' -c unix_socket_directories=%s -c fsync=off -c shared_buffers=8MB -c max_connections=10" % self.folder.name, "start")

    def stop(self):
        self.run("pg_ctl", "-D", self.folder.name + "/data", "-m", "immediate", "-w", "stop")

    def sql(self, text, base="postgres"):
        return self.run("psql", "-h", self.folder.name, "-U", "umbra", "-d", base, "-Atqc", text).strip()

    def address(self, base):
        return self.where % (base, self.folder.name)


class Proxy:
    """Between a daemon and the server: the next event is passed on, and when it is committed both are cut off, before its answer (or before it was)."""
    def __init__(self, server):
        self.folder = tempfile.TemporaryDirectory()
        self.target = server.folder.name + "/.s.PGSQL.5432"
        self.cuts, self.what = 0, None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.folder.name + "/.s.PGSQL.5432")
        self.listener.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def address(self, base):
        return "postgresql:///%s?host=%s&user=umbra" % (base, self.folder.name)

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            other = socket.socket(socket.AF_UNIX)
            other.connect(self.target)
            cut = threading.Event()
            threading.Thread(target=self.pass_on, args=(client, other, cut, True), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(other, client, cut, False), daemon=True).start()

    def pass_on(self, one, other, cut, asks):
        while True:
            try:
                data = one.recv(65536)
            except OSError:
                data = b""
            if asks and b"INSERT INTO umbra_event" in data and self.what:
                if self.what == "before":
                    data = b""
                self.what = None
                self.cuts += 1
                cut.set()
            if not data or (cut.is_set() and not asks):
                break
            try:
                other.sendall(data)
            except OSError:
                break
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def cut_off(server):
    """An event is told once, whether its commit was done or not when the connection was lost."""
    server.sql("CREATE DATABASE cut")
    proxy = Proxy(server)
    daemon = Daemon(umbra, program).start("--store", proxy.address("cut"))
    for name, what in (("first", "after"), ("second", "before")):
        proxy.what = what
        daemon.ask("POST", "/v1/machines", {"name": name, "kernel": guest, "no-bus": True})
        told = "SELECT count(*) FROM umbra_event WHERE text LIKE '%%\"subject\":\"%s\"%%'" % name
        daemon.until(lambda: server.sql(told, "cut") != "0")
        # those that come later are told by a connection that is made anew: then the cut one was asked for again
        daemon.until(lambda: daemon.ask("POST", "/v1/machines", {"name": name + "-later", "kernel": guest, "no-bus": True})[0] == 201)
        daemon.until(lambda: server.sql(told.replace('\"%s\"' % name, '\"%s-later\"' % name), "cut") != "0")
        check("told once", server.sql(told, "cut") == "1", what, server.sql(told, "cut"))
    check("cut off", proxy.cuts == 2, proxy.cuts)
    numbers = server.sql("SELECT string_agg(sequence::text, ',' ORDER BY sequence) FROM umbra_event", "cut").split(",")
    check("numbers", numbers == [str(n) for n in range(1, len(numbers) + 1)], numbers)
    daemon.close()


def hosts(server):
    """Two hosts of one name keep what is theirs; a host that got another name has what it had; tables of before get what they have not."""
    server.sql("CREATE DATABASE hosts")
    store = server.address("hosts")
    known = {}
    for host in ("one", "two"):
        daemon = Daemon(umbra, program).start("--store", store, "--host", host)
        daemon.ask("POST", "/v1/machines", {"name": "of-" + host, "kernel": guest, "no-bus": True})
        known[host] = [row["name"] for row in daemon.ask("GET", "/v1/machines")[1]]
        daemon.close()
    check("two hosts", known == {"one": ["of-one"], "two": ["of-two"]}, known)
    # as it was kept before there were ids, of hosts by their names
    old = "%d@%s" % (os.getuid(), socket.gethostname())
    for table in ("umbra_document", "umbra_event", "umbra_counter"):
        server.sql("UPDATE %s SET owner = '%s' WHERE owner = '%d@one'" % (table, old, os.getuid()), "hosts")
    server.sql("ALTER TABLE umbra_event DROP COLUMN id", "hosts")
    for host, wanted in (("new", ["of-one"]), ("two", ["of-two"]), ("other", [])):
        daemon = Daemon(umbra, program).start("--store", store, "--host", host)
        rows = [row["name"] for row in daemon.ask("GET", "/v1/machines")[1]]
        check("what was kept by a name", rows == wanted, host, rows)
        daemon.close()
    check("events, too", server.sql("SELECT count(*) FROM umbra_event WHERE owner = '%d@new'" % os.getuid(), "hosts") == "1")
    # without a word it is made of what the host is known by
    daemon = Daemon(umbra, program).start("--store", store)
    daemon.ask("POST", "/v1/machines", {"name": "mine", "kernel": guest, "no-bus": True})
    daemon.close()
    owner = server.sql("SELECT owner FROM umbra_document WHERE key = 'mine'", "hosts")
    known = os.path.exists("/etc/machine-id") and open("/etc/machine-id").read().strip()
    check("its owner", len(owner.split("@")[1]) == 32 and known not in owner if known and len(known) == 32 else owner == old, owner)


server = Server()
try:
    hosts(server)
    cut_off(server)
    with tempfile.TemporaryDirectory() as folder:
        for where in (folder + "/store.sqlite", server.address("postgres")):
            done = subprocess.run([store_test, where], capture_output=True, text=True, timeout=120)
            check("calls", done.returncode == 0, where.split(":")[0], done.stdout, done.stderr)
    # many begin at once, of two roles, of which one may make no tables
    server.sql("CREATE DATABASE crowd")
    crowd = [subprocess.Popen([store_test, server.address("crowd")], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [one.communicate(timeout=120)[0] for one in crowd]
    check("at once", not any("open" in text for text in said), said)  # of one owner all: what they find is each other's
    server.sql("CREATE ROLE guest LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO guest; DELETE FROM umbra_document; DELETE FROM umbra_event; DELETE FROM umbra_counter", "crowd")
    done = subprocess.run([store_test, server.address("crowd").replace("user=umbra", "user=guest")], capture_output=True, text=True, timeout=120)
    check("another role", done.returncode == 0, done.stdout, done.stderr)
    # what others have there stays theirs
    server.sql("UPDATE umbra_document SET owner = 'other'; UPDATE umbra_event SET owner = 'other'; UPDATE umbra_counter SET owner = 'other'")
    daemon = Daemon(umbra, program)
    store = server.address("postgres")
    daemon.start("--store", store)
    what = {"name": "kept", "kernel": guest, "no-bus": True, "memory": "64M"}
    check("described", daemon.ask("POST", "/v1/machines", what, Idempotency_Key="k")[0] == 201)
    check("ran", daemon.done(daemon.ask("POST", "/v1/machines/kept/start", {}))["state"] == "done")
    operations = daemon.ask("GET", "/v1/operations")[1]
    daemon.stop()
    daemon.start("--store", store)
    check("found again", [row["name"] for row in daemon.ask("GET", "/v1/machines")[1]] == ["kept"] and daemon.ask("GET", "/v1/operations")[1] == operations)
    check("the key", daemon.ask("POST", "/v1/machines", what, Idempotency_Key="k")[0] == 201)
    owners = server.sql("SELECT DISTINCT owner FROM umbra_document").split("\n")
    check("owners", len(owners) == 2 and "other" in owners and any(o.startswith("%d@" % os.getuid()) for o in owners), owners)
    numbers = server.sql("SELECT string_agg(sequence::text, ',' ORDER BY sequence) FROM umbra_event WHERE owner <> 'other'").split(",")
    check("numbers of events", numbers == [str(n) for n in range(1, len(numbers) + 1)], numbers)

    # somebody has the tables: no longer than a moment, and said as what it is
    lock = subprocess.Popen([os.path.join(tools[-1], "psql"), "-h", server.folder.name, "-U", "umbra", "-d", "postgres", "-Atq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", **user)
    lock.stdin.write("BEGIN; LOCK TABLE umbra_document; SELECT 'locked';\n")
    lock.stdin.flush()
    lock.stdout.readline()
    status, said, _ = daemon.ask("POST", "/v1/machines", dict(what, name="late"))
    check("locked", status == 503 and said["error"] == "unusable", status, said)
    check("what is known is said", daemon.ask("GET", "/v1/machines/kept")[0] == 200)
    lock.stdin.close()
    lock.wait()
    check("not locked any more", daemon.ask("POST", "/v1/machines", dict(what, name="late"))[0] == 201)

    # its server says nothing any more: everybody else is answered as soon as that is noticed
    backend = int(server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'umbrad'"))
    os.kill(backend, signal.SIGSTOP)
    status, said, _ = daemon.ask("POST", "/v1/machines", dict(what, name="unheard"))
    check("a silent server", status == 500 and said["error"] == "unusable", status, said)
    check("what is known is said", daemon.ask("GET", "/v1/machines/kept")[0] == 200)
    os.kill(backend, signal.SIGCONT)
    daemon.until(lambda: daemon.ask("POST", "/v1/machines", dict(what, name="heard"))[0] == 201)
    check("forgotten", daemon.ask("DELETE", "/v1/machines/heard")[0] == 200)

    # its server is gone, and comes back
    server.stop()
    status, said, _ = daemon.ask("POST", "/v1/machines", dict(what, name="gone"))
    check("without a server", status == 500 and said["error"] == "unusable", status, said)
    check("what is known is said", daemon.ask("GET", "/v1/machines/kept")[0] == 200)
    server.start()
    daemon.until(lambda: daemon.ask("POST", "/v1/machines", dict(what, name="back"))[0] == 201)
    check("its end", daemon.stop() == 0)
    daemon.start("--store", store)
    found = {row["name"] for row in daemon.ask("GET", "/v1/machines")[1]}
    check("all of it", found - {"unheard"} == {"back", "kept", "late"}, found)  # what the silent one was sent it may have done
    daemon.close()
    check("something was said:", daemon.log() == "", daemon.log())

    # no such server, no such base, tables of a later version: one line each, without what could be a password
    server.sql("UPDATE umbra_store SET version = 2")
    for where, text in ((store, "damaged"), (server.address("nothing").replace("user=umbra", "user=umbra&password=secret"), "start that server"), ("postgresql:///x?host=/nowhere", "start that server")):
        done = subprocess.run([program, "--umbra", umbra, "--store", where], env=daemon.env, capture_output=True, text=True, timeout=60)
        check("refused", done.returncode == 65 and text in done.stderr and done.stderr.count("\n") == 1 and "secret" not in done.stderr, where, done)
finally:
    server.stop()
sys.exit(failed)
