#!/usr/bin/python3
"""What went wrong with disks in the field, each as a kind: chains without an end, files that a check changed, files that were not
finished, missing bytes, other programs' locks, messages that led astray. usage: field.py UMBRA"""
import hashlib, os, shutil, signal, struct, subprocess, sys, tempfile, time
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c

umbra = os.path.abspath(sys.argv[1])
work = tempfile.mkdtemp()
os.chdir(work)
failures = cases = 0
MIB = 1 << 20

def fault(text):
    global failures
    failures += 1
    print('field:', text)

def disk(*arguments, seconds=100, descriptors=None):
    limit = 'ulimit -n %d; ' % descriptors if descriptors else ''
    try:
        return subprocess.run(['bash', '-c', limit + 'exec "$@"', 'x', umbra, 'disk', *arguments], capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        fault('%s took more than %d s' % (' '.join(arguments), seconds))
        return subprocess.CompletedProcess(arguments, 124, b'', b'')

def ends(code, *arguments, says=None, says_not=None, **more):
    global cases
    cases += 1
    p = disk(*arguments, **more)
    text = (p.stdout if p.stdout.isascii() else b'').decode() + p.stderr.decode(errors='replace')
    if p.returncode != code:
        fault('%s: ended with %d, not %d: %s' % (' '.join(arguments), p.returncode, code, text.strip()[-200:]))
    if says and says not in text:
        fault('%s: does not say "%s": %s' % (' '.join(arguments), says, text.strip()[-300:]))
    if says_not and says_not in text:
        fault('%s: says "%s": %s' % (' '.join(arguments), says_not, text.strip()[-300:]))
    return p

def content(path):
    with open(path, 'rb') as f:
        return f.read()

def unchanged(path, *arguments, code=0):
    before = hashlib.md5(content(path)).hexdigest(), os.stat(path).st_size, sorted(os.listdir('.'))
    ends(code, *arguments)
    if before != (hashlib.md5(content(path)).hexdigest(), os.stat(path).st_size, sorted(os.listdir('.'))):
        fault('%s: changed what it was only to look at' % ' '.join(arguments))

def qemu(*arguments, good=True):
    p = subprocess.run(arguments, capture_output=True, timeout=60)
    if (p.returncode == 0) != good:
        fault('%s: ended with %d: %s' % (' '.join(arguments), p.returncode, p.stderr.decode().strip()))
    return p

# ---- 1. chains without an end ----

def headers(data):
    return {at: struct.unpack_from('<Q', data, at + 8)[0] for at in (65536, 131072)}

def with_data_id(path, data_id):
    """The file, as if its data had this identifier."""
    data = bytearray(content(path))
    for at in headers(data):
        head = data[at:at + 4096]
        head[32:48] = data_id
        head[4:8] = bytes(4)
        struct.pack_into('<I', head, 4, crc32c(head))
        data[at:at + 4096] = head
    return bytes(data)

def data_id(path):
    data = content(path)
    at = max(headers(data), key=headers(data).get)
    return data[at + 32:at + 48]

def chain(place, links):
    os.mkdir(place)
    ends(0, 'create', place + '/0.vhdx', '--size', '8M')
    for n in range(1, links):
        ends(0, 'create', '%s/%d.vhdx' % (place, n), '--parent', '%s/%d.vhdx' % (place, n - 1))

chain('chain', 31)
ends(65, 'info', 'chain/30.vhdx', descriptors=20, says='ulimit', seconds=5)
shutil.copytree('chain', 'circle')
itself = with_data_id('circle/5.vhdx', data_id('circle/4.vhdx'))
open('circle/4.vhdx', 'wb').write(itself)
ends(65, 'info', 'circle/5.vhdx', says='itself', seconds=5)
ends(65, 'info', 'circle/30.vhdx', says='itself', seconds=5)
grand = with_data_id('chain/9.vhdx', data_id('chain/6.vhdx'))
shutil.copytree('chain', 'ring')
open('ring/6.vhdx', 'wb').write(grand)
ends(65, 'info', 'ring/20.vhdx', seconds=5)
os.mkdir('moved') # every name is another one: identifiers alone
for n in range(31):
    os.rename('chain/%d.vhdx' % n, 'moved/file-%d' % (n * 7 % 31))
ends(0, 'info', 'moved/file-%d' % (30 * 7 % 31), '--chain', seconds=5)
os.remove('moved/file-0')
ends(65, 'info', 'moved/file-%d' % (30 * 7 % 31), seconds=5)

# ---- 2 and 7. nothing is written that was not asked for ----

BLOCK = 2 * MIB

def vhd_sum(data):
    return ~sum(data) & 0xffffffff

def vhd_footer(size, kind):
    footer = bytearray(512)
    struct.pack_into('>8sIIQI4sI4sQQHBBI', footer, 0, b'conectix', 2, 0x10000, 512, 0, b'tap\0', 0x10003, bytes(4), size, size, 2, 4, 17, kind)
    footer[68:84] = b'\x31' * 16
    struct.pack_into('>I', footer, 64, vhd_sum(footer))
    return bytes(footer)

def vhd(path, size, blocks, entries=None, behind_table=b'', padding=b'', end=True, cut=0):
    """A dynamic one with these blocks of data; `entries`: of its table, with spare ones; `behind_table`: what a program keeps there."""
    needed = -(-size // BLOCK)
    entries = entries or needed
    header = bytearray(1024)
    struct.pack_into('>8sQQIII', header, 0, b'cxsparse', 2 ** 64 - 1, 1536, 0x10000, entries, BLOCK)
    struct.pack_into('>I', header, 36, vhd_sum(header))
    table_bytes = -(-entries * 4 // 512) * 512
    table = bytearray(b'\xff' * table_bytes)
    at = 1536 + table_bytes + len(behind_table)
    body = b''
    for n, data in blocks.items():
        struct.pack_into('>I', table, n * 4, (at + len(body)) // 512)
        body += b'\xff' * 512 + data
    body = body[:len(body) - cut]
    footer = vhd_footer(size, 3)
    open(path, 'wb').write(footer + header + table + behind_table + body + (footer if end else b'') + padding)

noise = os.urandom(BLOCK)
vhds = {
    'spare-empty.vhd': dict(size=2 * BLOCK, blocks={}, entries=4096),
    'spare.vhd': dict(size=2 * BLOCK, blocks={0: noise}, entries=4096),
    'map.vhd': dict(size=2 * BLOCK, blocks={}, behind_table=b'tdbatmap' + b'\x5a' * 1016),
    'padded.vhd': dict(size=2 * BLOCK, blocks={1: noise}, padding=bytes(3584)),
    'endless.vhd': dict(size=2 * BLOCK, blocks={0: noise}, end=False),
    'short-last.vhd': dict(size=BLOCK + 4096, blocks={0: noise, 1: noise}, cut=BLOCK - 4096),
}
for name, how in vhds.items():
    vhd(name, **how)
    want = b''.join(how['blocks'].get(n, bytes(BLOCK)) for n in range(2))[:how['size']]
    if ends(0, 'read', name, '--format', 'vhd').stdout != want:
        fault('%s reads something else' % name)
    unchanged(name, 'check', name, '--format', 'vhd', code=65 if name in ('padded.vhd', 'endless.vhd') else 0)
    open('four', 'wb').write(b'four' * 1024)
    ends(0, 'write', name, '--format', 'vhd', '--offset', '4096', '--from', 'four') if how['size'] > 8192 else None
    want = want[:4096] + b'four' * 1024 + want[8192:]
    if ends(0, 'read', name, '--format', 'vhd').stdout != want:
        fault('%s reads something else after it was written' % name)
    if name == 'short-last.vhd': # QEMU wants all of the last block
        continue
    qemu('qemu-img', 'convert', '-f', 'vpc', '-O', 'raw', name, 'qemu.raw')
    if content('qemu.raw')[:len(want)] != want:
        fault('%s is something else for QEMU after it was written' % name)
if content('map.vhd')[2048:2048 + 1024] != b'tdbatmap' + b'\x5a' * 1016:
    fault("another program's map was written over")
data = content('spare.vhd')
if data[1536 + 512:1536 + 4096 * 4] != b'\xff' * (4096 * 4 - 512):
    fault('the spare entries of a table were written over')
qemu('qemu-img', 'create', '-q', '-f', 'vhdx', 'theirs.vhdx', '8M')
unchanged('theirs.vhdx', 'check', 'theirs.vhdx')
ends(0, 'check', 'theirs.vhdx', '--digests', says='up to date')

# ---- 3. what is not finished has no name ----

qemu('qemu-img', 'create', '-q', '-f', 'raw', 'large.raw', '192M')
with open('large.raw', 'r+b') as f:
    for n in range(192):
        f.write(noise[:MIB])
finished = 0
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
    for form, wait in (('vhdx', 0.02), ('vhd', 0.05), ('raw', 0.01)):
        cases += 1
        p = subprocess.Popen([umbra, 'disk', 'convert', 'large.raw', 'target', '--from', 'raw', '--to', form], stderr=subprocess.DEVNULL)
        time.sleep(wait)
        while p.poll() is None and not any(n.startswith('.target.unfinished') for n in os.listdir('.')):
            pass
        p.send_signal(number)
        p.wait()
        if p.returncode == 0:
            finished += 1
        elif os.path.exists('target'):
            fault('a convert to %s that signal %d ended has left its target' % (form, number))
        left = [n for n in os.listdir('.') if 'unfinished' in n]
        if left and number != signal.SIGKILL:
            fault('a convert to %s that signal %d ended has left %s' % (form, number, left))
        for name in left + ['target', 'target.umbra']:
            if os.path.exists(name):
                os.remove(name)
if finished > 6:
    fault('%d of 12 converts were not cut off' % finished)
os.remove('large.raw')
open('kept', 'w').write('somebody needs this')
for verb in (['create', 'kept', '--size', '8M'], ['convert', 'theirs.vhdx', 'kept'], ['snapshot', 'theirs.vhdx', 'kept']):
    unchanged('kept', *verb, code=65)

# ---- 4. what the format says is there and is not ----

open('full.raw', 'wb').write(noise * 4)
for form, options, says in (('qcow2', [], 'offset'), ('vmdk', ['-o', 'subformat=monolithicSparse'], 'offset'), ('vhdx', [], ''), ('vpc', [], 'cut off')):
    qemu('qemu-img', 'convert', '-f', 'raw', '-O', form, *options, 'full.raw', 'cut')
    name = 'vhd' if form == 'vpc' else form
    ends(0, 'check', 'cut', '--format', name)
    os.truncate('cut', os.stat('cut').st_size * 5 // 8 // 512 * 512)
    ends(65, 'convert', 'cut', 'whole', '--from', name, says=says)
    ends(65, 'check', 'cut', '--format', name)
    if os.path.exists('whole'):
        fault('a %s file that was cut has been converted' % form)
        os.remove('whole')
    os.remove('cut')

# ---- 5. descriptors of VMDK files ----

pattern = b'\x55' * 4096 + b'\xaa' * 4096
open('flat.vmdk', 'wb').write(pattern)
def descriptor(name, *extents, kind='monolithicFlat'):
    open(name, 'w').write('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="%s"\n%s\n' % (kind, '\n'.join(extents)))
descriptor('short.vmdk', 'RW 16 FLAT "flat.vmdk" 0')
descriptor('esx.vmdk', 'RW 16 VMFS "flat.vmdk"', kind='vmfs')
descriptor('dot.vmdk', 'RW 16 FLAT "./flat.vmdk" 0')
descriptor('absolute.vmdk', 'RW 16 FLAT "%s/flat.vmdk" 0' % work)
descriptor('lower.vmdk', 'rw 16 flat "flat.vmdk" 0')
for name in ('short', 'esx', 'dot', 'absolute', 'lower'):
    if ends(0, 'read', name + '.vmdk', '--format', 'vmdk').stdout != pattern:
        fault('%s.vmdk reads something else' % name)
descriptor('many.vmdk', *['RW 16 FLAT "flat.vmdk" 0'] * 400)
if ends(0, 'read', 'many.vmdk', '--format', 'vmdk').stdout != pattern * 400:
    fault('many.vmdk reads something else')
descriptor('outside.vmdk', 'RW 16 FLAT "/etc/passwd" 0')
descriptor('above.vmdk', 'RW 16 FLAT "../flat.vmdk" 0')
for name in ('outside', 'above'):
    ends(78, 'read', name + '.vmdk', '--format', 'vmdk')
qemu('qemu-img', 'convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=twoGbMaxExtentSparse', 'full.raw', 'split.vmdk')
ends(0, 'compare', 'split.vmdk', 'full.raw', '--format', 'vmdk', '--other-format', 'raw')
ends(65, 'info', 'split-s001.vmdk', '--format', 'vmdk', says='piece')

# ---- 6. locks that others know ----

def held(*arguments, until):
    p = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(0.1)
    for _ in range(1200):
        if until():
            return p
        time.sleep(0.05)
    fault('%s did not begin' % ' '.join(arguments))
    return p

def locks(path):
    inode = ':%d ' % os.stat(path).st_ino
    return any(inode in line for line in open('/proc/locks'))

qemu('qemu-img', 'create', '-q', '-f', 'raw', 'shared.raw', '8M')
for mode, both in (('--read-only', True), (None, False)):
    p = held(umbra, 'disk', 'serve', 'shared.raw', '--format', 'raw', '--socket', 'socket', *([mode] if mode else []), until=lambda: os.path.exists('socket'))
    qemu('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', 'shared.raw', 'other.raw', good=both)
    qemu('qemu-io', '-f', 'raw', '-c', 'write 0 4k', 'shared.raw', good=False)
    ends(0 if both else 65, 'read', 'shared.raw', '--format', 'raw', '--length', '512')
    ends(65, 'write', 'shared.raw', '--format', 'raw', '--from', 'four', says='in use')
    p.terminate()
    p.wait()
    for name in ('socket', 'socket.control'):
        if os.path.exists(name):
            os.remove(name)
for option, both in (('-r', True), (None, False)):
    p = held('qemu-io', '-f', 'raw', *([option] if option else []), 'shared.raw', until=lambda: locks('shared.raw'))
    ends(0 if both else 65, 'read', 'shared.raw', '--format', 'raw', '--length', '512')
    ends(65, 'write', 'shared.raw', '--format', 'raw', '--from', 'four', says='in use')
    p.communicate(b'quit\n')

# what is said of a disk that somebody writes is as it was last flushed
ends(0, 'create', 'busy.vhdx', '--size', '512M')
ends(0, 'create', 'busy.vhd', '--size', '512M', '--format', 'vhd')
for form in ('vhdx', 'vhd'):
    name = 'busy.' + form
    p = held(umbra, 'disk', 'serve', name, '--format', form, '--socket', 'socket', until=lambda: os.path.exists('socket'))
    commands = [word for n in range(250) for word in ('-c', 'write -q -P %d %dM 64k' % (n + 1, n * 2), '-c', 'flush')]
    writer = subprocess.Popen(['qemu-io', '-f', 'raw', *commands, 'nbd+unix:///?socket=socket'], stdout=subprocess.DEVNULL)
    looks = 0
    while writer.poll() is None or looks < 3:
        ends(0, 'info', name, '--format', form, says='in-use', seconds=60)
        ends(0, 'check', name, '--format', form, says='in use', seconds=60)
        looks += 1
    ends(65, 'read', name, '--format', form, '--length', '512', says='in use')
    p.terminate()
    p.wait()
    for left in ('socket', 'socket.control'):
        if os.path.exists(left):
            os.remove(left)
    ends(0, 'check', name, '--format', form, says_not='in use')
qemu('qemu-img', 'create', '-q', '-f', 'vhdx', 'running.vhdx', '64M')
p = held('qemu-io', '-f', 'vhdx', 'running.vhdx', until=lambda: locks('running.vhdx'))
ends(0, 'info', 'running.vhdx', says='in-use')
ends(0, 'check', 'running.vhdx', says='in use')
p.communicate(b'write 5M 64k\nquit\n')
qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'running.qcow2', '64M')
p = held('qemu-io', '-f', 'qcow2', 'running.qcow2', until=lambda: locks('running.qcow2'))
ends(0, 'info', 'running.qcow2', '--format', 'qcow2', says='in-use')
ends(0, 'check', 'running.qcow2', '--format', 'qcow2', says='in use')
p.communicate(b'quit\n')

# ---- 9 and 10. messages, and traps ----

qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'a.qcow2', '8M')
ends(65, 'info', 'a.qcow2', says='looks like qcow2')
ends(65, 'info', 'spare.vhd', says='--format')
with open('any.img', 'wb') as f:
    f.write(bytes(4096))
ends(65, 'info', 'any.img', says='--format', says_not='restore')
fixed = bytearray(512)
fixed[:8] = b'conectix'
with open('old.vhd', 'wb') as f: # a footer of 511 bytes, as old writers have left it
    f.write(bytes(4096) + fixed[:511])
ends(65, 'info', 'old.vhd', says='looks like vhd')
ends(65, 'create', 'no/such/file.vhdx', '--size', '8M', says='directory', says_not='--parents')
ends(64, 'read', 'theirs.vhdx', '--offset', '100', '--length', '512', says='sector')
ends(64, 'read', 'theirs.vhdx', '--length', '100', says='sector')
ends(64, 'resize', 'theirs.vhdx', '--size', '1000', says='sector')
ends(64, 'create', 'odd.vhdx', '--size', '1000', says='sector')
for place in ('base', 'leaf'):
    os.mkdir(place)
ends(0, 'create', 'base/b.vhdx', '--size', '8M')
ends(78, 'snapshot', 'base/b.vhdx', 'leaf/w.vhdx', says='--parents')
if os.listdir('leaf'):
    fault('a child that does not open was made: %s' % os.listdir('leaf'))
ends(0, 'snapshot', 'base/b.vhdx', 'leaf/w.vhdx', '--parents', 'base')
ends(0, 'info', 'leaf/w.vhdx', '--parents', 'base')
ends(0, 'create', 'p.vhd', '--size', '8M', '--format', 'vhd')
ends(0, 'snapshot', 'p.vhd', 'child.vhd', '--format', 'vhd')
ends(0, 'info', 'child.vhd', '--format', 'vhd', says='differencing')
ends(0, 'create', 'other.vhd', '--format', 'vhd', '--parent', 'p.vhd')
ends(0, 'info', 'other.vhd', '--format', 'vhd', says='differencing')

os.chdir('/')
shutil.rmtree(work)
print('field: %d cases, %d faults' % (cases, failures))
sys.exit(failures != 0)
