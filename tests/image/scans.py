#!/usr/bin/env python3
"""umbra image scan on XFS and btrfs: what mkfs.* has made of a tree is found as it is there, file by file and by digest, with its operating
system and its packages; compressed data, subvolumes, copies that are damaged; and what is not sound is said; what each boots. scans.py UMBRA BOOT_FIND"""
import ctypes, hashlib, json, os, shutil, struct, subprocess, sys, tempfile, zlib

umbra, boot_find = (os.path.abspath(path) for path in sys.argv[1:3])
work = tempfile.mkdtemp()
os.chdir(work)
os.environ['HOME'] = work
MIB = 1 << 20
failed = 0


def fault(text):
    global failed
    failed = 1
    print('scans:', text)


def run(*command, ok=True, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if ok and done.returncode:
        fault(f'{" ".join(command)} ended {done.returncode}: {done.stdout[-300:]}')
    return done


# ---- a tree ----
PACKED = b'what is said again and again is soon packed. ' * 2900  # a little less than 128 KiB
LINK = '/etc/' + './' * 300 + '../usr/lib/os-release'


def make_tree():
    for folder in ('etc', 'usr/lib', 'var/lib/dpkg', 'boot', 'many', 'a/b/c/d'):
        os.makedirs('root/' + folder)
    put = {'usr/lib/os-release': b'ID=debian\nVERSION_ID="12"\n', 'boot/vmlinuz-6.1.0-9-amd64': b'kernel', 'boot/initrd.img-6.1.0-9-amd64': b'initrd', 'etc/hostname': b'scanned\n',
           'var/lib/dpkg/status': b''.join(b'Package: %s\nStatus: install ok installed\nVersion: 1.%d\nArchitecture: all\n\n' % (name, n)
                                           for n, name in enumerate((b'alpha', b'beta'))),
           'empty': b'', 'a/b/c/d/large': os.urandom(3 * MIB + 17), 'packed': PACKED, 'small': b'a few bytes', 'page': bytes(range(256)) * 16}
    for n in range(1500):
        put[f'many/a name that is not short, number {n}'.replace(' ', '-')] = b'%d' % n
    for name, content in put.items():
        open('root/' + name, 'wb').write(content)
    os.symlink(LINK, 'root/etc/os-release')
    return {'/' + name: content for name, content in put.items()}


def proto(link):
    lines = ['x', '1 1', 'd--755 0 0']

    def folder(path):
        for name in sorted(os.listdir('root' + path)):
            here = f'{path}/{name}'
            if os.path.islink('root' + here):
                lines.append(f'{name} l--777 0 0 {link}')
            elif os.path.isdir('root' + here):
                lines.append(f'{name} d--755 0 0')
                folder(here)
                lines.append('$')
            else:
                lines.append(f'{name} ---644 0 0 root{here}')
    folder('')
    open('proto', 'w').write('\n'.join(lines + ['$', '']))


# ---- what a scan says ----
def forget(path):
    if os.path.exists(path + '.umbra'):
        os.unlink(path + '.umbra')


def scan(path, code=0, word=''):
    forget(path)
    done = run(umbra, 'image', 'scan', path, '--format', 'raw', '--digests', ok=False)
    if done.returncode != code or word not in done.stdout:
        fault(f'{path}: ended {done.returncode}, not {code} with "{word}": {done.stdout[-600:]}')
    return done.stdout


def about(path):
    return json.loads(run(umbra, 'image', 'get', path, '--format', 'raw').stdout)


def listed(path):
    lines = json.loads(run(umbra, 'image', 'files', path, '--format', 'raw', '*', '--json').stdout)
    return {one['path']: (one['bytes'], one.get('blake2b')) for one in lines}


def holds(path, files, kind):
    says = about(path)
    if says['partitions'][0].get('file-system') != kind or says.get('os', {}).get('id') != 'debian' or says['os'].get('hostname') != 'scanned':
        fault(f'{path}: says {says}')
    if says.get('kernels') != ['6.1.0-9-amd64'] or says.get('packages') != 2:
        fault(f'{path}: kernels {says.get("kernels")}, packages {says.get("packages")}')
    found = listed(path)
    for name in sorted(set(found) ^ set(files))[:5]:
        fault(f'{path}: {name} is {"not found" if name in files else "found, and is not there"}')
    for name, content in files.items():
        entry = found.get(name)
        digest = hashlib.blake2b(content, digest_size=32).hexdigest()
        if entry != (len(content), digest):
            fault(f'{path}: {name} is another: {entry}, not {len(content)} {digest}')
            break


# ---- what it boots ----
def boots(path, subvolume=0):
    uuid = run('/sbin/blkid', '-p', '-o', 'value', '-s', 'UUID', path).stdout.strip()
    said = run(boot_find, path, ok=False).stdout.strip()
    if said != f'{uuid} {subvolume} kernel initrd':
        fault(f'{path} boots {said}, not {uuid} {subvolume} kernel initrd')


def put(path, at, data):
    with open(path, 'r+b') as file:
        file.seek(at)
        file.write(data)


# ---- XFS ----
def mend_link(path):
    """mkfs.xfs of Debian 12 gives a link that is not in its inode no head; version 5 wants one."""
    at = open(path, 'rb').read().index(LINK.encode())
    number = int(run('/sbin/xfs_db', '-r', '-c', 'path /etc/os-release', '-c', 'inode', path).stdout.split()[-1])
    block = struct.pack('>4sIII16sQQQ', b'XSLM', 0, len(LINK), 0, b'', number, 0, 0) + LINK.encode()
    block = block.ljust(4096, b'\0')
    put(path, at, block[:12] + struct.pack('<I', crc32c(block)) + block[16:])


def of_xfs(files):
    for name, options in (('five', ()), ('small', ('-b', 'size=1024', '-n', 'size=4096', '-i', 'size=512')), ('four', ('-m', 'crc=0', '-n', 'ftype=0'))):
        path = f'xfs.{name}'
        proto('../usr/lib/os-release' if name == 'small' else LINK)
        open(path, 'wb').truncate(300 * MIB)
        run('/sbin/mkfs.xfs', '-q', '-f', '-K', *options, '-p', 'proto', path)
        if name == 'five':
            mend_link(path)
        scan(path)
        holds(path, files, 'xfs')
        boots(path)
    content = open('xfs.five', 'rb').read()
    # a directory whose names were changed: its checksum says so
    at = content.index(b'a-name-that-is-not-short')
    put('xfs.five', at, b'A')
    scan('xfs.five', 65, '/many: cannot be read: is not sound')
    put('xfs.five', at, b'a')
    put('xfs.five', 8, b'\xff')
    scan('xfs.five', 65, 'xfs: its superblock is not sound')
    # without checksums: a directory that is in itself
    number = run('/sbin/xfs_db', '-r', '-c', 'path /a/b', '-c', 'inode', 'xfs.four').stdout.split()[-1]
    run('/sbin/xfs_db', '-x', '-c', 'path /a/b/c', '-c', f'write u.sfdir2.list[0].inumber.i4 {number}', 'xfs.four')
    scan('xfs.four', 65, '/a/b/c/d: is a directory that another name leads to')


# ---- btrfs, with what is not made by mkfs.btrfs written into it ----
TABLE = []
for byte in range(256):
    for bit in range(8):
        byte = byte >> 1 ^ 0x82f63b78 * (byte & 1)
    TABLE.append(byte)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xffffffff


class Btrfs:
    """A file system with one copy of all."""
    def __init__(self, path):
        self.path = path
        self.data = bytearray(open(path, 'rb').read())
        self.super = bytes(self.data[65536:65536 + 4096])
        self.node = struct.unpack_from('<I', self.super, 148)[0]
        self.chunks = []
        at = 811
        while at < 811 + struct.unpack_from('<I', self.super, 160)[0]:
            self.chunk(struct.unpack_from('<QBQ', self.super, at)[2], self.super[at + 17:])
            at += 17 + 48 + 32 * struct.unpack_from('<H', self.super, at + 17 + 44)[0]
        for at in self.tree(3):
            for key, item in self.items(at):
                if key[1] == 228:
                    self.chunk(key[2], item)

    def chunk(self, logical, item):
        self.chunks.append((logical, struct.unpack_from('<Q', item, 0)[0], struct.unpack_from('<Q', item, 56)[0]))

    def physical(self, logical):
        for begin, size, at in self.chunks:
            if begin <= logical < begin + size:
                return at + logical - begin
        return None

    def items(self, at):
        count, level = struct.unpack_from('<IB', self.data, at + 96)
        for n in range(0 if level else min(count, (self.node - 101) // 25)):
            key = struct.unpack_from('<QBQ', self.data, at + 101 + 25 * n)
            where, size = struct.unpack_from('<II', self.data, at + 101 + 25 * n + 17)
            yield key, self.data[at + 101 + where:at + 101 + where + size]

    def below(self, logical):
        at = self.physical(logical)
        count, level = struct.unpack_from('<IB', self.data, at + 96)
        if not level:
            return [at]
        pointers = [struct.unpack_from('<Q', self.data, at + 101 + 33 * n + 17)[0] for n in range(count)]
        return [leaf for pointer in pointers for leaf in self.below(pointer)]

    def tree(self, owner):
        """Where its leaves are."""
        if owner in (1, 3):
            return self.below(struct.unpack_from('<Q', self.super, 80 if owner == 1 else 88)[0])
        return self.below(next(struct.unpack_from('<Q', item, 176)[0] for at in self.tree(1) for key, item in self.items(at)
                               if key[:2] == (owner, 132)))

    def write(self, at, items):
        """A leaf again, of other items."""
        self.data[at + 101:at + self.node] = bytes(self.node - 101)
        struct.pack_into('<I', self.data, at + 96, len(items))
        end = self.node - 101
        for n, (key, item) in enumerate(sorted(items, key=lambda one: one[0])):
            end -= len(item)
            struct.pack_into('<QBQII', self.data, at + 101 + 25 * n, *key, end, len(item))
            self.data[at + 101 + end:at + 101 + end + len(item)] = item
        struct.pack_into('<I', self.data, at, crc32c(self.data[at + 32:at + self.node]))

    def change(self, owner, key, function):
        for at in self.tree(owner):
            items = list(self.items(at))
            for n, (one, item) in enumerate(items):
                if one == key:
                    items[n] = (one, function(bytearray(item)))
                    self.write(at, items)
                    return
        fault(f'{self.path}: no item {key} in the tree {owner}')

    def extent_of(self, content):
        """The key and item of the extent that begins with it."""
        for at in self.tree(5):
            for key, item in self.items(at):
                if key[1] == 108 and item[20] == 1:
                    where = self.physical(struct.unpack_from('<Q', item, 21)[0])
                    if self.data[where:where + 4096] == content[:4096]:
                        return key, item
        fault(f'{self.path}: no such extent')
        return None, None

    def pack(self, content, kind, packed):
        """An extent is packed in its place, and its checksums are made again."""
        key, item = self.extent_of(content)
        logical, = struct.unpack_from('<Q', item, 21)
        padded = packed + bytes(-len(packed) % 4096)
        where = self.physical(logical)
        self.data[where:where + len(padded)] = padded

        def extent(item):
            struct.pack_into('<Q', item, 8, -(-len(content) // 4096) * 4096)
            item[16] = kind
            struct.pack_into('<Q', item, 29, len(padded))
            return item
        self.change(5, key, extent)
        for at in self.tree(7):
            items = []
            for key, sums in self.items(at):
                for n in range(0, len(padded), 4096):
                    place = (logical + n - key[2]) // 4096 * 4
                    if 0 <= place < len(sums):
                        struct.pack_into('<I', sums, place, crc32c(padded[n:n + 4096]))
                items.append((key, sums))
            self.write(at, items)

    def save(self, path):
        with open(path, 'wb') as file:
            file.truncate(len(self.data))
            for at in range(0, len(self.data), 65536):
                if self.data.count(0, at, at + 65536) < 65536:
                    file.seek(at)
                    file.write(self.data[at:at + 65536])
        return path


def zstd(data):
    library = ctypes.CDLL('libzstd.so.1')
    library.ZSTD_compress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(len(data) + 1024)
    size = library.ZSTD_compress(room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)), 3)
    return room.raw[:size]


def make_btrfs(path, *options):
    open(path, 'wb').truncate(128 * MIB)
    run('/sbin/mkfs.btrfs', '-q', '-f', *options, '--rootdir', 'root', path)


def subvolumes(files):
    """The tree becomes subvolume 256; the top has nothing but itself."""
    fs = Btrfs('btrfs')
    root = {key[0]: item for at in fs.tree(1) for key, item in fs.items(at) if key[1] == 132}
    spare = fs.physical(struct.unpack_from('<Q', root[9], 176)[0])  # the tree of identifiers is not read
    top = next(item for at in fs.tree(5) for key, item in fs.items(at) if key == (256, 1, 0))
    fs.data[spare + 88:spare + 96] = struct.pack('<Q', 5)
    entry = struct.pack('<QBQQHHB', 256, 132, 0, 0, 0, 6, 2) + b'nested'
    fs.write(spare, [((256, 1, 0), top), ((256, 96, 2), entry)])
    at = fs.tree(1)[0]
    items = list(fs.items(at))
    fs.write(at, [one for one in items if one[0][:2] != (5, 132)] + [((256, 132, 0), root[5]), ((5, 132, 0), root[9])])
    scan(fs.save('btrfs.second'))
    holds('btrfs.second', files, 'btrfs')
    boots('btrfs.second', 256)
    fs.change(1, next(key for key, item in items if key[:2] == (6, 84)), lambda item: struct.pack('<Q', 256) + item[8:])
    scan(fs.save('btrfs.default'))
    holds('btrfs.default', files, 'btrfs')
    boots('btrfs.default')
    # without a system in it the top is what there is, and says what it does not enter
    fs = Btrfs('btrfs.second')
    fs.write(fs.tree(1)[0], [one for one in fs.items(fs.tree(1)[0]) if one[0] != (256, 132, 0)])
    scan(fs.save('btrfs.top'), 0, '/nested: is another subvolume')


def of_btrfs(files):
    make_btrfs('btrfs', '-m', 'single', '-d', 'single')
    scan('btrfs')
    holds('btrfs', files, 'btrfs')
    boots('btrfs')
    for kind, packed in ((1, zlib.compress(PACKED)), (3, zstd(PACKED))):
        fs = Btrfs('btrfs')
        fs.pack(PACKED, kind, packed)
        scan(fs.save('btrfs.packed'))
        holds('btrfs.packed', files, 'btrfs')
    fs = Btrfs('btrfs')
    fs.pack(PACKED, 2, zlib.compress(PACKED))
    scan(fs.save('btrfs.packed'), 0, '/packed: cannot be read: is compressed with LZO')
    fs = Btrfs('btrfs')
    fs.pack(PACKED, 1, b'no stream of zlib\'s')
    scan(fs.save('btrfs.packed'), 65, '/packed: cannot be read: what is compressed is not sound')
    # data whose checksum is wrong
    large = files['/a/b/c/d/large']
    fs = Btrfs('btrfs')
    at = fs.data.index(large[MIB:MIB + 4096])
    fs.data[at] ^= 1
    scan(fs.save('btrfs.wrong'), 65, '/a/b/c/d/large: cannot be read: the checksum of data')
    # features and checksums of other kinds
    for offset, value, word in ((188, struct.pack('<Q', 1 << 13), 'features that are not known'), (196, b'\1', 'not CRC-32C')):
        fs = Btrfs('btrfs')
        fs.data[65536 + offset:65536 + offset + len(value)] = value
        fs.data[65536:65540] = struct.pack('<I', crc32c(fs.data[65536 + 32:65536 + 4096]))
        fs.data[64 * MIB:64 * MIB + 4096] = bytes(4096)
        scan(fs.save('btrfs.other'), 0, word)
    # the superblock is gone, its copy is there
    fs = Btrfs('btrfs')
    fs.data[65536 + 100:65536 + 3000] = os.urandom(2900)
    scan(fs.save('btrfs.mirror'))
    holds('btrfs.mirror', files, 'btrfs')
    # of two copies one is damaged; both
    make_btrfs('btrfs.dup', '-m', 'dup', '-d', 'single')
    data = bytearray(open('btrfs.dup', 'rb').read())
    name = b'a-name-that-is-not-short,-number-7'
    first = [data.index(name)]
    while data.find(name, first[-1] + 1) >= 0:
        first.append(data.index(name, first[-1] + 1))
    half = (first[0] + first[-1]) // 2
    for at in first:
        if at < half:
            data[at] ^= 1
    open('btrfs.dup', 'wb').write(data)
    scan('btrfs.dup')
    holds('btrfs.dup', files, 'btrfs')
    for at in first:
        if at > half:
            data[at] ^= 1
    open('btrfs.dup', 'wb').write(data)
    scan('btrfs.dup', 65, 'is not sound')
    subvolumes(files)


try:
    files = make_tree()
    of_btrfs(files)
    of_xfs(files)
finally:
    os.chdir('/')
    shutil.rmtree(work)
sys.exit(failed)
