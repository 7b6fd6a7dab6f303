"""CRC-32C (Castagnoli), which VHDX, saved machines and the wire between hosts have, apart from Umbra's own."""
import functools


def row(n):
    for _ in range(8):
        n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
    return n


TABLE = [row(n) for n in range(256)]


@functools.lru_cache(maxsize=64)  # of what tests write most is the same again, and Python takes 5 ms for 64 KiB
def of_bytes(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xffffffff


def crc32c(data):
    return of_bytes(bytes(data))
