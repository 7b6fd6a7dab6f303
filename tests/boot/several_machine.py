"""Linux with networks, disks and the agent (net_machine.py), whose devices have several channels: what it consists of, and how one begins. All end with the test."""
import atexit, os, subprocess

from net_machine import agent, check, end_all, env, guest, peer, umbra, until, work

modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "hv_balloon", "hyperv-keyboard", "vsock", "hv_sock", "failover", "net_failover", "hv_netvsc", "scsi_common",
                                                     "scsi_mod", "scsi_transport_fc", "hv_storvsc", "sd_mod", "llc", "stp", "garp", "mrp", "8021q")]
atexit.register(end_all)


def build(name="several", programs=()):
    """What a machine is to be run with; of another name where it has more programs."""
    image = "build/guest/%s.cpio.gz" % name
    subprocess.run(["tools/fetch-guest", "tests/boot/several.init", image] + [m for m in modules if os.path.exists(m)] + [agent, peer, *programs], check=True)
    return ["--kernel", "build/guest/vmlinuz", "--initrd", image, "--append", "console=ttyS0 quiet"]


def begin(name, *words):
    log = open(os.path.join(work.name, name + ".log"), "wb")
    process = subprocess.Popen([umbra, "run", "--name", name, "--time-limit", "1200", *words], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    until("the agent of %s answers" % name, lambda: guest(name, "echo here") == "here")
    return process


def is_well(name):
    check("nothing complains in " + name, guest(name, "dmesg | grep -E 'BUG:|WARNING:|Oops|hung_task|I/O error'") == "", guest(name, "dmesg | tail -30"))
