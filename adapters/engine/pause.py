"""The image of the container that holds a pod's namespaces, made here: no registry is needed.

It is one static program of a few hundred bytes. As `/pause` it lets the kernel reap whatever is
left to it (it is process 1 where a pod's containers share their processes) and sleeps until it is
killed. As `/pause rename OLD NEW` it is renameat(2), and its exit code the errno: with it the
files of a volume are switched at once.

The code for aarch64 was assembled and disassembled, and never ran on such a machine.
"""

from __future__ import annotations

import struct

from bridge.errors import Unsupported

COMMAND = "/pause"

# Both programs do, in their machine's words:
#     if argc == 4: exit(-renameat(AT_FDCWD, argv[2], AT_FDCWD, argv[3]))
#     rt_sigaction(SIGCHLD, {SIG_IGN}, NULL, 8)
#     for (;;) pause();            // ppoll(NULL, 0, NULL, NULL) on aarch64, which has no pause
_X86_64 = bytes.fromhex(
    "48833c2404 7424"  # cmpq $4,(%rsp); je rename
    "b80d000000 bf11000000 488d3540000000 31d2 41ba08000000 0f05"  # rt_sigaction
    "b822000000 0f05 ebf7"  # pause; again
    "48c7c79cffffff 488b742418 48c7c29cffffff 4c8b542420 b808010000 0f05"  # renameat
    "f7d8 89c7 b83c000000 0f05"  # exit
    "0f1f00 0100000000000000" + "00" * 24  # nop; struct sigaction
)
_AARCH64 = bytes.fromhex(
    "e00340f9 1f1000f1 c0010054"  # ldr x0,[sp]; cmp x0,#4; b.eq rename
    "e1020010 200280d2 020080d2 030180d2 c81080d2 010000d4"  # rt_sigaction
    "000080d2 010080d2 020080d2 030080d2 280980d2 010000d4 faffff17"  # ppoll; again
    "600c8092 e10f40f9 620c8092 e31340f9 c80480d2 010000d4"  # renameat
    "e003004b a80b80d2 010000d4"  # exit
    "1f2003d5 0100000000000000" + "00" * 24  # nop; struct sigaction
)
_MACHINES = {"amd64": (62, _X86_64), "arm64": (183, _AARCH64)}
"""By the engine's name of an architecture: the ELF machine and the code."""
_ALIASES = {"x86_64": "amd64", "aarch64": "arm64"}
_ADDRESS = 0x400000


def program(architecture: str) -> bytes:
    """The executable for that machine. Unsupported where there is none."""
    machine, code = _MACHINES.get(_ALIASES.get(architecture, architecture), (0, b""))
    if not machine:
        raise Unsupported(
            f"no pause program for {architecture or 'an unknown machine'}: name an image that has "
            "one in the backend's option `pause_image`"
        )
    head = 64 + 56
    size = head + len(code)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,  # ET_EXEC
        machine,
        1,
        _ADDRESS + head,
        64,  # the one program header comes next
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    return elf + load + code
