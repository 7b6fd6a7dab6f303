#!/usr/bin/python3
"""Where a disk comes from and goes to: standard input and output, block devices, files that are no whole number of sectors; and what is
left of one that is damaged (rescue). A device needs the right to make one (losetup): without it that part says so, and is not tried.
usage: places.py UMBRA"""
import json, os, random, shutil, subprocess, sys, tempfile

umbra = os.path.abspath(sys.argv[1])
work = tempfile.mkdtemp()
os.chdir(work)
failures = cases = 0
MIB = 1 << 20
random.seed(18)

def fault(text):
    global failures
    failures += 1
    print('places:', text)

def run(*arguments, code=0, says=None, data=None, shell=False):
    global cases
    cases += 1
    p = subprocess.run(arguments[0] if shell else arguments, input=data, capture_output=True, timeout=100, shell=shell)
    text = p.stderr.decode(errors='replace') + (p.stdout.decode() if p.stdout.isascii() else '')
    if p.returncode != code:
        fault('%s: ended with %d, not %d: %s' % (arguments, p.returncode, code, text.strip()[-300:]))
    if says and says not in text:
        fault('%s: does not say "%s": %s' % (arguments, says, text.strip()[-300:]))
    return p.stdout

def disk(*arguments, **more):
    return run(umbra, 'disk', *arguments, **more)

def content(path):
    with open(path, 'rb') as f:
        return f.read()

# ---- no whole number of sectors ----

for size in (1, 511, 513, 3 * MIB + 100):
    data = random.randbytes(size)
    whole = data + bytes(-size % 512)
    open('odd.raw', 'wb').write(data)
    if disk('read', 'odd.raw', '--format', 'raw') != whole:
        fault('%d bytes read as something else' % size)
    for form in ('raw', 'vhdx', 'qcow2'):
        disk('convert', 'odd.raw', 'even', '--from', 'raw', '--to', form)
        if disk('read', 'even', '--format', form) != whole:
            fault('%d bytes are something else as %s' % (size, form))
        os.remove('even')
    if content('odd.raw') != data:
        fault('%d bytes were changed by reading them' % size)
    disk('check', 'odd.raw', '--format', 'raw')
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', 'odd.raw', 'theirs.raw')
    if content('theirs.raw').ljust(len(whole), b'\0') != whole:
        fault('qemu-img has something else of %d bytes' % size)
    open('four', 'wb').write(b'four')
    disk('write', 'odd.raw', '--format', 'raw', '--offset', str(len(whole) - 512), '--from', 'four')
    if content('odd.raw') != whole[:-512] + b'four' + whole[-508:]:
        fault('a write into the last sector of %d bytes has written something else' % size)
open('none.raw', 'wb')
disk('info', 'none.raw', '--format', 'raw', code=65, says='empty')

# ---- pipes ----

disk_data = bytearray(7 * MIB + 512)
disk_data[MIB:2 * MIB] = random.randbytes(MIB)
disk_data[5 * MIB:5 * MIB + 300000] = b'packs well ' * (300000 // 11 + 1)
disk_data = bytes(disk_data[:7 * MIB + 512])
open('disk.raw', 'wb').write(disk_data)
before = sorted(os.listdir('.'))
for form in ('vhdx', 'qcow2', 'vmdk', 'raw'):
    disk('convert', '-', 'piped', '--from', 'raw', '--to', form, data=disk_data)
    if disk('read', 'piped', '--format', form) != disk_data:
        fault('what came by a pipe is something else as %s' % form)
    # out of it again, by a file that is input, and by a pipe
    for command in ('%s disk convert - - --from %s --to raw < piped', 'cat piped | %s disk convert - - --from %s --to raw'):
        if run(command % (umbra, form), shell=True) != disk_data:
            fault('%s, by %s, is something else' % (form, command))
    os.remove('piped')
run('%s disk convert disk.raw - --from raw --to vmdk | cat > streamed.vmdk' % umbra, shell=True)
run('qemu-img', 'compare', '-q', '-f', 'vmdk', '-F', 'raw', 'streamed.vmdk', 'disk.raw')
os.remove('streamed.vmdk')
disk('convert', 'disk.raw', '-', '--from', 'raw', '--to', 'vhdx', code=64, says='raw or vmdk')
disk('convert', '-', 'piped', '--from', 'raw', '--to', 'vhdx', data=b'', code=65, says='is empty')
disk('convert', '-', 'piped', '--from', 'qcow2', '--to', 'vhdx', data=disk_data, code=65, says='qcow2 header, magic at offset 0')
run('%s disk convert disk.raw - --from raw --to raw > /dev/full' % umbra, shell=True, code=65, says='standard output')
if sorted(os.listdir('.')) != before:
    fault('pipes have left %s' % sorted(set(os.listdir('.')) - set(before)))

# ---- what is left ----

def rescue(*arguments, **more):
    if os.path.exists('left.raw'):
        os.remove('left.raw')
    out = disk('rescue', *arguments, '--to', 'raw', '--json', **more)
    return json.loads(out) if out else {'lost': None, 'missing': []}

noise = random.randbytes(4 * MIB)
open('noise.raw', 'wb').write(noise)
for form, options in (('qcow2', []), ('qcow2', ['-c']), ('vmdk', ['-o', 'subformat=monolithicSparse'])):
    run('qemu-img', 'convert', '-f', 'raw', '-O', form, *options, 'noise.raw', 'cut')
    if rescue('cut', 'left.raw', '--from', form) != {'lost': 0, 'missing': [], 'unlisted': 0} or content('left.raw') != noise:
        fault('of a good %s file something is missing' % form)
    os.truncate('cut', os.stat('cut').st_size * 5 // 8)
    told = rescue('cut', 'left.raw', '--from', form, code=1)
    left = content('left.raw')
    at = 0
    for piece in told['missing']:
        if left[at:piece['start']] != noise[at:piece['start']]:
            fault('%s: what is left before %d is something else' % (form, piece['start']))
        at = piece['start'] + piece['length']
        if any(left[piece['start']:at]):
            fault('%s: what is missing is not zero' % form)
    if left[at:] != noise[at:] or len(left) != len(noise):
        fault('%s: what is left behind %d is something else' % (form, at))
    if not MIB < told['lost'] < 2 * MIB or told['lost'] != sum(piece['length'] for piece in told['missing']):
        fault('%s: %s bytes are said to be missing' % (form, told['lost']))
    disk('rescue', 'cut', 'again.raw', '--from', form, '--to', 'raw', code=1, says='cut off')
    os.remove('again.raw')
# the first and the last of sixteen clusters are said to be behind the end: those between are there
run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-o', 'cluster_size=4096', 'noise.raw', 'holed.qcow2')
with open('holed.qcow2', 'r+b') as f:
    f.seek(40)
    f.seek(int.from_bytes(f.read(8), 'big'))
    entries_at = int.from_bytes(f.read(8), 'big') & (1 << 56) - 512
    for cluster in (0, 15):
        f.seek(entries_at + 8 * cluster)
        f.write((1 << 63 | 1 << 40).to_bytes(8, 'big'))
told = rescue('holed.qcow2', 'left.raw', '--from', 'qcow2', code=1)
if told['lost'] != 8192 or content('left.raw') != bytes(4096) + noise[4096:61440] + bytes(4096) + noise[65536:]:
    fault('what lies between two clusters that are lost is lost: %s' % told)
# one table of entries, every other of them wrong, for all of a large disk: what is said of it has a limit
run('qemu-img', 'create', '-f', 'qcow2', '-o', 'cluster_size=512', 'sieve.qcow2', '16M')
run('qemu-io', '-f', 'qcow2', '-c', 'write 0 512', 'sieve.qcow2')
with open('sieve.qcow2', 'r+b') as f:
    f.seek(36)
    count, at = int.from_bytes(f.read(4), 'big'), int.from_bytes(f.read(8), 'big')
    f.seek(at)
    table = f.read(8)
    f.seek(at)
    f.write(table * count)
    f.seek(int.from_bytes(table, 'big') & (1 << 56) - 512)
    f.write((bytes(8) + (1 << 63 | 1 << 40).to_bytes(8, 'big')) * 32)
told = rescue('sieve.qcow2', 'left.raw', '--from', 'qcow2', code=1)
listed = sum(piece['length'] for piece in told['missing'])
if len(told['missing']) != 10000 or told['unlisted'] != 8 * MIB - listed or told['lost'] != 8 * MIB:
    fault('%d places are listed, %d bytes are not, of %d' % (len(told['missing']), told['unlisted'], told['lost']))
disk('create', 'base.vhdx', '--size', '4M')
disk('write', 'base.vhdx', '--offset', '0', '--from', 'noise.raw')
disk('create', 'child.vhdx', '--parent', 'base.vhdx')
open('own', 'wb').write(b'\x77' * 65536)
disk('write', 'child.vhdx', '--offset', str(MIB), '--from', 'own')
if rescue('child.vhdx', 'left.raw')['lost'] != 0 or content('left.raw') != noise[:MIB] + b'\x77' * 65536 + noise[MIB + 65536:]:
    fault('a child with its parent is rescued as something else')
os.remove('base.vhdx')
told = rescue('child.vhdx', 'left.raw', code=1, says='alone')
if content('left.raw') != bytes(MIB) + b'\x77' * 65536 + bytes(3 * MIB - 65536) or told['lost'] != 4 * MIB - 65536:
    fault('a child without its parent is rescued as something else: %s' % told)
disk('rescue', 'noise.raw', 'left.raw', '--from', 'raw', '--to', 'raw', code=65, says='exists')
disk('rescue', 'noise.raw', 'x', '--from', 'raw', '--to', 'qcow2', code=64, says='--to raw')

# ---- block devices ----

def device_of(path):
    p = subprocess.run(['losetup', '--find', '--show', path], capture_output=True, text=True)
    return p.stdout.strip() if p.returncode == 0 else None

open('below', 'wb').write(random.randbytes(8 * MIB))
device = device_of(os.path.join(work, 'below'))
if device:
    try:
        below = content('below')
        disk('convert', 'disk.raw', device, '--from', 'raw', '--to', 'raw', code=65, says='exists')
        disk('convert', 'disk.raw', device, '--from', 'raw', '--to', 'vhdx', '--device', code=64, says='--to raw')
        disk('convert', 'disk.raw', device, '--from', 'raw', '--to', 'raw', '--device')
        run('sync', device)
        if content(device) != disk_data + below[len(disk_data):]:
            fault('a device holds something else')
        disk('convert', device, 'of.qcow2', '--from', 'raw', '--to', 'qcow2')
        disk('compare', device, 'of.qcow2', '--format', 'raw', '--other-format', 'qcow2')
        open('more.raw', 'wb').write(bytes(9 * MIB))
        disk('convert', 'more.raw', device, '--from', 'raw', '--to', 'raw', '--device', code=65, says='smaller')
    finally:
        subprocess.run(['losetup', '--detach', device])
else:
    print('places: no block device can be made here: none was tried')
disk('convert', 'disk.raw', 'below', '--from', 'raw', '--to', 'raw', '--device', code=64, says='no block device')

os.chdir('/')
shutil.rmtree(work)
print('places: %d cases, %d faults' % (cases, failures))
sys.exit(failures != 0)
