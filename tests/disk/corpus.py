#!/usr/bin/python3
"""Small files made from the specifications, each with what must come out: by Umbra, and by QEMU where that reads them; and what is wrong
with others, which must be refused with where it is. Formats that no program at hand writes: SESparse, alone and as a delta.
usage: corpus.py UMBRA"""
import os, random, shutil, struct, subprocess, sys, tempfile

umbra = os.path.abspath(sys.argv[1])
work = tempfile.mkdtemp()
os.chdir(work)
failures = cases = 0
MIB, GRAIN = 1 << 20, 4096
random.seed(18)

def fault(text):
    global failures
    failures += 1
    print('corpus:', text)

def run(*arguments, code=0, says=None):
    global cases
    cases += 1
    p = subprocess.run(arguments, capture_output=True, timeout=100)
    text = p.stderr.decode(errors='replace') + (p.stdout.decode() if p.stdout.isascii() else '')
    if p.returncode != code:
        fault('%s: ended with %d, not %d: %s' % (' '.join(arguments), p.returncode, code, text.strip()[-300:]))
    if says and says not in text:
        fault('%s: does not say "%s": %s' % (' '.join(arguments), says, text.strip()[-300:]))
    return p.stdout

# ---- SESparse ----

def descriptor(name, size, extent, kind='seSparse', cid=0x12345678, parent=None):
    lines = ['# Disk DescriptorFile', 'version=1', 'CID=%08x' % cid, 'parentCID=%08x' % (parent[0] if parent else 0xffffffff),
             'createType="%s"' % kind]
    lines += ['parentFileNameHint="%s"' % parent[1]] if parent else []
    lines += ['RW %d %s "%s"' % (size // 512, 'FLAT' if kind == 'vmfs' else 'SESPARSE', extent) + (' 0' if kind == 'vmfs' else '')]
    open(name, 'w').write('\n'.join(lines) + '\n')

def sesparse(name, size, content, kinds={}, scattered=False, **wrong):
    """content: {number: 4096 bytes}; kinds: {number: 1 unmapped, 2 zero}. wrong: fields of the head, and what else is to be so."""
    tables = -(-size // (16 * MIB))
    directory_at, tables_at = 16, 16 + -(-tables * 8 // 512)
    head = dict(magic=0xcafebabe, version=0x200000001, capacity=size // 512, grain=8, table=64, flags=0, volatile=1, replay=0,
                volatile_magic=0xcafecafe, directory=directory_at, directory_sectors=-(-tables * 8 // 512), tables=tables_at)
    numbers = list(range(len(content)))
    if scattered:
        random.shuffle(numbers)
    used = sorted({n // 4096 for n in [*content, *kinds]})
    grains_at = -(-(tables_at + 64 * len(used)) // 8) * 8
    head['grains'] = grains_at
    entry_of = wrong.pop('entry', {})
    cut = wrong.pop('cut', 0)
    table_tag = wrong.pop('table_tag', 1)
    head.update(wrong)
    directory = [0] * tables
    table = {t: [0] * 4096 for t in used}
    for index, t in enumerate(used):
        directory[t] = table_tag << 60 | index
    body = bytearray(len(content) * GRAIN)
    for place, (n, data) in zip(numbers, content.items()):
        table[n // 4096][n % 4096] = 3 << 60 | (place & 0xfff) << 48 | place >> 12
        body[place * GRAIN:(place + 1) * GRAIN] = data
    for n, kind in kinds.items():
        table[n // 4096][n % 4096] = kind << 60
    for n, entry in entry_of.items():
        table[n // 4096][n % 4096] = entry
    out = bytearray(grains_at * 512)
    struct.pack_into('<26Q', out, 0, head['magic'], head['version'], head['capacity'], head['grain'], head['table'], head['flags'], 0, 0, 0, 0,
                     head['volatile'], 1, 2, 1, 3, 1, head['directory'], head['directory_sectors'], head['tables'], 64 * len(used), 0, 0, 0, 0,
                     head['grains'], len(content) * 8)
    struct.pack_into('<4Q', out, 512, head['volatile_magic'], 0, 1, head['replay'])
    struct.pack_into('<%dQ' % tables, out, directory_at * 512, *directory)
    for index, t in enumerate(used):
        struct.pack_into('<4096Q', out, (tables_at + 64 * index) * 512, *table[t])
    out += body
    open(name, 'wb').write(out[:len(out) - cut])

def reads(name, want, qemu=True):
    if run(umbra, 'disk', 'read', name, '--format', 'vmdk') != want:
        fault('%s reads something else' % name)
    run(umbra, 'disk', 'check', name, '--format', 'vmdk', says='no fault')
    run(umbra, 'disk', 'convert', name, 'ours.raw', '--from', 'vmdk', '--to', 'raw')
    if open('ours.raw', 'rb').read() != want:
        fault('%s converts to something else' % name)
    os.remove('ours.raw')
    if qemu:
        run('qemu-img', 'convert', '-f', 'vmdk', '-O', 'raw', name, 'theirs.raw')
        if open('theirs.raw', 'rb').read() != want:
            fault('%s is something else for qemu-img' % name)

SIZE = 40 * MIB + 8192
def image(size, grains):
    want = bytearray(size)
    for n, data in grains.items():
        want[n * GRAIN:(n + 1) * GRAIN] = data
    return bytes(want[:size])

some = {n: random.randbytes(GRAIN) for n in [0, 1, 2, 3, 70, 71, 4095, 4096, 8191, SIZE // GRAIN - 1] + list(range(200, 333))}
for scattered in (False, True):
    sesparse('disk-sesparse.vmdk', SIZE, some, {5: 1, 6: 2, 9000: 2}, scattered=scattered)
    descriptor('disk.vmdk', SIZE, 'disk-sesparse.vmdk')
    reads('disk.vmdk', image(SIZE, some))
sesparse('disk-sesparse.vmdk', SIZE, {})
reads('disk.vmdk', bytes(SIZE))

# a delta on a flat disk of ESX: what is unmapped or zero in it hides what the disk has
base = random.randbytes(SIZE // 4) + bytes(SIZE - SIZE // 4)
open('base-flat.vmdk', 'wb').write(base)
descriptor('base.vmdk', SIZE, 'base-flat.vmdk', kind='vmfs', cid=0xaaaa0001)
sesparse('delta-sesparse.vmdk', SIZE, {1: some[1], 500: some[70]}, {7: 1, 8: 2})
descriptor('delta.vmdk', SIZE, 'delta-sesparse.vmdk', cid=0xaaaa0002, parent=(0xaaaa0001, 'base.vmdk'))
want = bytearray(base)
for n, data in {1: some[1], 500: some[70], 7: bytes(GRAIN), 8: bytes(GRAIN)}.items():
    want[n * GRAIN:(n + 1) * GRAIN] = data
reads('delta.vmdk', bytes(want))
descriptor('delta.vmdk', SIZE, 'delta-sesparse.vmdk', cid=0xaaaa0002, parent=(0xaaaa0009, 'base.vmdk'))
run(umbra, 'disk', 'info', 'delta.vmdk', '--format', 'vmdk', code=65, says='CID')

for wrong, says in (
        (dict(magic=0xcafebabf), 'cafebabe'), (dict(version=3), 'version'), (dict(grain=16), 'version'), (dict(table=32), 'version'),
        (dict(flags=1), 'flags'), (dict(capacity=0), 'offset 16'), (dict(capacity=1 << 60), 'offset 16'), (dict(volatile_magic=1), 'cafecafe'),
        (dict(volatile=1 << 60), 'volatile header'), (dict(replay=1), 'journal'), (dict(directory=1 << 60), 'directory'),
        (dict(directory_sectors=0), 'directory'), (dict(capacity=SIZE // 512 - 8), 'shorter'), (dict(capacity=1 << 36), 'directory'),
        (dict(tables=1 << 60), 'tables'), (dict(grains=1 << 60), 'grains')):
    sesparse('disk-sesparse.vmdk', SIZE, {0: some[0]}, **wrong)
    run(umbra, 'disk', 'read', 'disk.vmdk', '--format', 'vmdk', code=65, says=says)
for wrong, says in ((dict(cut=GRAIN // 2), 'cut off'), (dict(entry={0: 5 << 60}), 'not sound'), (dict(entry={0: 77}), 'not sound'),
                    (dict(entry={0: 3 << 60 | 0xffffffffffff}), 'not sound'), (dict(entry={0: 3 << 60 | 1000}), 'cut off'),
                    (dict(table_tag=2), 'not sound'), (dict(tables=1 << 30), 'cut off')):
    sesparse('disk-sesparse.vmdk', SIZE, {0: some[0]}, **wrong)
    run(umbra, 'disk', 'check', 'disk.vmdk', '--format', 'vmdk', code=65, says=says)
    run(umbra, 'disk', 'convert', 'disk.vmdk', 'x.raw', '--from', 'vmdk', '--to', 'raw', code=65, says=says)
    if os.path.exists('x.raw'):
        fault('converted: %s' % wrong)

# Nothing hangs, crashes or takes memory by what a file claims.
sesparse('good', SIZE, {n: some[n] for n in (0, 1, 4096)}, {5: 2})
good = open('good', 'rb').read()
for seed in range(120):
    random.seed(seed)
    bad = bytearray(good)
    for _ in range(random.randint(1, 4)):
        at = random.choice([random.randrange(208), 512 + random.randrange(32), 16 * 512 + random.randrange(24), 17 * 512 + random.randrange(64)])
        bad[at] = random.choice([0, 0xff, bad[at] ^ 1 << random.randrange(8)])
    open('disk-sesparse.vmdk', 'wb').write(bad)
    cases += 1
    p = subprocess.run(['bash', '-c', 'ulimit -v 4000000; exec "$@"', 'x', umbra, 'disk', 'check', 'disk.vmdk', '--format', 'vmdk'], capture_output=True, timeout=60)
    if p.returncode not in (0, 65):
        fault('seed %d: ended with %d: %s' % (seed, p.returncode, p.stderr.decode()[-200:]))

os.chdir('/')
shutil.rmtree(work)
print('corpus: %d cases, %d faults' % (cases, failures))
sys.exit(failures != 0)
