"""The program of the tests' image `nonewprivs`: it says as whom it runs, and ends.

Installed with the setuid bit, it shows whether a container may gain privileges. It is written here
as machine code, since the machine may have no compiler: a static ELF of x86-64.
"""

from __future__ import annotations

import struct

_AT = 0x400000
_HEADERS = 64 + 56
_WORDS = b"Effective uid: "


def program() -> bytes:
    """The executable."""
    code = _code()
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,  # an executable
        62,  # x86-64
        1,
        _AT + _HEADERS,
        64,
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    size = _HEADERS + len(code)
    # One segment, read and executed; the number is made on the stack.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _AT, _AT, size, size, 0x1000)
    return header + segment + code


def _code() -> bytes:
    """geteuid, the number in decimal on the stack behind the words, write, exit(0)."""
    code = b"\xb8\x6b\x00\x00\x00\x0f\x05"  # mov eax, 107; syscall: geteuid
    code += b"\x48\x83\xec\x40"  # sub rsp, 64
    code += b"\x48\x8d\x7c\x24\x3f"  # lea rdi, [rsp+63]
    code += b"\xc6\x07\x0a"  # mov byte [rdi], '\n'
    code += b"\xb9\x0a\x00\x00\x00"  # mov ecx, 10
    # each digit, the last one first
    code += b"\x31\xd2"  # xor edx, edx
    code += b"\xf7\xf1"  # div ecx
    code += b"\x80\xc2\x30"  # add dl, '0'
    code += b"\x48\xff\xcf"  # dec rdi
    code += b"\x88\x17"  # mov [rdi], dl
    code += b"\x85\xc0"  # test eax, eax
    code += b"\x75\xf0"  # jnz back to the xor
    # the words before it, from the last letter to the first
    for letter in reversed(_WORDS):
        code += b"\x48\xff\xcf" + b"\xc6\x07" + bytes([letter])  # dec rdi; mov byte [rdi], letter
    code += b"\x48\x8d\x54\x24\x40"  # lea rdx, [rsp+64]
    code += b"\x48\x29\xfa"  # sub rdx, rdi: the length
    code += b"\x48\x89\xfe"  # mov rsi, rdi
    code += b"\xbf\x01\x00\x00\x00"  # mov edi, 1
    code += b"\xb8\x01\x00\x00\x00\x0f\x05"  # mov eax, 1; syscall: write
    code += b"\x31\xff"  # xor edi, edi
    code += b"\xb8\x3c\x00\x00\x00\x0f\x05"  # mov eax, 60; syscall: exit
    return code
