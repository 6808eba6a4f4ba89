"""Reads TensorFlow's variable bundles (`variables.index`, `variables.data-00000-of-00001`) without
TensorFlow.

The index is a sorted string table in the format of LevelDB whose values are messages of protocol
buffers (tensorflow/core/protobuf/tensor_bundle.proto). The data file has the tensors' bytes.
"""

from __future__ import annotations

import struct
from typing import Iterator

import numpy as np

MAGIC = 0xDB4775248B80FB57
FLOAT = 1  # DT_FLOAT of tensorflow/core/framework/types.proto


def read_bundle(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """The f32 tensors of a bundle of one shard, by name. Tensors of other types are left out."""
    tensors = {}
    for key, value in _table(index):
        entry = dict(_fields(value))
        if not key or entry.get(1) != FLOAT:  # The empty key has the bundle's header.
            continue
        shape = [dict(_fields(dim)).get(1, 0) for field, dim in _fields(entry.get(2, b"")) if field == 2]
        offset, size = entry.get(4, 0), entry[5]
        values = np.frombuffer(data[offset : offset + size], dtype="<f4")
        tensors[key.decode()] = values.reshape(shape)
    return tensors


def _table(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted string table."""
    footer = index[-48:]
    if len(footer) < 48 or struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise ValueError("not the index of a TensorFlow bundle: its magic number is missing")
    _, at = _handle(footer, 0)
    blocks, _ = _handle(footer, at)
    for _, handle in _entries(_block(index, *blocks)):
        yield from _entries(_block(index, *_handle(handle, 0)[0]))


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """A block's offset and size, and where the next item begins."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _block(index: bytes, offset: int, size: int) -> bytes:
    raw = index[offset : offset + size]
    compression = index[offset + size]
    if compression not in (0, 1):
        raise ValueError(f"block compression {compression} is unknown")
    return _unsnap(raw) if compression else raw


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A key is stored as the length of the prefix that it shares with the one before, and the rest."""
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a protocol buffers message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
        elif kind == 2:
            size, at = _varint(message, at)
            value, at = message[at : at + size], at + size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"wire type {kind} is unknown")
        yield tag >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _unsnap(data: bytes) -> bytes:
    """Undoes Snappy's compression: literal bytes, and copies of earlier output."""
    length, at = _varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            size = tag >> 2
            if size >= 60:
                extra = size - 59
                size = int.from_bytes(data[at : at + extra], "little")
                at += extra
            out += data[at : at + size + 1]
            at += size + 1
            continue
        if tag & 3 == 1:
            size, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
            at += 1
        else:
            extra = 2 if tag & 3 == 2 else 4
            size, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + extra], "little")
            at += extra
        for _ in range(size):
            out.append(out[-offset])
    if len(out) != length:
        raise ValueError(f"a block has {len(out)} bytes, but it says {length}")
    return bytes(out)
