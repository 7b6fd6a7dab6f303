#!/usr/bin/python3
"""Files that were made from the specification by hand (vhdx_maker.py): those that are right are read as they are meant, by us and, where it
can, by libvhdi; those that lie are refused, in little time and memory, with one line, and are not changed. usage: generated.py UMBRA"""
import hashlib, os, random, struct, subprocess, sys, tempfile, time, uuid
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vhdx_maker import *
import pyvhdi

umbra = os.path.abspath(sys.argv[1])
random.seed(3)
faults = cases = 0
SECONDS, KIBIBYTES = 20, 1 << 20

def fault(text):
    global faults
    faults += 1
    print('generated:', text)

def run(*arguments):
    limited = 'ulimit -v %d; exec "$@"' % KIBIBYTES
    begin = time.monotonic()
    p = subprocess.run(['bash', '-c', limited, 'x', umbra, 'disk', *arguments], capture_output=True, timeout=60)
    if time.monotonic() - begin > SECONDS:
        fault('%s took %.1f s' % (arguments, time.monotonic() - begin))
    return p

def noise(n):
    return random.randbytes(n)

def theirs(*paths):
    files = []
    for path in paths:
        f = pyvhdi.file()
        f.open(path)
        files.append(f)
    for child, parent in zip(files, files[1:]):
        child.set_parent(parent)
    return files[0].read(files[0].get_media_size())

def reads(name, want, *paths, foreign=True):
    """paths: the file, then its parents."""
    global cases
    cases += 1
    p = run('read', paths[0])
    if p.returncode or p.stdout != want:
        fault('%s: %s' % (name, p.stderr.decode().strip() or 'reads something else'))
    if foreign and theirs(*paths) != want:
        fault('%s: libvhdi reads something else' % name)
    p = run('check', paths[0])
    if p.returncode:
        fault('%s: check: %s' % (name, (p.stdout + p.stderr).decode().strip()))

def refused(name, path, code=65, verbs=(('read',), ('write', '--from', '/dev/null')), says=None):
    global cases
    cases += 1
    before = hashlib.md5(open(path, 'rb').read()).hexdigest()
    for verb in verbs:
        p = run(verb[0], path, *verb[1:])
        if p.returncode != code:
            fault('%s: %s ended with %d, not %d: %s' % (name, verb[0], p.returncode, code, p.stderr.decode().strip()))
        elif p.stderr.count(b'\n') != 1 or (says and says not in p.stderr.decode()):
            fault('%s: does not say it well: %s' % (name, p.stderr.decode().strip()))
    if hashlib.md5(open(path, 'rb').read()).hexdigest() != before:
        fault('%s: the file was changed' % name)

# ---- right ----

def plain():
    v = Vhdx()
    a, b = noise(MIB), noise(MIB)
    v.put(1, a)
    v.put(6, b)
    v.state(2, ZERO), v.state(3, UNMAPPED), v.state(4, UNDEFINED)
    return v, bytes(MIB) + a + bytes(4 * MIB) + b + bytes(MIB)

def right():
    v, want = plain()
    reads('plain', want, v.write('plain.vhdx'))
    v, want = plain()
    v.sequence = [7, 7]
    reads('equal sequence numbers (Disk2VHD)', want, v.write('equal.vhdx'))
    v, want = plain()
    v.data_id = [uuid.uuid4(), uuid.uuid4()]
    reads('other identifiers in each header (QEMU)', want, v.write('mixed.vhdx'))
    for n in range(2):
        v, want = plain()
        v.header_good[n] = False
        reads('one header alone', want, v.write('one.vhdx'), foreign=n == 1)
    v, want = plain()
    v.regions[0][3] = v.regions[1][3] = 0
    reads('regions that are not marked as required (QEMU 1.6)', want, v.write('old.vhdx'))
    v, want = plain()
    v.regions.append([uuid.uuid4(), v.take(1) * MIB, MIB, 0])
    v.payload[v.take(1)] = bytes(MIB)
    v.entries[0] = (PRESENT, v.next_mib - 1)
    secret = noise(MIB)
    v.payload[v.regions[2][1] // MIB] = secret
    reads('a region that nobody knows', want, v.write('region.vhdx'))
    run('compact', 'region.vhdx')
    reads('a region that nobody knows, compacted', want, 'region.vhdx')
    if open('region.vhdx', 'rb').read()[v.regions[2][1]:][:MIB] != secret:
        fault('compaction wrote over a region that it does not know')
    v, want = plain()
    v.items += [[uuid.uuid4(), USER, noise(100)] for _ in range(1000)]
    reads('1000 items of users', want, v.write('items.vhdx'))
    v.items += [[uuid.uuid4(), USER | DISK, b'']]
    reads('an empty item', want, v.write('items.vhdx'), foreign=False)  # libvhdi refuses its offset of 0
    for sector, block in ((4096, MIB), (512, 256 * MIB), (4096, 32 * MIB)):
        v = Vhdx(size=block + 8 * MIB, block=block, sector=sector)
        a = noise(MIB)
        v.put(1, a)
        reads('blocks of %d MiB, sectors of %d' % (block // MIB, sector), bytes(block) + a + bytes(7 * MIB), v.write('shape.vhdx'))
        os.unlink('shape.vhdx')
    parent, below = plain()
    parent.write('parent.vhdx')
    v = Vhdx(parent=link(parent, 'parent.vhdx'))
    a, part = noise(MIB), noise(MIB)
    v.put(0, a)
    v.put(1, part, PARTIAL)
    bits = bytearray(MIB)
    want = bytearray(a + below[MIB:])
    for s in range(2048):
        if random.randrange(2):
            bits[(2048 + s) // 8] |= 1 << (s & 7)
            want[MIB + s * 512:MIB + s * 512 + 512] = part[s * 512:s * 512 + 512]
    v.bitmap(0, bytes(bits))
    reads('a child, some sectors of its own', bytes(want), v.write('child.vhdx'), 'parent.vhdx')
    v.state(6, ZERO)
    want[6 * MIB:7 * MIB] = bytes(MIB)
    reads('a child that hides its parent with zeros', bytes(want), v.write('child.vhdx'), foreign=False)  # libvhdi shows the parent
    second = Vhdx(parent=[('parent_linkage', '{%s}' % uuid.uuid4()), ('parent_linkage2', '{%s}' % parent.data_id[0]), ('relative_path', 'parent.vhdx')])
    reads('named by its second identifier', below, second.write('second.vhdx'), foreign=False)
    many = Vhdx()
    many.items += [[uuid.uuid4(), USER | DISK, b'x' * 8] for _ in range(2000)]
    many.write('many.vhdx')
    if run('create', 'heir.vhdx', '--parent', 'many.vhdx').returncode != 65 or os.path.exists('heir.vhdx'):
        fault('a child inherits more items than it can have')
    # a log that was not replayed: the newest run of entries counts; who only reads replays it in memory
    v, want = plain()
    v.log_id = uuid.uuid4()
    bat = bytearray(4096)
    for n, (state, mib) in v.entries.items():
        struct.pack_into('<Q', bat, n * 8, mib << 20 | state)
    c = noise(MIB)
    at = v.take(1)
    v.payload[at] = c
    struct.pack_into('<Q', bat, 5 * 8, at << 20 | PRESENT)
    end = v.next_mib * MIB
    junk = log_entry(v.log_id, 3, 0, [(3 * MIB, noise(4096))], flushed=end, last=end)
    good = log_entry(v.log_id, 9, 3 * 8192, [(3 * MIB, bytes(bat))], zeros=[(v.take(1) * MIB, 4096)], flushed=end, last=end + MIB)
    torn = log_entry(v.log_id, 10, 3 * 8192, [(3 * MIB, noise(4096))], flushed=end, last=end, torn=11)
    v.log = junk + bytes(8192) + bytes(8192) + good + torn
    v.length = end
    v.write('log.vhdx')
    before = open('log.vhdx', 'rb').read()
    want = want[:5 * MIB] + c + want[6 * MIB:]
    reads('a log, for who only reads', want, 'log.vhdx', foreign=False)
    run('create', 'onlog.vhdx', '--parent', 'log.vhdx')
    run('write', 'onlog.vhdx', '--offset', '0', '--from', '/dev/null')
    reads('a child of one with a log', want, 'onlog.vhdx', foreign=False)
    os.chmod('log.vhdx', 0o444)
    if run('check', 'log.vhdx').returncode or b'not replayed' not in run('info', 'log.vhdx').stdout:
        fault('a file with a log is not checked as it is')
    os.chmod('log.vhdx', 0o644)
    if open('log.vhdx', 'rb').read() != before:
        fault('who only reads has changed a file with a log')
    if b'is replayed' not in run('replay', 'log.vhdx').stdout or b'no log' not in run('replay', 'log.vhdx').stdout:
        fault('a log is not replayed when that is asked for')
    reads('a log that was replayed', want, 'log.vhdx')
    # as large as the format allows, in bounded memory: the table of a whole 64 TiB disk is 256 MiB
    v = Vhdx(size=64 << 40, block=32 * MIB)
    p = run('info', v.write('large.vhdx'))
    if p.returncode:
        fault('64 TiB: ' + p.stderr.decode())

# ---- wrong ----

def wrong(name, change, **how):
    v, _ = plain()
    change(v)
    refused(name, v.write('wrong.vhdx'), **how)

def set_item(n, value):
    return lambda v: v.items[n].__setitem__(2, value)

def wrong_files():
    wrong('no signature', lambda v: setattr(v, 'signature', b'vhdxfilf'))
    wrong('no header', lambda v: setattr(v, 'header_good', [False, False]))
    wrong('a later version', lambda v: setattr(v, 'version', [2, 2]))
    wrong('a later log', lambda v: setattr(v, 'log_version', 1))
    wrong('a log beyond the end', lambda v: setattr(v, 'log_bytes', 40 * MIB))
    wrong('no log', lambda v: setattr(v, 'log_bytes', 0))
    wrong('a region that must be known', lambda v: v.regions.append([uuid.uuid4(), v.take(1) * MIB, MIB, 1]))
    wrong('a region over another', lambda v: v.regions.append([uuid.uuid4(), 3 * MIB, MIB, 0]))
    wrong('a region beyond the end', lambda v: v.regions[1].__setitem__(2, 1 << 30))
    wrong('two block tables', lambda v: v.regions.append([FILE_BAT, v.take(1) * MIB, MIB, 1]))
    wrong('no block table', lambda v: v.regions.pop())
    wrong('a block table that is short', lambda v: set_item(1, struct.pack('<Q', 64 << 40))(v))
    wrong('an item that must be known', lambda v: v.items.append([uuid.uuid4(), REQUIRED, b'x' * 8]))
    wrong('an item twice', lambda v: v.items.append(list(v.items[1])))
    wrong('an item missing', lambda v: v.items.pop(3))
    wrong('an item that lies outside', lambda v: v.item_places.__setitem__(2, (0xfffffff0, 16)))
    wrong('an item that is as long as nothing', lambda v: v.item_places.__setitem__(1, (65544, 0xffffffff)))
    wrong('more items than there can be', lambda v: setattr(v, 'item_count', 65535))
    wrong('a size that is no whole number of sectors', set_item(1, struct.pack('<Q', 8 * MIB + 1)))
    wrong('a size of nothing', set_item(1, struct.pack('<Q', 0)))
    wrong('a size beyond the format', set_item(1, struct.pack('<Q', 1 << 60)))
    wrong('sectors of 1000 bytes', set_item(3, struct.pack('<I', 1000)))
    wrong('blocks of 3 MiB', set_item(0, struct.pack('<II', 3 * MIB, 0)))
    wrong('a parent without a locator', set_item(0, struct.pack('<II', MIB, 2)))
    wrong('a block beyond the end', lambda v: v.entries.__setitem__(0, (PRESENT, 1 << 30)))
    wrong('a block over another', lambda v: v.entries.__setitem__(0, v.entries[1]))
    wrong('a block over the log', lambda v: v.entries.__setitem__(0, (PRESENT, 1)))
    wrong('a block in front of everything', lambda v: v.entries.__setitem__(0, (PRESENT, 0)))
    wrong('a state that does not exist', lambda v: v.entries.__setitem__(0, (5, 0)))
    wrong('a part of a block without a parent', lambda v: v.entries.__setitem__(1, (PARTIAL, v.entries[1][1])))
    wrong('cut off', lambda v: setattr(v, 'length', 3 * MIB + 100))

def wrong_logs():
    def with_log(**lie):
        def change(v):
            v.log_id = uuid.uuid4()
            end = v.next_mib * MIB
            flushed, last, offset = lie.pop('flushed', end), lie.pop('last', end), lie.pop('offset', 3 * MIB)
            v.log = log_entry(v.log_id, 5, lie.pop('tail', 0), [(offset, bytes(4096))], flushed=flushed, last=last, **lie)
        return change
    replays = [('write', '--from', '/dev/null'), ('read',), ('replay',)]
    wrong('a log that knows a longer file', with_log(flushed=1 << 40, last=1 << 40), verbs=replays)
    wrong('a log that makes the file endless', with_log(last=1 << 62), verbs=replays)
    # entries that are not valid are as if they were not there: the file is what it is without them
    for name, lie in (('an entry that lies about its length', {'length': 0x7ffff000}), ('an entry of nothing', {'length': 0}),
                      ('an entry with more descriptors than room', {'count': 0xffffffff}), ('an entry that names headers', {'offset': 65536}),
                      ('an entry whose tail is elsewhere', {'tail': 4096 * 77}), ('another sequence number', {'head_sequence': 4})):
        v, want = plain()
        with_log(**lie)(v)
        v.write('lie.vhdx')
        run('write', 'lie.vhdx', '--from', '/dev/null')
        reads(name, want, 'lie.vhdx')

def wrong_parents():
    os.makedirs('deep', exist_ok=True)
    def child(name, pairs):
        return Vhdx(parent=pairs).write(name)
    some = '{%s}' % uuid.uuid4()
    parent, _ = plain()
    refused('a parent in /etc', child('etc.vhdx', [('parent_linkage', some), ('absolute_win32_path', '/etc/passwd')]), code=78)
    refused('a parent above', child('deep/up.vhdx', [('parent_linkage', some), ('relative_path', '..\\plain.vhdx')]), code=78)
    os.symlink('/etc/passwd', 'innocent.vhdx')
    refused('a parent behind a link', child('linked.vhdx', [('parent_linkage', some), ('relative_path', 'innocent.vhdx')]), code=78)
    os.unlink('innocent.vhdx')
    refused('no parent there', child('gone.vhdx', [('parent_linkage', some), ('relative_path', 'nowhere.vhdx')]))
    refused('no path', child('no.vhdx', [('parent_linkage', some)]))
    refused('no identifier', child('unnamed.vhdx', [('relative_path', 'plain.vhdx')]))
    refused('an identifier that is none', child('word.vhdx', [('parent_linkage', '{hello}'), ('relative_path', 'plain.vhdx')]))
    parent.write('parent2.vhdx')
    refused('a parent that is another', child('other.vhdx', [('parent_linkage', some), ('relative_path', 'parent2.vhdx')]), says='changed since')
    own = uuid.uuid4()
    v = Vhdx(parent=[('parent_linkage', '{%s}' % own), ('relative_path', 'self.vhdx')], data_id=own)
    refused('its own parent', v.write('self.vhdx'), verbs=[('read',)])
    a, b = uuid.uuid4(), uuid.uuid4()
    Vhdx(parent=[('parent_linkage', '{%s}' % b), ('relative_path', 'b.vhdx')], data_id=a).write('a.vhdx')
    Vhdx(parent=[('parent_linkage', '{%s}' % a), ('relative_path', 'a.vhdx')], data_id=b).write('b.vhdx')
    refused('a circle', 'a.vhdx', verbs=[('read',)])
    v, _ = plain()
    v.items[0][2] = struct.pack('<II', MIB, 2)
    v.items.append([LOCATOR, REQUIRED, LOCATOR_VHDX.bytes_le + struct.pack('<HH', 0, 60000)])
    refused('a locator of 60000 pairs', v.write('pairs.vhdx'))
    v.items[-1][2] = LOCATOR_VHDX.bytes_le + struct.pack('<HHIIHH', 0, 1, 0xfffffff0, 0x7fffffff, 0xffff, 0xffff)
    refused('a locator that points outside', v.write('outside.vhdx'))
    larger = Vhdx(size=16 * MIB)
    larger.write('larger.vhdx')
    refused('a parent that is larger', child('small.vhdx', link(larger, 'larger.vhdx')))
    sectors = Vhdx(sector=4096)
    sectors.write('sectors.vhdx')
    refused('a parent with other sectors', child('small2.vhdx', link(sectors, 'sectors.vhdx')))
    base, _ = plain()
    base.write('link0.vhdx')
    for n in range(1, 1200):
        v = Vhdx(parent=link(base, 'link%d.vhdx' % (n - 1)))
        v.write('link%d.vhdx' % n)
        base = v
    refused('1200 links', 'link1199.vhdx', verbs=[('read',)])

with tempfile.TemporaryDirectory() as directory:
    os.chdir(directory)
    right()
    wrong_files()
    wrong_logs()
    wrong_parents()
    os.chdir('/')
print('generated: %d files, %d faults' % (cases, faults))
sys.exit(faults != 0)
