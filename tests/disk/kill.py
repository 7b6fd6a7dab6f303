#!/usr/bin/python3
"""kill -9 of a server while a client writes, at any moment, its chain changing now and then: what was flushed is there, the lock is
free, the chain opens and is sound. usage: kill.py UMBRA [ROUNDS [SEED]]"""
import os, random, signal, socket, struct, subprocess, sys, tempfile, threading, time

umbra, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8
random.seed(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
SIZE, SECTOR = 48 << 20, 4096
faults = 0

def fault(text):
    global faults
    faults += 1
    print('kill:', text)

def exactly(s, n):
    data = b''
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data

class Client:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(path)
        exactly(self.s, 18)
        self.s.sendall(struct.pack('>IQII', 3, 0x49484156454f5054, 1, 0))
        exactly(self.s, 10)
    def ask(self, kind, offset=0, length=0, data=b''):
        self.s.sendall(struct.pack('>IHHQQI', 0x25609513, 0, kind, 1, offset, length) + data)
        if struct.unpack('>IIQ', exactly(self.s, 16))[1]:
            raise RuntimeError('the server answered with an error')

def run(*arguments):
    return subprocess.run([umbra, 'disk', *arguments], capture_output=True, text=True)

def one(number, directory):
    os.chdir(directory)
    for name in os.listdir('.'):
        os.unlink(name)
    top = 'a.vhdx'
    run('create', top, '--size', str(SIZE), '--block-size', '1M')
    may = {}            # of a sector: values that it may have; another one is zero
    server = subprocess.Popen([umbra, 'disk', 'serve', top, '--socket', 's'], stderr=subprocess.DEVNULL)
    for _ in range(3000):
        if os.path.exists('s.control'):
            break
        time.sleep(0.02)
    client, written, names = Client('s'), {}, ['b.vhdx', 'c.vhdx']
    timer = threading.Timer(random.uniform(0.05, 0.8), server.kill)
    timer.start()
    try:
        value = 0
        while True:
            act = random.randrange(40)
            if act == 0:
                client.ask(3)
                for sector, v in written.items():
                    may[sector] = {v}
                written = {}
            elif act == 1 and names and random.randrange(4) == 0:
                run('snapshot', names[0], '--socket', 's')
                names.pop(0)
            elif act == 2 and random.randrange(6) == 0:
                run('commit', '--socket', 's')
            else:
                sector, value = random.randrange(SIZE // SECTOR), value % 255 + 1
                may.setdefault(sector, {0}).add(value)
                client.ask(1, sector * SECTOR, SECTOR, bytes([value]) * SECTOR)
                written[sector] = value
    except (ConnectionError, BrokenPipeError, RuntimeError) as e:
        if isinstance(e, RuntimeError):
            fault('round %d: %s' % (number, e))
    timer.join()
    server.wait()
    # the newest child that was acknowledged or finished is the top
    for name in ('c.vhdx', 'b.vhdx', 'a.vhdx'):
        if os.path.exists(name):
            opened = run('write', name, '--offset', '0', '--from', '/dev/null')  # replays what has to be
            if not opened.returncode:
                top = name
                break
            if name == 'a.vhdx' or 'in use' in opened.stderr:
                fault('round %d: %s' % (number, opened.stderr.strip()))
    checked = run('check', top, '--chain')
    if checked.returncode:
        fault('round %d: %s' % (number, (checked.stdout + checked.stderr).strip()[:400]))
    data = subprocess.run([umbra, 'disk', 'read', top, '--offset', '0'], capture_output=True).stdout
    for n in range(SIZE // SECTOR):
        part = data[n * SECTOR:(n + 1) * SECTOR]
        values = may.get(n, {0})
        if len(set(part)) != 1 or part[0] not in values:
            fault('round %d: sector %d has %s, not one of %s' % (number, n, sorted(set(part))[:3], sorted(values)))
            break

with tempfile.TemporaryDirectory() as directory:
    for number in range(rounds):
        one(number, directory)
    os.chdir('/')
print('kill: %d servers killed, %d faults' % (rounds, faults))
sys.exit(faults != 0)
