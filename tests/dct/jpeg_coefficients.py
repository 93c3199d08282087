"""Reads the DCT coefficients out of a baseline JPEG file: an independent reference for the tests of mmfreq.dct.blocks.

Handles what Pillow and OpenCV write with one component, or with several without chroma subsampling: sequential Huffman
coding, 8 bits per sample, one scan, no restart markers. Section numbers are those of ITU-T T.81.
"""
import numpy as np

# Figure A.6: natural index 8 * vertical + horizontal of each zigzag position, written out, not computed.
ZIGZAG = (0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
          12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
          35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
          58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63)  # yapf: disable

CodeTable = list[tuple[int, int]]


class _Bits:
    """The bits of the entropy-coded data, read from the left."""

    def __init__(self, data: bytes) -> None:
        self.bits = ''.join(f'{byte:08b}' for byte in data) + '1' * 16
        self.position = 0

    def symbol(self, table: CodeTable) -> int:
        """Decodes one Huffman symbol (F.2.2.3)."""
        value, length = table[int(self.bits[self.position:self.position + 16], 2)]
        self.position += length
        return value

    def signed(self, size: int) -> int:
        """Reads ``size`` bits as a difference or coefficient (F.2.2.1, EXTEND)."""
        if size == 0:
            return 0
        value = int(self.bits[self.position:self.position + size], 2)
        self.position += size
        return value if value >> (size - 1) else value - (1 << size) + 1


def _code_table(lengths: bytes, symbols: bytes) -> CodeTable:
    """(symbol, code length) for every string of 16 bits that starts with a code (Annex C): codes are consecutive."""
    table: CodeTable = []
    remaining = iter(symbols)
    for length, count in enumerate(lengths, 1):
        for _ in range(count):
            table += [(next(remaining), length)] * (1 << (16 - length))
    return table + [(0, 16)] * ((1 << 16) - len(table))


def _tables(segment: bytes) -> dict[int, CodeTable]:
    """Huffman tables of a DHT segment (B.2.4.2) by class and number."""
    tables = {}
    while segment:
        count = sum(segment[1:17])
        tables[segment[0]] = _code_table(segment[1:17], segment[17:17 + count])
        segment = segment[17 + count:]
    return tables


def _block(bits: _Bits, dc_table: CodeTable, ac_table: CodeTable) -> list[int]:
    """64 quantised coefficients in zigzag order, the first one as difference to the block before (F.2.2)."""
    block = [0] * 64
    block[0] = bits.signed(bits.symbol(dc_table))
    k = 1
    while k < 64:
        run, size = divmod(bits.symbol(ac_table), 16)
        if size == 0 and run < 15:
            break
        k += run
        block[k] = bits.signed(size)
        k += 1
    return block


def read_coefficients(data: bytes) -> np.ndarray:
    """The dequantised DCT coefficients of a JPEG file.

    Args:
        data (bytes): The file's content.

    Returns:
        np.ndarray: int64 (ceil(H/8), ceil(W/8), 64 * components), channel
        ``64 * component + 8 * vertical_frequency + horizontal_frequency``.
    """
    quantisers: dict[int, np.ndarray] = {}
    tables: dict[int, CodeTable] = {}
    position, marker = 2, 0
    while marker != 0xda:  # segments up to and including SOS
        marker, length = data[position + 1], int.from_bytes(data[position + 2:position + 4], 'big')
        segment = data[position + 4:position + 2 + length]
        position += 2 + length
        if marker == 0xdb:  # DQT with 8-bit entries
            assert not any(segment[i] >> 4 for i in range(0, len(segment), 65))
            quantisers |= {segment[i]: np.array(list(segment[i + 1:i + 65])) for i in range(0, len(segment), 65)}
        elif marker == 0xc4:
            tables |= _tables(segment)
        elif marker == 0xc0:  # SOF0: precision, height, width, then number, sampling factors, quantiser
            height, width = int.from_bytes(segment[1:3], 'big'), int.from_bytes(segment[3:5], 'big')
            components = [segment[i:i + 3] for i in range(6, len(segment), 3)]
            assert segment[0] == 8
            assert all(component[1] == 0x11 for component in components)
    scan = [divmod(segment[2 + 2 * i], 16) for i in range(segment[0])]
    bits = _Bits(data[position:data.rindex(b'\xff\xd9')].replace(b'\xff\x00', b'\xff'))
    rows, cols = -(-height // 8), -(-width // 8)
    zigzag = np.array([[_block(bits, tables[dc], tables[0x10 + ac]) for dc, ac in scan] for _ in range(rows * cols)])
    zigzag[:, :, 0] = zigzag[:, :, 0].cumsum(axis=0)
    natural = np.zeros_like(zigzag)
    natural[:, :, list(ZIGZAG)] = zigzag * np.array([quantisers[component[2]] for component in components])
    return natural.reshape(rows, cols, -1)
