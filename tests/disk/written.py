#!/usr/bin/python3
"""qcow2 and VMDK files that convert writes: QEMU's programs check them, compare them and read them as ours do; children on a backing
file; what is refused, and what is left of one that was cut off. usage: written.py UMBRA"""
import json, os, random, shutil, signal, subprocess, sys, tempfile, time

umbra = os.path.abspath(sys.argv[1])
work = tempfile.mkdtemp()
os.chdir(work)
failures = cases = 0
MIB = 1 << 20
random.seed(18)

def fault(text):
    global failures
    failures += 1
    print('written:', text)

def run(*arguments, code=0, says=None):
    global cases
    cases += 1
    p = subprocess.run(arguments, capture_output=True, timeout=100)
    text = (p.stdout + p.stderr).decode(errors='replace')
    if p.returncode != code:
        fault('%s: ended with %d, not %d: %s' % (' '.join(arguments), p.returncode, code, text.strip()[-300:]))
    if says and says not in text:
        fault('%s: does not say "%s": %s' % (' '.join(arguments), says, text.strip()[-300:]))
    return text

def disk(*arguments, **more):
    return run(umbra, 'disk', *arguments, **more)

def pieces(name, size, parts):
    """A raw file with these (offset, bytes) in it."""
    with open(name, 'wb') as f:
        f.truncate(size)
        for at, data in parts:
            f.seek(at)
            f.write(data)

def text(bytes):
    return (b'%d a line that packs well\n' % random.getrandbits(30)) * (bytes // 24)

sources = {
    'empty.raw': (3 * MIB, []),
    'noise.raw': (MIB + 5 * 512, [(0, random.randbytes(MIB + 5 * 512))]),
    'text.raw': (8 * MIB, [(0, text(3 * MIB)), (5 * MIB + 512, text(100000))]),
    'mixed.raw': (70 * MIB + 512, [(n * 300000 // 512 * 512, random.randbytes(70000) if n % 3 else text(90000)) for n in range(40)]
                  + [(70 * MIB, random.randbytes(512))]),
}
for name, what in sources.items():
    pieces(name, *what)
ways = {
    'plain.qcow2': ('qcow2', ['--to', 'qcow2']),
    'zlib.qcow2': ('qcow2', ['--to', 'qcow2', '--compress', 'zlib']),
    'zstd.qcow2': ('qcow2', ['--to', 'qcow2', '--compress', 'zstd']),
    'small.qcow2': ('qcow2', ['--to', 'qcow2', '--compress', 'zstd', '--block-size', '4K']),
    'large.qcow2': ('qcow2', ['--to', 'qcow2', '--compress', 'zlib', '--block-size', '2M']),
    'stream.vmdk': ('vmdk', ['--to', 'vmdk']),
}
for source in sources:
    for target, (form, options) in ways.items():
        disk('convert', source, target, '--from', 'raw', *options, *(['--no-sync'] if form == 'qcow2' else []))
        run('qemu-img', 'check', '-q', '-f', form, target)
        run('qemu-img', 'compare', '-q', '-f', 'raw', '-F', form, source, target)
        disk('compare', source, target, '--format', 'raw', '--other-format', form)
        disk('check', target, '--format', form, says='no fault')
        os.remove(target)
disk('convert', 'mixed.raw', 'z.qcow2', '--from', 'raw', '--to', 'qcow2', '--compress', 'zstd')
told = json.loads(run('qemu-img', 'info', '--output=json', 'z.qcow2'))
if told['virtual-size'] != 70 * MIB + 512 or told['format-specific']['data']['compression-type'] != 'zstd' or \
        told['format-specific']['data']['compat'] != '1.1' or told['format-specific']['data']['corrupt']:
    fault('qemu-img info of a qcow2: %s' % told)
if os.stat('z.qcow2').st_size > 6 * MIB:
    fault('a packed file has %d bytes' % os.stat('z.qcow2').st_size)
disk('convert', 'text.raw', 'a "name".vmdk', '--from', 'raw', '--to', 'vmdk')
told = json.loads(run('qemu-img', 'info', '--output=json', 'a "name".vmdk'))
if told['virtual-size'] != 8 * MIB or told['format-specific']['data']['create-type'] != 'streamOptimized':
    fault('qemu-img info of a vmdk: %s' % told)
# and once more from what was written: as good a source as any other
disk('convert', 'z.qcow2', 'again.vmdk', '--from', 'qcow2', '--to', 'vmdk')
disk('compare', 'again.vmdk', 'mixed.raw', '--format', 'vmdk', '--other-format', 'raw')

# ---- children ----

base = bytearray(6 * MIB)
base[MIB:2 * MIB] = random.randbytes(MIB)
base[4 * MIB:5 * MIB] = random.randbytes(MIB)
changed = base[:] + bytes(MIB)
changed[MIB + 4096:MIB + 8192] = bytes(4096)
changed[4 * MIB:4 * MIB + 256 * 1024] = bytes(256 * 1024)
changed[6 * MIB + 512:6 * MIB + 1024] = b'\x55' * 512
os.mkdir('sub')
open('sub/base.raw', 'wb').write(base)
open('sub/changed.raw', 'wb').write(changed)
for name, form in (('raw', 'raw'), ('qcow2', 'qcow2'), ('vhd', 'vpc'), ('vhdx', 'vhdx')):
    parent = 'sub/base.' + name
    if name != 'raw':
        run('qemu-img', 'convert', '-f', 'raw', '-O', form, *(['-o', 'force_size=on'] if form == 'vpc' else []), 'sub/base.raw', parent)
    child = 'sub/child-%s.qcow2' % name
    disk('convert', 'sub/changed.raw', child, '--from', 'raw', '--to', 'qcow2', '--compress', 'zlib', '--parent', parent, '--parent-format', name)
    run('qemu-img', 'check', '-q', '-f', 'qcow2', child)
    run('qemu-img', 'compare', '-q', '-f', 'raw', '-F', 'qcow2', 'sub/changed.raw', child)
    disk('compare', 'sub/changed.raw', child, '--format', 'raw', '--other-format', 'qcow2')
    told = json.loads(run('qemu-img', 'info', '--output=json', child))
    if told.get('backing-filename') != './base.' + name or told.get('backing-filename-format') != form:
        fault('the backing file of %s: %s' % (child, told))
    if os.stat(child).st_size > MIB:
        fault('%s has what its parent has: %d bytes' % (child, os.stat(child).st_size))
    disk('check', child, '--format', 'qcow2', '--chain', says='no fault')
# it knows what its parent held
os.rename('sub', 'moved')
disk('compare', 'moved/changed.raw', 'moved/child-raw.qcow2', '--format', 'raw', '--other-format', 'qcow2')
with open('moved/base.raw', 'r+b') as f:
    f.seek(4 * MIB + 512 * 1024)
    f.write(b'somebody wrote here')
disk('convert', 'moved/child-raw.qcow2', 'never.raw', '--from', 'qcow2', '--to', 'raw', code=65, says='parent')
disk('check', 'moved/child-raw.qcow2', '--format', 'qcow2', '--chain', code=65, says='which reads them')
if os.path.exists('never.raw'):
    fault('what its parent does not hold any more was converted')

# that can be accepted, and its own content is kept, too
disk('repair-link', 'moved/child-raw.qcow2', '--format', 'qcow2', '--reason', 'it is right as it is')
disk('convert', 'moved/child-raw.qcow2', 'now.raw', '--from', 'qcow2', '--to', 'raw')
disk('check', 'moved/child-raw.qcow2', '--format', 'qcow2', '--digests', says='up to date')
disk('check', 'moved/child-raw.qcow2', '--format', 'qcow2', '--chain', says='no fault')
# a child that somebody else made is adopted
run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.vhdx', '-F', 'vhdx', 'moved/theirs.qcow2')
disk('check', 'moved/theirs.qcow2', '--format', 'qcow2', '--chain', says='is not known')
disk('repair-link', 'moved/theirs.qcow2', '--format', 'qcow2', '--reason', 'adopted')
told = json.loads(disk('check', 'moved', '--chain', '--json'))
if not told['sound'] or told['files'] != 10 or told['faults']:
    fault('a folder without a fault: %s' % told)
with open('moved/base.vhdx', 'r+b') as f: # behind everybody's back
    f.seek(f.read().index(base[4 * MIB:4 * MIB + 64]) + 512 * 1024)
    f.write(b'somebody wrote here')
told = json.loads(disk('check', 'moved', '--chain', '--json', code=65))
hurt = {at['file'] for at in told['findings'] if at.get('affected')}
if hurt != {'moved/theirs.qcow2', 'moved/child-vhdx.qcow2'}:
    fault('of the children of a changed parent: %s' % told)
disk('convert', 'moved/theirs.qcow2', 'never.raw', '--from', 'qcow2', '--to', 'raw', code=65, says='parent')
os.remove('now.raw')

# a folder that is watched tells when that happens
os.mkdir('watched')
disk('create', 'watched/base.vhdx', '--size', '4M')
open('four', 'wb').write(b'four' * 128)
disk('write', 'watched/base.vhdx', '--offset', '0', '--from', 'four')
run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.vhdx', '-F', 'vhdx', 'watched/child.qcow2')
disk('repair-link', 'watched/child.qcow2', '--format', 'qcow2', '--reason', 'adopted')
watch = subprocess.Popen([umbra, 'disk', 'watch', 'watched'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
first = watch.stdout.readline()
if 'is watched' not in first:
    fault('watch began with: %s' % first)
disk('read', 'watched/base.vhdx', '--length', '512') # who reads changes nothing
open('five', 'wb').write(b'five' * 128)
disk('write', 'watched/base.vhdx', '--offset', '0', '--from', 'five')
line = watch.stdout.readline()
if 'base.vhdx' not in line or 'child.qcow2' not in line or 'in 1 extents' not in line:
    fault('watch says: %s' % line)
watch.send_signal(signal.SIGTERM)
watch.communicate(timeout=60)
if watch.returncode:
    fault('watch ended with %d' % watch.returncode)
again = subprocess.Popen([umbra, 'disk', 'watch', 'watched'], stdout=subprocess.PIPE, text=True)
if 'child.qcow2' not in again.stdout.readline():
    fault('watch does not tell of what was changed before it began')
again.send_signal(signal.SIGINT)
again.communicate(timeout=60)
disk('watch', 'no-folder', code=65, says='no-folder')

# what a VMDK descriptor names is the parent, too: a changed extent is seen by who reads, checks and watches
os.mkdir('flat')
with open('flat/base-flat.vmdk', 'wb') as f:
    f.write(b'\x55' * MIB)
with open('flat/base.vmdk', 'w') as f:
    f.write('# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="vmfs"\nRW 2048 VMFS "base-flat.vmdk"\n')
run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.vmdk', '-F', 'vmdk', 'flat/child.qcow2')
disk('repair-link', 'flat/child.qcow2', '--format', 'qcow2', '--reason', 'adopted')
disk('read', 'flat/child.qcow2', '--format', 'qcow2', '--length', '512')
os.chdir('flat')
told = json.loads(disk('check', '.', '--chain', '--json'))
os.chdir('..')
if told['files'] != 2 or told['faults'] or not any('piece' in at['says'] for at in told['findings']):
    fault('a folder of a descriptor, its extent and a child: %s' % told)
watch = subprocess.Popen([umbra, 'disk', 'watch', 'flat'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
if 'is watched' not in watch.stdout.readline():
    fault('watch of a descriptor and a child')
with open('flat/base-flat.vmdk', 'r+b') as f:
    f.write(b'somebody wrote here')
line = watch.stdout.readline()
if 'base.vmdk' not in line or 'child.qcow2' not in line:
    fault('watch says of a changed extent: %s' % line)
watch.send_signal(signal.SIGTERM)
watch.communicate(timeout=60)
disk('read', 'flat/child.qcow2', '--format', 'qcow2', '--length', '512', code=65, says='parent')
disk('convert', 'flat/child.qcow2', 'never.raw', '--from', 'qcow2', '--to', 'raw', code=65, says='parent')
disk('check', 'flat/child.qcow2', '--format', 'qcow2', '--chain', code=65, says='which reads them')
shutil.rmtree('flat')
os.remove('four')
os.remove('five')

# ---- what is refused ----

before = sorted(os.listdir('.'))
for arguments, code, says in (
        (['text.raw', 'x', '--to', 'qcow2', '--compress', 'lz4'], 64, 'zstd'),
        (['text.raw', 'x', '--to', 'vhdx', '--compress', 'zstd'], 64, 'qcow2'),
        (['text.raw', 'x', '--to', 'vmdk', '--parent', 'moved/base.raw'], 64, 'qcow2'),
        (['text.raw', 'x', '--to', 'qcow2', '--block-size', '1K'], 64, '4K to 2M'),
        (['text.raw', 'z.qcow2', '--to', 'qcow2'], 65, 'exists'),
        (['text.raw', 'x', '--to', 'qcow2', '--parent', 'moved/none.raw', '--parent-format', 'raw'], 65, 'none.raw'),
        (['text.raw', 'x', '--to', 'qcow2', '--parent', 'moved/base.vhd', '--parent-format', 'vhd'], 78, '--parents')):
    if says == '--parents': # its directory is not the child's, nor below it
        os.mkdir('leaf')
        arguments[1] = 'leaf/x'
    disk('convert', *arguments, '--from', 'raw', code=code, says=says)
    if says == '--parents':
        os.rmdir('leaf')
shutil.copy('z.qcow2', 'cut.qcow2')
os.truncate('cut.qcow2', os.stat('cut.qcow2').st_size // 2)
for form in ('qcow2', 'vmdk'):
    disk('convert', 'cut.qcow2', 'x', '--from', 'qcow2', '--to', form, code=65, says='at offset')
os.remove('cut.qcow2')
left = sorted(os.listdir('.'))
if left != before:
    fault('refused, and left behind: %s' % sorted(set(left) - set(before)))

# ---- one that is cut off ----

pieces('large.raw', 96 * MIB, [(0, text(96 * MIB))])
cut = 0
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
    for form in ('qcow2', 'vmdk'):
        cases += 1
        p = subprocess.Popen([umbra, 'disk', 'convert', 'large.raw', 'target', '--from', 'raw', '--to', form], stderr=subprocess.DEVNULL)
        while p.poll() is None and not any(n.startswith('.target.unfinished') for n in os.listdir('.')):
            time.sleep(0.002)
        p.send_signal(number)
        p.wait()
        cut += p.returncode != 0
        left = [n for n in os.listdir('.') if 'unfinished' in n]
        if p.returncode and os.path.exists('target'):
            fault('a convert to %s that signal %d ended has left its target' % (form, number))
        if left and number != signal.SIGKILL:
            fault('a convert to %s that signal %d ended has left %s' % (form, number, left))
        for name in left + ['target']:
            if name in left: # seen to be none, whoever looks at it
                disk('info', name, '--format', form, code=65)
            if os.path.exists(name):
                os.remove(name)
if cut < 2:
    fault('%d of 8 converts were cut off' % cut)

os.chdir('/')
shutil.rmtree(work)
print('written: %d cases, %d faults' % (cases, failures))
sys.exit(failures != 0)
