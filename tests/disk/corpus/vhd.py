"""VHD: Microsoft's Virtual Hard Disk Image Format Specification 1.0, and what writers made of it."""
import struct
from case import Case, pattern

BLOCK, UNUSED, NOWHERE = 2 << 20, 0xffffffff, 0xffffffffffffffff
DATA = pattern(BLOCK, 1)

def ones(data):
    return ~sum(data) & 0xffffffff

def footer(size, kind, creator=b'tap\0', system=b'\0\0\0\0', offset=512, own=b'\x11', saved=0, features=2, version=0x10000, geometry=(4, 4, 17), bad=0):
    f = bytearray(512)
    struct.pack_into('>8sIIQI4sI4sQQHBBI', f, 0, b'conectix', features, version, offset, 0, creator, 0x10003, system, size, size, *geometry, kind)
    f[68:84], f[84] = own * 16, saved
    struct.pack_into('>I', f, 64, ones(f) ^ bad)
    return bytes(f)

def header(entries, block, table, parent, locators, bad=0, cookie=b'cxsparse'):
    h = bytearray(1024)
    struct.pack_into('>8sQQIII', h, 0, cookie, NOWHERE, table, 0x10000, entries, block)
    if parent:
        name = parent[1].encode('utf-16-be')
        h[40:56], h[64:64 + len(name)] = parent[0] * 16, name
        for n, (code, text, at) in enumerate(locators):
            struct.pack_into('>4sIIIQ', h, 576 + 24 * n, code, 512, len(text), 0, at)
    struct.pack_into('>I', h, 36, ones(h) ^ bad)
    return bytes(h)

def dynamic(size, blocks, block=BLOCK, entries=None, behind=b'', cut=0, tail=b'', front=True, end=True, bitmap=None, table=1536, entry={},
            header_bad=0, cookie=b'cxsparse', parent=None, locators=(), **of_footer):
    needed = -(-size // block)
    entries = entries or needed
    bitmap_bytes = -(-block // 4096 // 512) * 512
    texts, at = [], 1536 + -(-entries * 4 // 512) * 512
    extra = b''
    for code, text in locators:
        texts.append((code, text, at + len(extra)))
        extra += text.ljust(512, b'\0')
    extra += behind
    place = at + len(extra)
    map_, body = [UNUSED] * entries, b''
    for n, data in blocks.items():
        map_[n] = (place + len(body)) // 512
        body += (bitmap if bitmap is not None else b'\xff' * (block // 4096)).ljust(bitmap_bytes, b'\0') + data
    for n, value in entry.items():
        map_[n] = value
    body = body[:len(body) - cut]
    foot = footer(size, of_footer.pop('kind', 4 if parent else 3), **of_footer)
    raw = struct.pack('>%dI' % entries, *map_)
    raw = raw.ljust(-(-len(raw) // 512) * 512, b'\xff')
    return (foot if front else bytes(512)) + header(entries, block, table, parent, texts, header_bad, cookie) + raw + extra + body + (foot if end else b'') + tail

def one(name, data, want, **more):
    return Case(name, 'vhd', {name: data}, want, **more)

def refused(name, data, says, **more):
    return Case(name, 'vhd', {name: data}, None, says, qemu=None, libyal=None, **more)

def cases():
    two, zeros = 2 * BLOCK, bytes(BLOCK)
    first = DATA + zeros
    fixed = pattern(1 << 20, 2)
    foot = footer(1 << 20, 2, offset=NOWHERE)
    yield one('dynamic.vhd', dynamic(two, {0: DATA}), first)
    yield one('spare-entries-empty.vhd', dynamic(two, {}, entries=4096), zeros * 2)
    yield one('spare-entries.vhd', dynamic(two, {0: DATA}, entries=4096), first)
    yield one('map-behind-the-table.vhd', dynamic(two, {}, behind=b'tdbatmap' + b'\x5a' * 1016), zeros * 2)
    yield one('bits-of-a-disk-without-parent.vhd', dynamic(two, {0: DATA}, bitmap=b'\xff' * 256 + bytes(256)), first, libyal=None)
    yield one('last-block-as-long-as-the-disk.vhd', dynamic(BLOCK + 4096, {0: DATA, 1: DATA}, cut=BLOCK - 4096), DATA + DATA[:4096], qemu=None)
    yield one('zeros-behind-the-footer.vhd', dynamic(two, {0: DATA}, tail=bytes(3584)), first, check='footer', libyal=None)
    yield one('no-footer-in-front.vhd', dynamic(two, {0: DATA}, front=False), first, qemu=None, libyal=None)
    yield one('no-footer-at-the-end.vhd', dynamic(two, {0: DATA}, end=False), first, check='footer', libyal=None)
    yield one('blocks-of-512k.vhd', dynamic(two, {3: DATA[:1 << 19]}, block=1 << 19), bytes(3 << 19) + DATA[:1 << 19] + bytes(BLOCK))
    yield one('saved-state.vhd', dynamic(two, {1: DATA}, saved=1), zeros + DATA)
    yield one('second-block-first.vhd', dynamic(two, {1: DATA, 0: DATA[::-1]}), DATA[::-1] + DATA)
    for creator in (b'win ', b'qemu', b'qem2', b'vbox', b'd2v\0', b'conectix'[:4]):
        yield one('by-%s.vhd' % creator.strip(b'\0 ').decode(), dynamic(two, {0: DATA}, creator=creator, geometry=(120, 4, 17)), first, qemu=120 * 4 * 17 * 512)
    yield one('fixed.vhd', fixed + foot, fixed, qemu=True)
    yield one('fixed-footer-of-511.vhd', fixed + foot[:511], fixed, check='footer', libyal=None)
    yield one('fixed-longer-than-it-says.vhd', fixed + bytes(1 << 20) + foot, fixed, libyal=None)
    yield one('fixed-of-windows.vhd', fixed + footer(1 << 20, 2, offset=NOWHERE, creator=b'win ', system=b'Wi2k'), fixed)
    parent, extra = dynamic(two, {0: DATA}), {'parent.vhd': dynamic(two, {0: DATA})}
    for name, locators in (
            ('relative', [(b'W2ru', '.\\parent.vhd'.encode('utf-16-le'))]),
            ('relative-slash', [(b'W2ru', './parent.vhd'.encode('utf-16-le'))]),
            ('absolute-elsewhere', [(b'W2ku', 'C:\\VMs\\parent.vhd'.encode('utf-16-le'))]),
            ('of-macos', [(b'MacX', b'file://localhost/Users/x/parent.vhd')]),
            ('by-name-alone', []),
            ('big-endian', [(b'W2ru', '.\\parent.vhd'.encode('utf-16-be'))])):
        name = 'child-%s.vhd' % name
        # a child's bitmap says which sectors it has: the first half of block 1
        data = dynamic(two, {1: DATA}, bitmap=b'\xff' * 256 + bytes(256), parent=(b'\x11', 'parent.vhd'), locators=locators, own=b'\x22')
        yield Case(name, 'vhd', {name: data, 'parent.vhd': parent}, DATA + DATA[:BLOCK // 2] + bytes(BLOCK // 2), qemu=None, parents=('parent.vhd',))
    orphan = dynamic(two, {}, parent=(b'\x33', 'parent.vhd'), own=b'\x22')
    yield Case('child-of-another.vhd', 'vhd', {'child-of-another.vhd': orphan, 'parent.vhd': parent}, None, 'was made on the disk', offset=False, qemu=None, libyal=None)
    yield refused('footer-sum.vhd', dynamic(two, {0: DATA}, bad=1), 'footer')
    yield refused('footer-version.vhd', dynamic(two, {0: DATA}, version=0x20000), 'footer')
    yield refused('kind.vhd', dynamic(two, {0: DATA}, kind=7), 'type 7')
    yield refused('size.vhd', dynamic(two - 100, {0: DATA}), 'sectors')
    yield refused('size-above-2040g.vhd', dynamic(1 << 42, {}, entries=4), '2040 GiB')
    yield refused('header-sum.vhd', dynamic(two, {0: DATA}, header_bad=1), 'header')
    yield refused('header-cookie.vhd', dynamic(two, {0: DATA}, cookie=b'cxsparsf'), 'header')
    yield refused('header-nowhere.vhd', dynamic(two, {0: DATA}, offset=1 << 60), 'header')
    yield refused('block-size.vhd', dynamic(two, {}, block=BLOCK * 3, entries=2), 'Block Size')
    yield refused('table-nowhere.vhd', dynamic(two, {}, table=1 << 50), 'block table')
    yield refused('table-unaligned.vhd', dynamic(two, {}, table=1537), 'block table')
    yield refused('table-too-short.vhd', dynamic(1 << 30, {}, entries=2), 'block table')
    yield refused('block-over-tables.vhd', dynamic(two, {0: DATA}, entry={0: 1}), 'entry 0')
    yield refused('block-over-footer.vhd', dynamic(two, {0: DATA}, entry={0: 5}), 'entry 0')
    yield refused('two-over-each-other.vhd', dynamic(two, {0: DATA, 1: DATA}, entry={1: 5}), 'over each other')
    yield refused('block-not-in-the-file.vhd', dynamic(two, {0: DATA}, entry={1: 1 << 30}), 'cut off')
    yield refused('cut-off.vhd', dynamic(two, {0: DATA, 1: DATA})[:BLOCK + 9000], 'cut off')
    yield refused('fixed-cut-off.vhd', fixed[:1 << 19] + foot, 'cut off')
    yield refused('nothing.vhd', b'conectix', 'short', offset=False)
