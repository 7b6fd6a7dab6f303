"""Makes VHDX files from the text of MS-VHDX alone, also ones that no program makes: our reader must not share its mistakes with our
writer. Sections in comments are MS-VHDX's."""
import os, struct, sys, uuid
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c

MIB = 1 << 20
FILE_BAT = uuid.UUID('2dc27766-f623-4200-9d64-115e9bfd4a08')
FILE_METADATA = uuid.UUID('8b7ca206-4790-4b9a-b8fe-575f050f886e')
PARAMETERS = uuid.UUID('caa16737-fa36-4d43-b3b6-33f0aa44e76b')
SIZE = uuid.UUID('2fa54224-cd1b-4876-b211-5dbed83bf4b8')
DISK_ID = uuid.UUID('beca12ab-b2e6-4523-93ef-c309e000c746')
LOGICAL = uuid.UUID('8141bf1d-a96f-4709-ba47-f233a8faab5f')
PHYSICAL = uuid.UUID('cda348c7-445d-4471-9cc9-e9885251c556')
LOCATOR = uuid.UUID('a8d35f2d-b30b-454d-abf7-d3d84834ab0c')
LOCATOR_VHDX = uuid.UUID('b04aefb7-d19e-4a81-b789-25b8e9445913')
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, PRESENT, PARTIAL = 0, 1, 2, 3, 6, 7
USER, DISK, REQUIRED = 1, 2, 4

def summed(data, at=4):
    """With its checksum, which is over the data with zero in its place."""
    data = bytearray(data)
    data[at:at + 4] = bytes(4)
    struct.pack_into('<I', data, at, crc32c(data))
    return bytes(data)

class Vhdx:
    """Change anything, then write()."""
    def __init__(self, size=8 * MIB, block=MIB, sector=512, data_id=None, parent=None):
        self.size, self.block, self.sector = size, block, sector
        self.has_parent = parent is not None
        self.fixed = False
        self.data_id = [data_id or uuid.uuid4()] * 2            # of both headers
        self.file_id, self.disk_id = uuid.uuid4(), uuid.uuid4()
        self.sequence, self.version, self.log_version = [1, 2], [1, 1], 0
        self.log_id, self.log, self.log_bytes, self.log_offset = uuid.UUID(int=0), b'', MIB, MIB
        self.header_good = [True, True]
        self.chunk = (1 << 23) * sector // block
        self.blocks = -(-size // block)
        self.entries = {}                                        # index in the table: (state, MiB)
        self.payload = {}                                        # MiB: bytes
        self.next_mib = None
        bat = self.index(self.blocks - 1) + 1
        if self.has_parent:
            bat = -(-self.blocks // self.chunk) * (self.chunk + 1)
        self.bat_mib = -(-bat * 8 // MIB)
        self.regions = [[FILE_METADATA, 2 * MIB, MIB, 1], [FILE_BAT, 3 * MIB, self.bat_mib * MIB, 1]]
        self.next_mib = 3 + self.bat_mib
        self.items = [
            [PARAMETERS, REQUIRED, struct.pack('<II', block, 2 if self.has_parent else 0)],
            [SIZE, REQUIRED | DISK, struct.pack('<Q', size)],
            [DISK_ID, REQUIRED | DISK, self.disk_id.bytes_le],
            [LOGICAL, REQUIRED | DISK, struct.pack('<I', sector)],
            [PHYSICAL, REQUIRED | DISK, struct.pack('<I', 4096)],
        ]
        self.item_places = {}                                    # number: (offset, length) that the table claims
        if self.has_parent:
            self.items.append([LOCATOR, REQUIRED, locator(parent)])
        self.extra = []                                          # (offset in the file, bytes), last
        self.length = None
        self.signature = b'vhdxfile'
        self.item_count = None

    def index(self, block):
        return block + block // self.chunk

    def take(self, mib):
        at = self.next_mib
        self.next_mib += mib
        return at

    def put(self, block, data, state=PRESENT):
        at = self.take(self.block // MIB)
        self.payload[at] = data
        self.entries[self.index(block)] = (state, at)
        return at

    def state(self, block, state):
        self.entries[self.index(block)] = (state, 0)

    def bitmap(self, chunk, bits):
        at = self.take(1)
        self.payload[at] = bits
        self.entries[(chunk + 1) * self.chunk + chunk] = (PRESENT, at)

    def header(self, n):  # 2.2.2
        h = struct.pack('<4sIQ', b'head', 0, self.sequence[n]) + self.file_id.bytes_le + self.data_id[n].bytes_le + self.log_id.bytes_le
        h += struct.pack('<HHIQ', self.log_version, self.version[n], self.log_bytes, self.log_offset)
        h = summed(h + bytes(4096 - len(h)))
        return h if self.header_good[n] else h[:100] + b'\1' + h[101:]

    def region_table(self):  # 2.2.3
        t = struct.pack('<4sIII', b'regi', 0, len(self.regions), 0)
        for guid, offset, length, required in self.regions:
            t += guid.bytes_le + struct.pack('<QII', offset, length, required)
        return summed(t + bytes(65536 - len(t)))

    def metadata(self):  # 2.6
        values, table_, at = b'', b'', 65536
        for n, (guid, flags, value) in enumerate(self.items):
            offset, length = self.item_places.get(n, (at if value else 0, len(value)))
            table_ += guid.bytes_le + struct.pack('<IIII', offset, length, flags, 0)
            values += value
            at += len(value)
        count = len(self.items) if self.item_count is None else self.item_count
        head = struct.pack('<8sHH20x', b'metadata', 0, count) + table_
        return head + bytes(65536 - len(head)) + values

    def write(self, path):
        with open(path, 'wb') as f:
            f.write(self.signature + 'maker'.encode('utf-16-le'))
            for n in range(2):
                f.seek((n + 1) * 65536)
                f.write(self.header(n))
                f.seek(0x30000 + n * 65536)
                f.write(self.region_table())
            f.seek(self.log_offset)
            f.write(self.log)
            f.seek(2 * MIB)
            f.write(self.metadata())
            for index, (state, mib) in self.entries.items():
                f.seek(3 * MIB + index * 8)
                f.write(struct.pack('<Q', mib << 20 | state))
            for mib, data in self.payload.items():
                f.seek(mib * MIB)
                f.write(data)
            for offset, data in self.extra:
                f.seek(offset)
                f.write(data)
            f.truncate(self.length or self.next_mib * MIB)
        return path

def locator(pairs):  # 2.6.2.6
    entries, text, at = b'', b'', 20 + 12 * len(pairs)
    for key, value in pairs:
        k, v = key.encode('utf-16-le'), value.encode('utf-16-le')
        entries += struct.pack('<IIHH', at + len(text), at + len(text) + len(k), len(k), len(v))
        text += k + v
    return LOCATOR_VHDX.bytes_le + struct.pack('<HH', 0, len(pairs)) + entries + text

def link(parent, path):
    return [('parent_linkage', '{%s}' % parent.data_id[0]), ('relative_path', '.\\' + path)]

def log_entry(guid, sequence, tail, sectors, zeros=(), flushed=0, last=0, **wrong):  # 2.3.1
    """sectors: (offset in the file, 4096 bytes); zeros: (offset, length)."""
    descriptors = b''
    for offset, data in sectors:
        descriptors += struct.pack('<4s4s8sQQ', b'desc', data[4092:], data[:8], offset, sequence)
    for offset, length in zeros:
        descriptors += struct.pack('<4sIQQQ', b'zero', 0, length, offset, sequence)
    count = len(sectors) + len(zeros)
    head_bytes = -(-(64 + len(descriptors)) // 4096) * 4096
    length = wrong.get('length', head_bytes + 4096 * len(sectors))
    head = struct.pack('<4sIIIQII', b'loge', 0, length, tail, wrong.get('head_sequence', sequence), wrong.get('count', count), 0) + guid.bytes_le
    head += struct.pack('<QQ', flushed, last)
    entry = head + descriptors
    entry += bytes(head_bytes - len(entry))
    for _, data in sectors:
        entry += struct.pack('<4sI', b'data', sequence >> 32) + data[8:4092] + struct.pack('<I', wrong.get('torn', sequence) & 0xffffffff)
    return summed(entry)
