#!/usr/bin/env python3
# Linux with its own daemons for keys and values (hv_kvp_daemon) and backups (hv_vss_daemon): keys reach the guest, what it says of itself
# is in umbra info, and a snapshot of its disk is whole, the guest going on; without a daemon that is said. services.py UMBRA AGENT
import json, os, subprocess, sys, tempfile, time

umbra, agent, failed = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), 0
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "scsi_common", "scsi_mod", "scsi_transport_fc", "hv_storvsc", "sd_mod", "hv_utils", "vsock", "hv_sock")]
daemons = ["build/guest/hv_kvp_daemon", "build/guest/hv_vss_daemon", "/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
subprocess.run(["tools/fetch-guest", "tests/boot/services.init", "build/guest/services.cpio.gz"] + modules + daemons + [agent], check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name, HOME=work.name)

def check(what, good, *more):
    global failed
    if not good:
        print("services:", what, *more)
        failed = 1

def path(name):
    return os.path.join(work.name, name)

def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=100)

def guest(*words):
    return run("exec", "-T", "one", "--", *words)

def wait_for(what, good):
    until = time.time() + 90
    while not good() and time.time() < until:
        time.sleep(0.1)
    check(what, time.time() < until, run("console", "--once", "one").stdout[-1000:], run("info", "one").stdout[:1500])

def info():
    r = run("info", "--json", "one")
    return json.loads(r.stdout) if not r.returncode else {}

def count():
    said = guest("cat", "/mnt/count").stdout
    return int(said) if said.strip().isdigit() else 0

def has_keys():
    wait_for("the agent", lambda: not guest("true").returncode)
    wait_for("the guest's keys", lambda: "mine" in info().get("keys", {}))
    keys = info().get("keys", {})
    check("of the guest itself", keys.get("OSMajorVersion") == "7" and keys.get("OSVersion", "").startswith("6."), keys)
    check("of its own pool", keys.get("mine") == "a value=?of mine", keys)
    check("lines for people", b"guest OSMajorVersion: 7\n" in run("info", "one").stdout)
    pool = guest("cat", "/var/lib/hyperv/.kvp_pool_0").stdout
    pairs = {pool[n:n + 512].split(b"\0")[0]: pool[n + 512:n + 2560].split(b"\0")[0] for n in range(0, len(pool), 2560)}
    check("given", pairs == {b"role": b"web", b"note": b"a=b c"}, pairs)

def is_kept(told):
    before = count()
    r = run("disk", "snapshot", "--machine", "one")
    check("snapshot", r.returncode == 0 and told in r.stderr.decode() and bool(told) == bool(r.stderr), r)
    kept, goes_on = r.stdout.decode().strip().split(" is kept, and goes on in ")
    check("where it goes on", info()["disks"][0]["file"] == goes_on and kept != goes_on, r.stdout)
    raw = path("raw")
    check("convert", run("disk", "convert", kept, raw, "--to", "raw").returncode == 0)
    r = subprocess.run(["/sbin/debugfs", "-R", "cat /count", raw], capture_output=True)
    check("of that moment", r.stdout.strip().isdigit() and int(r.stdout) >= before or told, before, r)
    r = subprocess.run(["/sbin/e2fsck", "-fn", raw], capture_output=True)
    check("whole", r.returncode == 0 or told, r.stdout.decode())
    os.unlink(raw)
    check("nobody writes it", run("disk", "write", kept, "--offset", "0", "--from", "/etc/hostname").returncode == 65)
    after = count()
    wait_for("the guest goes on", lambda: count() > after)

run("disk", "create", path("data.vhdx"), "--size", "32M")
r = run("run", "--detach", "--name", "one", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/services.cpio.gz", "--append", "console=ttyS0 quiet",
        "--kvp", "role=web", "--kvp", "note=a=b c", "--disk", path("data.vhdx"))
check("run", r.returncode == 0, r)
has_keys()
is_kept("")
guest("killall", "hv_vss_daemon")
is_kept("no hv_vss_daemon")
for bad in "web", "=web", "a\nb=c", "k" * 256 + "=v", "k=" + "v" * 1024:
    r = run("run", "--kernel", "build/guest/vmlinuz", "--kvp", bad)
    check("not a key", r.returncode == 64 and b"KEY=VALUE" in r.stderr, r)
check("of no machine", run("disk", "check", "--machine", "one").returncode == 64 and run("disk", "snapshot", "--machine", "none").returncode == 65)
check("stop", run("stop", "one").returncode == 0)
said = run("console", "--once", "one").stdout.decode(errors="replace")
check("the kernel complains", not any(w in said for w in ("BUG:", "WARNING:", "Oops", "BAD")), said[-2000:])
sys.exit(failed)
