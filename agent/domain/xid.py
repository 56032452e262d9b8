"""What the driver's error numbers (XIDs) mean for a job and for the GPU.

Imported by the small process beside the agent too, so it needs next to nothing.

Whose fault a number is comes from the driver's own catalogue: what it cures by starting the program again is
the program's doing, what it cures by a reset or a reboot is the machine's. A number that we do not know is
held against the GPU, but not against a job that runs on it: better a GPU idle than a job ended for a notice.
"""

import re
from enum import Enum


class Meaning(Enum):
    """What a number says, from harmless to worst."""

    # Only for the record: the driver has dealt with it.
    NOTICE = "notice"
    # A program did something wrong and was stopped for it; the GPU is as good as before.
    JOBS_OWN_FAULT = "the job's own fault"
    # Memory of the GPU broke under a job. The job can't go on; the GPU can.
    ENDS_JOB = "ends the job"
    # The GPU should not begin anything new.
    DEGRADES = "degrades"
    # The GPU does nothing more until it is reset.
    LOSES = "loses"


# Number -> meaning and a word for people.
XIDS: dict[int, tuple[Meaning, str]] = {
    8: (Meaning.JOBS_OWN_FAULT, "a program ran too long without an answer"),
    13: (Meaning.JOBS_OWN_FAULT, "a program made the engine fail"),
    31: (Meaning.JOBS_OWN_FAULT, "a program touched memory that is not its own"),
    43: (Meaning.JOBS_OWN_FAULT, "a program was stopped for its own error"),
    45: (Meaning.JOBS_OWN_FAULT, "a program was ended and cleared away"),
    46: (Meaning.LOSES, "the GPU stopped processing"),
    48: (Meaning.LOSES, "a memory error that could not be corrected"),
    54: (Meaning.LOSES, "its power cable is not connected"),
    62: (Meaning.LOSES, "its controller halted"),
    63: (Meaning.NOTICE, "a bad row of memory was replaced"),
    64: (Meaning.LOSES, "a bad row of memory could not be replaced"),
    68: (Meaning.JOBS_OWN_FAULT, "a program made the video engine fail"),
    69: (Meaning.JOBS_OWN_FAULT, "a program asked the engine for what it can't do"),
    74: (Meaning.DEGRADES, "its link to other GPUs fails"),
    79: (Meaning.LOSES, "it has fallen off the bus"),
    92: (Meaning.NOTICE, "many memory errors, all corrected"),
    94: (Meaning.ENDS_JOB, "a memory error that struck only the job that had the memory"),
    95: (Meaning.LOSES, "a memory error that may have struck anybody"),
    109: (Meaning.JOBS_OWN_FAULT, "a program did not let go in time"),
    110: (Meaning.LOSES, "a security fault"),
    119: (Meaning.LOSES, "its system processor does not answer"),
    120: (Meaning.LOSES, "its system processor failed"),
    140: (Meaning.LOSES, "memory errors that could not be corrected"),
    143: (Meaning.LOSES, "it could not be started"),
    # The driver thinks differently of what would cure the GPU; what it thinks is asked for by itself.
    154: (Meaning.NOTICE, "the driver's advice has changed"),
}

_PLACE = r"(?:PCI:)?([0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2})"
# "NVRM: Xid (PCI:0000:01:00): 79, pid=1234, name=python, …"; "(PCI:0000:01:00 GPU-I:05)" of a slice.
_XID_LINE = re.compile(rf"NVRM: Xid \({_PLACE}(?: GPU-I:(\d{{1,3}}))?[^)]*\): (\d{{1,5}})\b")
# "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus." comes without a number on some drivers.
_OFF_LINE = re.compile(rf"NVRM: GPU (?:at )?{_PLACE}.*fallen off the bus")
OFF_THE_BUS = 79


def meaning(number: int) -> Meaning:
    return XIDS[number][0] if number in XIDS else Meaning.DEGRADES


def words(number: int) -> str:
    """For people: "XID 79, it has fallen off the bus"."""
    return f"XID {number}, {XIDS[number][1]}" if number in XIDS else f"XID {number}"


def from_kernel_log(line: str) -> tuple[str, int | None, int] | None:
    """Of a line of the kernel's log: where on the bus the GPU is, its slice or None, the number."""
    found = _XID_LINE.search(line)
    if found is not None:
        return place(found[1]), None if found[2] is None else int(found[2]), int(found[3])
    found = _OFF_LINE.search(line)
    return None if found is None else (place(found[1]), None, OFF_THE_BUS)


def place(bus_id: str) -> str:
    """Domain, bus and device, as the kernel's log writes them: the library says "00000000:01:00.0"."""
    domain, bus, device = bus_id.lower().split(":")[:3]
    return f"{int(domain, 16):04x}:{bus}:{device.partition('.')[0]}"
