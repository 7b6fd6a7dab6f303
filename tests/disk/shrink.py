#!/usr/bin/env python3
"""umbra disk shrink on file systems that mkfs.* has made, with what somebody has left in their free space: that is gone, everything else is
as it was; and those that must not be touched. shrink.py UMBRA"""
import json, os, shutil, struct, subprocess, sys, tempfile, zlib

umbra = os.path.abspath(sys.argv[1])
work = tempfile.mkdtemp()
os.chdir(work)
os.environ['HOME'] = work
MIB = 1 << 20
failed = 0
kept = os.urandom(3 * MIB + 17)
garbage = os.urandom(MIB)


def fault(text):
    global failed
    failed = 1
    print('shrink:', text)


def run(*command, ok=True):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ok and done.returncode:
        fault(f'{" ".join(command)} ended {done.returncode}: {done.stdout[-300:]}')
    return done


def put(path, at, data):
    with open(path, 'r+b') as file:
        file.seek(at)
        file.write(data)


def get(path, at, count):
    with open(path, 'rb') as file:
        file.seek(at)
        return file.read(count)


def find(path, what):
    with open(path, 'rb') as file:
        return file.read().find(what)


# ---- file systems ----
def make_ext(path, size):
    shutil.rmtree('root', ignore_errors=True)
    os.makedirs('root', exist_ok=True)
    open('root/kept', 'wb').write(kept)
    open('root/gone', 'wb').write(garbage)
    os.makedirs('root/etc')
    open('root/etc/os-release', 'w').write('ID=debian\nVERSION_ID="12"\n')
    os.truncate(path, size) if os.path.exists(path) else open(path, 'wb').truncate(size)
    run('/sbin/mke2fs', '-q', '-F', '-t', 'ext4', '-d', 'root', path)
    run('/sbin/debugfs', '-w', '-R', 'rm gone', path)


def make_xfs(path, size):
    open('kept', 'wb').write(kept)
    open('proto', 'w').write('x\n1 1\nd--755 0 0\nkept ---644 0 0 kept\n$\n')
    open(path, 'wb').truncate(size)
    put(path, size - 40 * MIB, garbage)
    run('/sbin/mkfs.xfs', '-q', '-f', '-K', '-p', 'proto', path)


def make_ntfs(path, size):
    open('kept', 'wb').write(kept)
    open(path, 'wb').truncate(size)
    put(path, size - 4 * MIB, garbage)
    run('/sbin/mkntfs', '-q', '-F', '-Q', path)
    run('/usr/sbin/ntfscp', '-q', '-f', path, 'kept', 'kept')


# ---- LVM, as its metadata says it ----
def lvm_sum(data):
    return ~zlib.crc32(data, ~0xf597a6cf & 0xffffffff) & 0xffffffff


def make_lvm(path, inner, kind='striped'):
    """A physical volume of extents of 1 MiB; one volume in two parts, the second before the first."""
    content = open(inner, 'rb').read()
    extents = len(content) // MIB
    half = extents // 2
    uuid = 'abcdefghijklmnopqrstuvwxyz012345'
    dashed = '-'.join((uuid[:6], uuid[6:10], uuid[10:14], uuid[14:18], uuid[18:22], uuid[22:26], uuid[26:]))
    text = f'''vg {{
id = "x"
seqno = 1
format = "lvm2" # informational
status = ["RESIZEABLE", "READ", "WRITE"]
extent_size = 2048
physical_volumes {{
pv0 {{
id = "{dashed}"
status = ["ALLOCATABLE"]
pe_start = 2048
pe_count = {extents + 2}
}}
}}
logical_volumes {{
root {{
id = "y"
status = ["READ", "WRITE", "VISIBLE"]
segment_count = 2
segment1 {{
start_extent = 0
extent_count = {half}
type = "{kind}"
stripe_count = 1
stripes = [ "pv0", {extents - half + 1} ]
}}
segment2 {{
start_extent = {half}
extent_count = {extents - half}
type = "striped"
stripe_count = 1
stripes = [ "pv0", 1 ]
}}
}}
}}
}}
contents = "Text Format Volume Group"
version = 1
'''.encode() + b'\0'
    whole = MIB - 4096
    offset = whole - 100  # the text goes round
    pv = uuid.encode() + struct.pack('<Q', (extents + 3) * MIB)
    pv += struct.pack('<QQQQ', MIB, 0, 0, 0) + struct.pack('<QQQQ', 4096, whole, 0, 0)
    body = (struct.pack('<I', 32) + b'LVM2 001' + pv).ljust(512 - 20, b'\0')
    label = b'LABELONE' + struct.pack('<QI', 1, lvm_sum(body)) + body
    head = (b' LVM2 x[5A%r0N*>' + struct.pack('<IQQ', 1, 4096, whole) +
            struct.pack('<QQII', offset, len(text), lvm_sum(text), 0)).ljust(512 - 4, b'\0')
    open(path, 'wb').truncate((extents + 4) * MIB)
    put(path, 512, label)
    put(path, 4096, struct.pack('<I', lvm_sum(head)) + head)
    put(path, 4096 + offset, text[:100])
    put(path, 4096 + 512, text[100:])
    put(path, (1 + extents - half + 1) * MIB, content[:half * MIB])
    put(path, 2 * MIB, content[half * MIB:])


# ---- disks ----
def place(path, inner, size):
    """In a partition that begins at 1 MiB."""
    open(path, 'wb').truncate(size + 3 * MIB)
    run('/sbin/sgdisk', '-n', f'1:2048:{2047 + size // 512}', path)
    subprocess.run(['dd', f'if={inner}', f'of={path}', 'bs=1M', 'seek=1', 'conv=notrunc,sparse', 'status=none'], check=True)


def allocated(path):
    return os.stat(path).st_blocks * 512


def shrinks(name, raw, form, check):
    """Shrinks a copy in a format; what it holds then is what it held, but for the garbage."""
    path = f'{name}.{form}'
    run(umbra, 'disk', 'convert', raw, path, '--from', 'raw', '--to', form)
    before = allocated(path)
    said = json.loads(run(umbra, 'disk', 'shrink', path, '--format', form, '--dry-run', '--json').stdout)
    if not said['dry-run'] or said['freed'] < len(garbage) - 8192 or before != allocated(path):
        fault(f'{path}: dry run: {said}')
    said = json.loads(run(umbra, 'disk', 'shrink', path, '--format', form, '--json').stdout)
    if said['freed'] < len(garbage) - 8192:
        fault(f'{path}: freed only {said}')
    if form != 'raw' and allocated(path) > before - len(garbage) // 2:
        fault(f'{path}: takes {allocated(path)} of {before}')
    run(umbra, 'disk', 'check', path, '--format', form)
    run(umbra, 'disk', 'convert', path, 'after.raw', '--from', form, '--to', 'raw')
    if find('after.raw', garbage[8192:12288]) >= 0:
        fault(f'{path}: what nobody uses is still there')
    again = json.loads(run(umbra, 'disk', 'shrink', path, '--format', form, '--json').stdout)
    if form == 'vhdx' and again['freed'] > said['freed']:
        fault(f'{path}: a second time {again}')
    check('after.raw')
    os.unlink('after.raw')
    os.unlink(path)


def kept_in_place(raw):
    at = find(raw, kept[:4096])

    def check(after):
        if at < 0 or get(after, at, len(kept)) != kept:
            fault(f'{raw}: the file is not what it was')
    return check


def checked_by(command, at, size, more):
    def check(after):
        open('inner', 'wb').write(get(after, at, size))
        run(*command, 'inner')
        more(after)
    return check


def refuses(name, path, word, form='raw'):
    before = open(path, 'rb').read()
    done = run(umbra, 'disk', 'shrink', path, '--format', form, ok=False)
    if done.returncode != 65 or word not in done.stdout:
        fault(f'{name}: ended {done.returncode}, not 65 with "{word}": {done.stdout}')
    if open(path, 'rb').read() != before:
        fault(f'{name}: was changed')


def of_ext():
    make_ext('ext', 24 * MIB)
    put('ext', find('ext', garbage[:4096]), garbage)
    place('ext.disk', 'ext', 24 * MIB)
    check = checked_by(('/sbin/e2fsck', '-fn'), MIB, 24 * MIB, kept_in_place('ext.disk'))
    for form in ('raw', 'vhd', 'vhdx'):
        shrinks('ext', 'ext.disk', form, check)
    # through a child: what its own file has goes, the parent stays as it is
    run(umbra, 'disk', 'convert', 'ext.disk', 'p.vhdx', '--from', 'raw')
    run(umbra, 'disk', 'snapshot', 'p.vhdx', 'c.vhdx')
    at = find('ext.disk', garbage[:4096])
    open('piece', 'wb').write(garbage)
    run(umbra, 'disk', 'write', 'c.vhdx', '--offset', str(at), '--from', 'piece')
    parent = open('p.vhdx', 'rb').read()
    done = run(umbra, 'disk', 'shrink', 'p.vhdx', ok=False)
    if done.returncode != 65 or 'is made on it' not in done.stdout or open('p.vhdx', 'rb').read() != parent:
        fault(f'a parent: {done.stdout}')
    done = run(umbra, 'disk', 'shrink', 'c.vhdx', '--parents', 'nowhere', ok=False)
    if done.returncode != 65 or 'cannot be searched for children' not in done.stdout:
        fault(f'a place that cannot be read: {done.stdout}')
    said = json.loads(run(umbra, 'disk', 'shrink', 'c.vhdx', '--json').stdout)
    run(umbra, 'disk', 'convert', 'c.vhdx', 'after.raw', '--to', 'raw')
    if said['freed'] < len(garbage) - 8192 or get('after.raw', at + 4096, MIB - 8192).strip(b'\0'):
        fault(f'a child: {said}')
    check('after.raw')
    os.unlink('after.raw')
    run(umbra, 'disk', 'check', 'c.vhdx', '--chain')
    os.unlink('c.vhdx')
    run(umbra, 'disk', 'freeze', 'p.vhdx', '--reason', 'so')
    done = run(umbra, 'disk', 'shrink', 'p.vhdx', ok=False)
    if done.returncode == 0 or 'frozen' not in done.stdout:
        fault(f'a frozen one: {done.stdout}')
    # what must not be touched
    run('/sbin/debugfs', '-w', '-R', 'feature needs_recovery', 'ext')
    refuses('a journal to be replayed', 'ext', 'journal')
    run('/sbin/debugfs', '-w', '-R', 'feature -needs_recovery', 'ext')
    block = run('/sbin/debugfs', '-R', 'blocks kept', 'ext').stdout.split('\n')[-2].split()[5]
    run('/sbin/debugfs', '-w', '-R', f'freeb {block}', 'ext')
    refuses('a bitmap that lies', 'ext', 'has data in it')
    place('two', 'ext', 24 * MIB)
    open('two', 'r+b').truncate(60 * MIB)
    put('two', 0, bytes(20 * 1024))
    entries = b''.join(struct.pack('<B3sB3sII', 0, b'', 0x83, b'', first, 40960) for first in (2048, 20480))
    put('two', 446, entries.ljust(64, b'\0') + b'\x55\xaa')
    refuses('partitions over each other', 'two', 'over each other')


# ---- qcow2, in place: qemu-img says whether its counts are right ----
def sound(path):
    done = run('qemu-img', 'check', '-f', 'qcow2', path, ok=False)
    if done.returncode:
        fault(f'{path}: qemu-img check ended {done.returncode}: {done.stdout[-300:]}')


def shrink_qcow2(path):
    before = allocated(path)
    said = json.loads(run(umbra, 'disk', 'shrink', path, '--format', 'qcow2', '--json').stdout)
    if said['freed'] < len(garbage) - (128 << 10) or allocated(path) > before - (len(garbage) >> 1 if 'packed' not in path else 64 << 10):
        fault(f'{path}: freed {said}, takes {allocated(path)} of {before}')
    sound(path)


def of_qcow2():
    make_ext('ext', 24 * MIB)
    put('ext', find('ext', garbage[:4096]), garbage)
    place('q.disk', 'ext', 24 * MIB)
    check = checked_by(('/sbin/e2fsck', '-fn'), MIB, 24 * MIB, kept_in_place('q.disk'))
    at = find('q.disk', garbage[:4096])
    for name, options in (('plain', ()), ('packed', ('-c',)), ('packed-zstd', ('-c', '-o', 'compression_type=zstd')), ('two', ('-o', 'compat=0.10')),
                          ('subclusters', ('-o', 'extended_l2=on')), ('one-bit', ('-o', 'refcount_bits=1')), ('two-bits', ('-o', 'refcount_bits=2')),
                          ('eight-bits', ('-o', 'refcount_bits=8')), ('wide', ('-o', 'refcount_bits=64')), ('small', ('-o', 'cluster_size=512')),
                          ('large', ('-o', 'cluster_size=256k'))):
        path = f'{name}.qcow2'
        run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', *options, 'q.disk', path)
        if name != 'large':
            shrink_qcow2(path)
        else:
            run(umbra, 'disk', 'shrink', path, '--format', 'qcow2')
            sound(path)
        run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', path, 'after.raw')
        run(umbra, 'disk', 'convert', path, 'ours.raw', '--from', 'qcow2', '--to', 'raw')
        if open('after.raw', 'rb').read() != open('ours.raw', 'rb').read():
            fault(f'{path}: is something else for qemu-img')
        if find('after.raw', garbage[512 << 10:(512 << 10) + 4096]) >= 0:
            fault(f'{path}: what nobody uses is still there')
        check('after.raw')
        again = json.loads(run(umbra, 'disk', 'shrink', path, '--format', 'qcow2', '--json').stdout)
        if again['freed']:
            fault(f'{path}: a second time {again}')
        for left in ('after.raw', 'ours.raw', path):
            os.unlink(left)
    # a child: its own clusters go, and hide what its parent has there
    open('piece', 'wb').write(garbage[::-1])
    for name, options in (('child', ()), ('child-subclusters', ('-o', 'extended_l2=on'))):
        path = f'{name}.qcow2'
        run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'q.disk', '-F', 'raw', *options, path)
        run('qemu-io', '-f', 'qcow2', '-c', f'write -q -s piece {at} {MIB}', path)
        shrink_qcow2(path)
        run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', path, 'after.raw')
        if get('after.raw', at + (64 << 10), MIB - (128 << 10)).strip(b'\0'):
            fault(f'{path}: what nobody uses is still there')
        check('after.raw')
        os.unlink('after.raw')
        os.unlink(path)
    # clusters that nobody names, as one that was cut off leaves them
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'q.disk', 'leak.qcow2')
    size = os.path.getsize('leak.qcow2')
    counts = struct.unpack('>Q', get('leak.qcow2', struct.unpack('>Q', get('leak.qcow2', 48, 8))[0], 8))[0]
    put('leak.qcow2', size, bytes(65536))
    put('leak.qcow2', counts + 2 * (size >> 16), b'\0\1')
    if run('qemu-img', 'check', '-f', 'qcow2', 'leak.qcow2', ok=False).returncode != 3:
        fault('no leak was made')
    shrink_qcow2('leak.qcow2')
    # what must not be touched
    for name, word, spoil in (
            ('snapshots.qcow2', 'snapshots', lambda path: run('qemu-img', 'snapshot', '-c', 'x', path)),
            ('not-closed.qcow2', 'was not closed', lambda path: put(path, 79, b'\1')),
            ('bitmaps.qcow2', 'bitmaps', lambda path: run('qemu-img', 'bitmap', '--add', path, 'x')),
            ('counts.qcow2', 'more often than it is counted', lambda path: put(path, counts + 2 * 9, b'\0\0'))):
        run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'q.disk', name)
        spoil(name)
        refuses(name, name, word, 'qcow2')
        os.unlink(name)
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'q.disk', '-F', 'raw', '-o', 'compat=0.10', 'old.qcow2')
    refuses('old.qcow2', 'old.qcow2', 'version 2', 'qcow2')


def of_lvm():
    make_ext('lv', 24 * MIB)
    make_lvm('lvm.disk', 'lv')
    before = open('lv', 'rb').read()

    def check(after):
        open('inner', 'wb').write(get(after, 14 * MIB, 12 * MIB) + get(after, 2 * MIB, 12 * MIB))
        run('/sbin/e2fsck', '-fn', 'inner')
        at = before.find(kept[:4096])
        if open('inner', 'rb').read()[at:at + len(kept)] != kept:
            fault('LVM: the file is not what it was')
    for form in ('raw', 'vhdx'):
        shrinks('lvm', 'lvm.disk', form, check)
    run(umbra, 'disk', 'convert', 'lvm.disk', 'lvm.vhdx', '--from', 'raw')
    run(umbra, 'image', 'scan', 'lvm.vhdx')
    about = json.loads(run(umbra, 'image', 'get', 'lvm.vhdx').stdout)
    volumes = about['partitions'][0].get('volumes')
    if not volumes or volumes[0].get('file-system') != 'ext' or about['os'].get('id') != 'debian':
        fault(f'a scan of LVM: {about}')
    make_lvm('lvm.snapshot', 'lv', 'snapshot')
    refuses('snapshots of LVM', 'lvm.snapshot', 'snapshots')


def of_xfs():
    size = 300 * MIB
    make_xfs('xfs', size)
    place('xfs.disk', 'xfs', size)
    shrinks('xfs', 'xfs.disk', 'vhdx', checked_by(('/sbin/xfs_repair', '-n', '-f'), MIB, size, kept_in_place('xfs.disk')))
    with open('xfs', 'rb') as file:
        content = file.read()
    log = content.index(b'\xfe\xed\xba\xbe')
    flags = log + 512 + 9
    put('xfs', flags, b'\0')
    refuses('a log to be replayed', 'xfs', 'log')
    put('xfs', flags, content[flags:flags + 1])
    # both trees of AG 0 say, with right sums, that the block before their first free one is free, too: it is the file's
    block = struct.unpack('>I', content[4:8])[0]
    agf = dict(line.split(' = ') for line in run('/sbin/xfs_db', '-r', '-c', 'agf 0', '-c', 'p bnoroot cntroot freeblks', 'xfs').stdout.strip().split('\n'))
    at = (content.index(kept[-17 - 4096:-17]) // block)
    for tree, root in (('bnobt', agf['bnoroot']), ('cntbt', agf['cntroot'])):
        recs = run('/sbin/xfs_db', '-r', '-c', f'agblock 0 {root}', '-c', f'fsblock {root}', '-c', f'type {tree}', '-c', 'p numrecs', 'xfs').stdout
        count = int(recs.split('=')[-1])
        for n in range(1, count + 1):
            values = [int(run('/sbin/xfs_db', '-r', '-c', f'fsblock {root}', '-c', f'type {tree}', '-c', f'p recs[{n}].{what}', 'xfs').stdout.split('=')[-1])
                      for what in ('startblock', 'blockcount')]
            if n == count:
                longest = values
        run('/sbin/xfs_db', '-x', '-c', f'fsblock {root}', '-c', f'type {tree}', '-c', f'write -c recs[{count}].startblock {longest[0] - 2}',
            '-c', f'write recs[{count}].blockcount {longest[1] + 2}', 'xfs')
    run('/sbin/xfs_db', '-x', '-c', 'agf 0', '-c', f'write freeblks {int(agf["freeblks"]) + 2}', 'xfs')
    refuses('trees of free space that lie', 'xfs', 'has data in it')


def ntfs_record(path, number):
    boot = get(path, 0, 512)
    cluster = struct.unpack('<H', boot[11:13])[0] * boot[13]
    return struct.unpack('<Q', boot[48:56])[0] * cluster + number * 1024, cluster


def ntfs_attribute(path, number, kind):
    at, _ = ntfs_record(path, number)
    record = get(path, at, 1024)
    where = struct.unpack('<H', record[20:22])[0]
    while struct.unpack('<I', record[where:where + 4])[0] != kind:
        where += struct.unpack('<I', record[where + 4:where + 8])[0]
    return at + where, record[where:]


def of_ntfs():
    size = 24 * MIB
    make_ntfs('ntfs', size)
    place('ntfs.disk', 'ntfs', size)
    for form in ('vhd', 'vhdx'):
        shrinks('ntfs', 'ntfs.disk', form, kept_in_place('ntfs.disk'))
    at, attribute = ntfs_attribute('ntfs', 3, 0x70)
    flags = at + struct.unpack('<H', attribute[20:22])[0] + 10
    put('ntfs', flags, b'\1')
    refuses('a dirty volume', 'ntfs', 'dirty')
    put('ntfs', flags, b'\0')
    # the cluster of the file is free in $Bitmap
    _, cluster = ntfs_record('ntfs', 0)
    at, attribute = ntfs_attribute('ntfs', 6, 0x80)
    runs = attribute[struct.unpack('<H', attribute[32:34])[0]:]
    first = int.from_bytes(runs[1 + (runs[0] & 15):1 + (runs[0] & 15) + (runs[0] >> 4)], 'little')
    used = find('ntfs', kept[:4096]) // cluster
    bitmap = first * cluster + used // 8
    was = get('ntfs', bitmap, 1)
    put('ntfs', bitmap, bytes([was[0] & ~(1 << used % 8)]))
    refuses('a $Bitmap that lies', 'ntfs', 'has data in it')
    put('ntfs', bitmap, was)
    open('sleeping', 'wb').write(b'hibr' + bytes(8192))
    run('/usr/sbin/ntfscp', '-q', '-f', 'ntfs', 'sleeping', 'hiberfil.sys')
    refuses('a Windows that sleeps', 'ntfs', 'sleeps')


try:
    for part in (of_ext, of_qcow2, of_lvm, of_ntfs, of_xfs):
        part()
finally:
    os.chdir('/')
    shutil.rmtree(work)
sys.exit(failed)
