#!/usr/bin/python3
"""Packages of one machine's disks (OVF, OVA): out and in again, for qemu-img and tar in between; packages that others would make; what lies
is refused, with nothing left in the folder. usage: appliance.py UMBRA"""
import hashlib, io, os, shutil, signal, subprocess, sys, tarfile, tempfile, time

umbra = os.path.abspath(sys.argv[1])
work = tempfile.mkdtemp()
os.chdir(work)
failures = cases = 0
MIB = 1 << 20

def fault(text):
    global failures
    failures += 1
    print('appliance:', text)

def run(*arguments):
    return subprocess.run(arguments, capture_output=True, timeout=100)

def disk(*arguments, code=0, says=''):
    global cases
    cases += 1
    p = run(umbra, 'disk', *arguments)
    text = (p.stdout + p.stderr).decode(errors='replace')
    if p.returncode != code or says not in text or 'Sanitizer' in text:
        fault('%s: ended with %d, not %d, or does not say "%s": %s' % (' '.join(arguments), p.returncode, code, says, text.strip()[-300:]))
    if code and p.stderr.count(b'\n') != 1:
        fault('%s: not one line: %s' % (' '.join(arguments), text))
    return p

def content(path):
    with open(path, 'rb') as f:
        return f.read()

# ---- out, and in again ----

one = os.urandom(2 * MIB) + bytes(6 * MIB)
open('one.raw', 'wb').write(one)
run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'one.raw', 'one.qcow2')
two = bytes(3 * MIB) + b'two!' * 1024 + bytes(MIB - 4096)
open('two.raw', 'wb').write(two)
for name in ('in', 'in2', 'in3', 'bad'):
    os.mkdir(name)
disk('export', 'one.raw', 'm.ova', '--format', 'raw', '--disk', 'two.raw')
disk('export', 'one.raw', 'm.ova', '--format', 'raw', code=65)
with tarfile.open('m.ova') as tar:
    names = tar.getnames()
    tar.extractall('out')
if names != ['m.ovf', 'm.mf', 'm-disk1.vmdk', 'm-disk2.vmdk']:
    fault('its files are %s' % names)
for n, data in ((1, one), (2, two)):
    run('qemu-img', 'convert', '-f', 'vmdk', '-O', 'raw', 'out/m-disk%d.vmdk' % n, 'theirs.raw')
    if content('theirs.raw') != data:
        fault('disk %d is something else for qemu-img' % n)
for line in content('out/m.mf').decode().splitlines():
    name, digest = line[len('SHA256('):].split(')= ')
    if hashlib.sha256(content('out/' + name)).hexdigest() != digest:
        fault('the manifest is wrong about ' + name)
p = disk('import', 'm.ova', 'in', '--to', 'raw')
if p.stdout.decode().split() != ['in/m-disk1.raw', 'in/m-disk2.raw'] or content('in/m-disk1.raw') != one or content('in/m-disk2.raw') != two:
    fault('what was sent out comes in as something else')
disk('import', 'm.ova', 'in', '--to', 'raw', code=65, says='exists')
disk('import', 'out/m.ovf', 'in2')
disk('compare', 'in2/m-disk2.vhdx', 'two.raw', '--format', 'vhdx', '--other-format', 'raw')

# ---- what others make ----

PREFIX = '<?xml version="1.0"?>\n'
DISK = content('out/m-disk1.vmdk')

def descriptor(files='', disks='', systems='<VirtualSystem ovf:id="x"/>', begin=PREFIX, space='http://schemas.dmtf.org/ovf/envelope/1'):
    files = files or '<File ovf:href="d.vmdk" ovf:id="f1" ovf:size="%d"/>' % len(DISK)
    disks = disks or '<Disk ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="v1" ovf:fileRef="f1" ovf:format="http://www.vmware.com/specifications/vmdk.html#streamOptimized"/>'
    return (begin + '<ovf:Envelope xmlns:ovf="%s" xmlns="%s"><References>%s</References><DiskSection><Info/>%s</DiskSection>%s</ovf:Envelope>' % (space, space, files, disks, systems)).encode()

def package(path, *members, form=tarfile.USTAR_FORMAT):
    with tarfile.open(path, 'w', format=form) as tar:
        for name, data, *more in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field in more:
                for key, value in field.items():
                    setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))

def sums(kind, **of):
    return ''.join('%s(%s)= %s\n' % (kind, name.replace('_', '.'), hashlib.new(kind.lower(), data).hexdigest()) for name, data in of.items()).encode()

good = descriptor()
for n, (members, form) in enumerate((
        ((('x.ovf', good), ('d.vmdk', DISK)), tarfile.USTAR_FORMAT),
        ((('x.ovf', good), ('d.vmdk', DISK)), tarfile.GNU_FORMAT),
        ((('x.ovf', good), ('d.vmdk', DISK, {'pax_headers': {'comment': 'ü'}})), tarfile.PAX_FORMAT),
        ((('x.ovf', good), ('x.mf', sums('SHA1', x_ovf=good, d_vmdk=DISK)), ('d.vmdk', DISK)), tarfile.USTAR_FORMAT),
        ((('x.ovf', good), ('d.vmdk', DISK), ('x.mf', sums('SHA256', x_ovf=good, d_vmdk=DISK)), ('x.cert', b'?'), ('x.nvram', b'n')), tarfile.USTAR_FORMAT))):
    package('p.ova', *members, form=form)
    disk('import', 'p.ova', 'in3', '--to', 'raw')
    if content('in3/d.raw') != one:
        fault('package %d comes in as something else' % n)
    os.remove('in3/d.raw')
for text in (descriptor(space='http://schemas.dmtf.org/ovf/envelope/2'),
             descriptor(disks='<Disk ovf:capacity="8388608" ovf:diskId="v" ovf:fileRef="f1"/>'),
             descriptor(disks='<Disk ovf:capacity="8" ovf:capacityAllocationUnits="MegaBytes" ovf:diskId="v" ovf:fileRef="f1"/>')):
    package('p.ova', ('x.ovf', text), ('d.vmdk', DISK))
    disk('import', 'p.ova', 'in3', '--to', 'raw')
    os.remove('in3/d.raw')
empty = descriptor(disks='<Disk ovf:capacity="16" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="v"/>')
package('p.ova', ('x.ovf', empty))
disk('import', 'p.ova', 'in3')
disk('info', 'in3/disk1.vhdx', says='16777216')

# ---- what lies ----

BOMB = PREFIX + '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + ''.join('<!ENTITY %s "%s">' % (chr(98 + n), ('&%s;' % chr(97 + n)) * 10) for n in range(12)) + ']>'
FILE = '<File ovf:href="%s" ovf:id="f1"/>'
CAPACITY = '<Disk ovf:capacity="%s" ovf:capacityAllocationUnits="%s" ovf:diskId="v" ovf:fileRef="f1"/>'
big = tarfile.TarInfo('d.vmdk')
big.size = 1 << 40
lies = [
    ('entities', [('x.ovf', descriptor(begin=BOMB, systems='<VirtualSystem ovf:id="&m;"/>')), ('d.vmdk', DISK)], 65, 'document type'),
    ('external', [('x.ovf', descriptor(begin=PREFIX + '<!DOCTYPE x SYSTEM "/etc/passwd">')), ('d.vmdk', DISK)], 65, 'document type'),
    ('no XML', [('x.ovf', b'\0\1\2')], 65, 'at offset 512: no XML'),
    ('cut XML', [('x.ovf', good[:200])], 65, 'no XML'),
    ('deep XML', [('x.ovf', b'<a>' * 100000)], 65, 'no XML'),
    ('large XML', [('x.ovf', good + b' ' * (5 * MIB))], 65, 'x.ovf'),
    ('no disks', [('x.ovf', b'<Envelope/>')], 65, 'no disks'),
    ('two machines', [('x.ovf', descriptor(systems='<VirtualSystem/><VirtualSystem/>')), ('d.vmdk', DISK)], 65, 'machine'),
    ('above', [('x.ovf', descriptor(FILE % '../d.vmdk')), ('d.vmdk', DISK)], 78, 'href'),
    ('absolute', [('x.ovf', descriptor(FILE % '/etc/passwd')), ('d.vmdk', DISK)], 78, 'href'),
    ('URL', [('x.ovf', descriptor(FILE % 'http://x/d.vmdk')), ('d.vmdk', DISK)], 78, 'href'),
    ('backslash', [('x.ovf', descriptor(FILE % 'a\\d.vmdk')), ('d.vmdk', DISK)], 78, 'href'),
    ('control', [('x.ovf', descriptor(FILE % 'd\x9b2J.vmdk')), ('d.vmdk', DISK)], 78, 'href'),
    ('hidden', [('x.ovf', descriptor(FILE % '.d.vmdk')), ('d.vmdk', DISK)], 78, 'href'),
    ('long', [('x.ovf', descriptor(FILE % ('d' * 999))), ('d.vmdk', DISK)], 78, 'href'),
    ('gzip', [('x.ovf', descriptor('<File ovf:href="d.vmdk" ovf:id="f1" ovf:compression="gzip"/>')), ('d.vmdk', DISK)], 65, 'compressed'),
    ('pieces', [('x.ovf', descriptor('<File ovf:href="d.vmdk" ovf:id="f1" ovf:chunkSize="9"/>')), ('d.vmdk', DISK)], 65, 'pieces'),
    ('file size', [('x.ovf', descriptor('<File ovf:href="d.vmdk" ovf:id="f1" ovf:size="9"/>')), ('d.vmdk', DISK)], 65, 'is said to have 9'),
    ('size word', [('x.ovf', descriptor('<File ovf:href="d.vmdk" ovf:id="f1" ovf:size="-9"/>')), ('d.vmdk', DISK)], 65, 'number'),
    ('capacity', [('x.ovf', descriptor(disks=CAPACITY % (9, 'byte * 2^20'))), ('d.vmdk', DISK)], 65, 'is said to have 9437184'),
    ('capacity sum', [('x.ovf', descriptor(disks=CAPACITY % (1 << 60, 'byte * 2^30'))), ('d.vmdk', DISK)], 65, 'capacity'),
    ('units', [('x.ovf', descriptor(disks=CAPACITY % (8, 'furlong'))), ('d.vmdk', DISK)], 65, 'capacity'),
    ('child', [('x.ovf', descriptor(disks='<Disk ovf:capacity="8388608" ovf:diskId="v" ovf:fileRef="f1" ovf:parentRef="w"/>')), ('d.vmdk', DISK)], 65, 'parentRef'),
    ('no such file', [('x.ovf', descriptor(disks='<Disk ovf:capacity="8388608" ovf:diskId="v" ovf:fileRef="f9"/>')), ('d.vmdk', DISK)], 65, 'f9'),
    ('format', [('x.ovf', descriptor(disks='<Disk ovf:capacity="8388608" ovf:diskId="v" ovf:fileRef="f1" ovf:format="http://x/iso"/>')), ('d.vmdk', DISK)], 65, 'neither'),
    ('missing', [('x.ovf', good)], 65, 'not there'),
    ('order', [('d.vmdk', DISK), ('x.ovf', good)], 65, 'descriptor'),
    ('twice', [('x.ovf', good), ('d.vmdk', DISK), ('d.vmdk', DISK)], 65, 'twice'),
    ('path', [('x.ovf', good), ('../d.vmdk', DISK)], 78, 'plain'),
    ('link', [('x.ovf', good), ('d.vmdk', b'', dict(type=tarfile.SYMTYPE, linkname='/etc/passwd'))], 65, 'plain file'),
    ('hard link', [('x.ovf', good), ('d.vmdk', b'', dict(type=tarfile.LNKTYPE, linkname='x.ovf'))], 65, ''),
    ('device', [('x.ovf', good), ('d.vmdk', b'', dict(type=tarfile.BLKTYPE))], 65, 'plain file'),
    ('no digest', [('x.ovf', good), ('x.mf', sums('SHA1', x_ovf=good)), ('d.vmdk', DISK)], 65, 'no digest'),
    ('disk digest', [('x.ovf', good), ('x.mf', sums('SHA1', x_ovf=good, d_vmdk=DISK + b'x')), ('d.vmdk', DISK)], 65, 'SHA1'),
    ('text digest', [('x.ovf', good), ('x.mf', sums('SHA256', x_ovf=good + b'x', d_vmdk=DISK)), ('d.vmdk', DISK)], 65, 'SHA256'),
    ('digest kind', [('x.ovf', good), ('x.mf', b'MD5(x.ovf)= 00\n'), ('d.vmdk', DISK)], 65, 'line 1'),
    ('digest length', [('x.ovf', good), ('x.mf', b'SHA1(x.ovf)= 00\n'), ('d.vmdk', DISK)], 65, 'line 1'),
    ('manifest', [('x.ovf', good), ('x.mf', b'\0' * 99), ('d.vmdk', DISK)], 65, ''),
    ('no vmdk', [('x.ovf', descriptor(FILE % 'd.vmdk')), ('d.vmdk', b'x' * 4096)], 65, ''),
    ('cut vmdk', [('x.ovf', descriptor(FILE % 'd.vmdk')), ('d.vmdk', DISK[:len(DISK) // 2])], 65, 'cut off'),
]
for name, members, code, says in lies:
    package('p.ova', *members)
    disk('import', 'p.ova', 'bad', code=code, says=says)
    if os.listdir('bad'):
        fault('%s: left %s' % (name, os.listdir('bad')))
        shutil.rmtree('bad')
        os.mkdir('bad')
package('p.ova', ('x.ovf', good), ('d.vmdk', DISK))
whole = bytearray(content('p.ova'))
at = whole.index(b'd.vmdk\0')
for wrong in (whole[:at + 5000], whole[:at + 512], whole[:300], b'', b'x' * 4096):
    open('p.ova', 'wb').write(wrong)
    disk('import', 'p.ova', 'bad', code=65)
whole[at:at + 512] = big.tobuf(tarfile.GNU_FORMAT)
open('p.ova', 'wb').write(whole)
disk('import', 'p.ova', 'bad', code=65, says='larger')
os.makedirs('beside', exist_ok=True)
open('beside/x.ovf', 'wb').write(good)
os.symlink('../out/m-disk1.vmdk', 'beside/d.vmdk')
disk('import', 'beside/x.ovf', 'bad', code=65, says='d.vmdk')
disk('import', 'm.ova', 'no-such-folder', code=65)
disk('import', 'm.ova', code=64)
if os.listdir('bad'):
    fault('left %s' % os.listdir('bad'))

# ---- cut off ----

open('large.raw', 'wb').write(os.urandom(2 * MIB) * 4)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
    cases += 1
    p = subprocess.Popen([umbra, 'disk', 'export', 'large.raw', 'large.ova', '--format', 'raw'], stderr=subprocess.DEVNULL)
    while p.poll() is None and not any('unfinished' in name for name in os.listdir('.')):
        time.sleep(0.001)
    p.send_signal(number)
    p.wait()
    if p.returncode and os.path.exists('large.ova'):
        fault('an export that signal %d ended has left its target' % number)
    for name in os.listdir('.'):
        if 'unfinished' in name and number != signal.SIGKILL:
            fault('an export that signal %d ended has left %s' % (number, name))
        if 'unfinished' in name or name == 'large.ova':
            os.remove(name)

os.chdir('/')
shutil.rmtree(work)
print('appliance: %d cases, %d faults' % (cases, failures))
sys.exit(failures != 0)
