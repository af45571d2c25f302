"""An ELF file's notes and the names of its sections, read from a file that may be broken or hostile."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from elftools.common.utils import struct_parse
from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"
#: ELFOSABI_STANDALONE (elf(5)): for no operating system.
STANDALONE = 255
# Bounds on what a hostile file can make us read: a linker writes about ten segments and some dozens of sections, and
# the longest note is Solo5's manifest, 6664 bytes; the notes of all segments together are bounded.
_SEGMENT_LIMIT = 128
_SECTION_LIMIT = 1024
_NOTES_LIMIT = 1 << 16
_NAMES_LIMIT = 1 << 16


class Note(NamedTuple):
    """One note, its owner without the final NUL."""

    owner: bytes
    kind: int
    description: bytes


def machine(file: BinaryIO) -> int:
    """e_machine of a file that begins as ELF files do."""
    file.seek(18)
    return int.from_bytes(file.read(2), "little")


class Elf:
    """An ELF file that is open, read as it is asked for. Every method, the constructor too, may meet a broken file with
    nearly any of Python's own errors, as pyelftools does; OSError is always the file's."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._elf = ELFFile(file)
        self.machine = machine(file)
        file.seek(7)
        self.os_abi = file.read(1)[0]

    def notes(self) -> Iterator[Note]:
        """Every note, less those of segments that are longer than any we know."""
        header = self._elf.header
        if header["e_phnum"] > _SEGMENT_LIMIT:
            raise ValueError(f"it has {header['e_phnum']} segments")
        segments = [
            struct_parse(self._elf.structs.Elf_Phdr, self._file, header["e_phoff"] + number * header["e_phentsize"])
            for number in range(header["e_phnum"])
        ]
        if any(each["p_filesz"] and each["p_offset"] + each["p_filesz"] > self._size for each in segments):
            raise ValueError(f"its segments reach beyond its {self._size} bytes")
        room = _NOTES_LIMIT
        for each in segments:
            if each["p_type"] == "PT_NOTE" and each["p_filesz"] <= room:
                room -= each["p_filesz"]
                self._file.seek(each["p_offset"])
                yield from _notes(self._file.read(each["p_filesz"]), self._elf.little_endian)

    def sections(self) -> frozenset[str]:
        """The names of its sections; none where it has no table of them, or one too long to be a kernel's."""
        header = self._elf.header
        count, index = header["e_shnum"], header["e_shstrndx"]
        if not header["e_shoff"] or not count or count > _SECTION_LIMIT:
            return frozenset()
        if header["e_shoff"] + count * header["e_shentsize"] > self._size:
            raise ValueError(f"its table of sections reaches beyond its {self._size} bytes")
        table = [
            struct_parse(self._elf.structs.Elf_Shdr, self._file, header["e_shoff"] + number * header["e_shentsize"])
            for number in range(count)
        ]
        if index >= count or table[index]["sh_size"] > _NAMES_LIMIT:
            return frozenset()
        self._file.seek(table[index]["sh_offset"])
        names = self._file.read(table[index]["sh_size"])
        found = (names[each["sh_name"] :].partition(b"\0")[0] for each in table)
        return frozenset(name.decode("ascii", "replace") for name in found)


def _notes(data: bytes, little: bool) -> Iterator[Note]:
    """Owner, type and description of each note (elf(5), Nhdr): all padded to 4 bytes, whatever the segment says."""
    at = 0
    while at + 12 <= len(data):
        owner_size, size, kind = struct.unpack_from("<III" if little else ">III", data, at)
        owner_end = at + 12 + owner_size
        start = at + 12 + (owner_size + 3 & ~3)
        if start + size > len(data):
            raise ValueError("a note reaches beyond its segment")
        yield Note(data[at + 12 : owner_end].rstrip(b"\0"), kind, data[start : start + size])
        at = start + (size + 3 & ~3)
