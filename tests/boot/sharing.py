#!/usr/bin/env python3
# Unmodified Linux at either end of a channel between machines (docs/sharing.md): a guest serves a disk by uio_hv_generic from user space to another
# one's hv_storvsc, while the hub is lost; and a file goes through lent pages from a program in one to a program in the other.
# sharing.py UMBRA SHARE-DISK SHARE-FILE
import os, re, signal, json, subprocess, sys, tempfile, time

umbra, failed = os.path.abspath(sys.argv[1]), 0
programs = [os.path.abspath(p) for p in sys.argv[2:4]]
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
subprocess.run(["tools/fetch-guest"], check=True)
names = "hv_vmbus", "uio", "uio_hv_generic", "scsi_common", "scsi_mod", "scsi_transport_fc", "hv_storvsc", "sd_mod"
subprocess.run(["tools/fetch-guest", "tests/boot/sharing.init", "build/guest/sharing.cpio.gz"] + ["build/guest/modules/%s.ko" % m for m in names] + programs, check=True)
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name, XDG_CONFIG_HOME=work.name + "/config", HOME=work.name)
os.makedirs(work.name + "/config/umbra")
machines = {}

def check(what, good, *more):
    global failed
    if not good:
        print("sharing:", what, *more)
        failed = 1

def rules(text):
    with open(work.name + "/config/umbra/rules.new", "w") as file:
        file.write(text)
    os.rename(work.name + "/config/umbra/rules.new", work.name + "/config/umbra/share.rules")

def start(name, role, *words):
    out = open("%s/%s.log" % (work.name, role), "wb")
    machines[role] = subprocess.Popen([umbra, "run", "--name", name, "--memory", "384M", "--time-limit", "250", "--kernel", "build/guest/vmlinuz", "--initrd",
                                       "build/guest/sharing.cpio.gz", "--append", "console=ttyS0 quiet umbra.role=" + role, *words],
                                      env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)

def said(role):
    return open("%s/%s.log" % (work.name, role), errors="replace").read().replace("\r", "")

def word(role, name):
    found = re.search("^%s (\\S+)$" % name, said(role), re.M)
    return found and found.group(1)

def wait_for(what, good):
    until = time.time() + 240
    while not good() and time.time() < until and any(m.poll() is None for m in machines.values()):
        time.sleep(0.05)
    check(what, good())
    return not failed

def ends():
    for role, machine in machines.items():
        try:
            check("how it ends", machine.wait(250) == 0, role, machine.returncode)
        except subprocess.TimeoutExpired:
            check("it ends", False, role)
            machine.kill()
            machine.wait()
        check("what it says", "BAD" not in said(role), role)

def bus():
    return json.loads(subprocess.run([umbra, "bus", "--json"], env=env, capture_output=True).stdout or "{}")

# a disk that a program in user space serves
rules("allow store offer,pass store/*\nallow web see,open,pass,lend store/shelf class disk\n")
start("store", "serve", "--serve", "shelf=disk")
start("web", "use", "--bind", "store/shelf=disk")
if wait_for("the disk is used", lambda: word("use", "ROUND")):
    pid = bus().get("pid")
    check("a hub", pid)
    if pid:
        os.kill(pid, signal.SIGKILL)
    wait_for("it goes on behind another hub", lambda: word("use", "USED"))
ends()
check("its size", word("use", "SIZE") == "65536", word("use", "SIZE"))
check("what was on it", "of the machine that serves" in said("use"))
check("what is on it", word("use", "USED") and word("use", "USED") == word("serve", "SERVED"), word("use", "USED"), word("serve", "SERVED"))
if failed:
    print(said("use")[-3000:], said("serve")[-3000:])
    sys.exit(1)

# a file, through pages that one program lends
machines.clear()
rules("allow store offer,see,open,pass,lend store/*\nallow web see,open,pass,lend store/shelf\n")
start("store", "send", "--serve", "shelf")
start("web", "receive", "--bind", "store/shelf")
ends()
check("the file", word("send", "FILE") and word("send", "FILE") == word("receive", "FILE"), word("send", "FILE"), word("receive", "FILE"))
check("how long it is", "umbra-share-file: 5003000 bytes" in said("receive"))
if failed:
    print(said("send")[-3000:], said("receive")[-3000:], bus())
sys.exit(failed)
