"""What people type, as values. Pure: a fault is a ValueError whose sentence says what would be right."""

import re

from cli.wishes import GpuRequest

MICRO_PER_CREDIT = 1_000_000
MICRO_MAX = 2**53 - 1

_AMOUNT = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,6}))?")
_DURATION_PART = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,3}))? ?([KMGT]i?)?B?", re.IGNORECASE)
_SIZE_UNIT = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)
_NAME_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_LABEL_NAME = re.compile(r"[a-z0-9._-]{1,63}")
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}", re.ASCII)
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,4}))?%?", re.ASCII)
_PROCESSORS = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,3}))?", re.ASCII)
_DESTINATION = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}(/[0-9]{1,2})?(:[0-9]{1,5})?", re.ASCII)
MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)
GPU_COUNT_MAX = 64
LINES_MAX = 1_000_000


def parse_credits(text: str) -> int:
    """Credits as micro-credits: "5", "0.60", up to six decimals."""
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise ValueError(
            f"{text!r} is no amount of credits; write it like 5 or 0.60, with at most six decimals"
        )
    whole, fraction = found.group(1), found.group(2) or ""
    micro = int(whole) * MICRO_PER_CREDIT + int(fraction.ljust(6, "0"))
    if micro > MICRO_MAX:
        raise ValueError(f"{text!r} is more than the market can hold")
    return micro


def parse_duration(text: str) -> int:
    """Milliseconds of "2h", "1h30m", "45s", "500ms"."""
    rest, total = text.strip(), 0
    parts = list(_DURATION_PART.finditer(rest))
    if not parts or "".join(part.group(0) for part in parts) != rest:
        raise ValueError(f"{text!r} is no duration; write it like 2h, 1h30m, 45s or 500ms")
    for part in parts:
        total += int(part.group(1)) * _UNIT_MS[part.group(2)]
    return total


def parse_size(text: str) -> int:
    """Bytes of "24GB" (decimal, as vendors count) or "24GiB"."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write it like 24GB or 24GiB")
    whole, fraction, unit = found.group(1), found.group(2) or "", (found.group(3) or "").lower()
    thousandths = int(whole) * 1_000 + int(fraction.ljust(3, "0") or 0)
    return thousandths * _SIZE_UNIT[unit] // 1_000


def parse_tail(text: str) -> tuple[int, int]:
    """Lines or bytes, the other 0: a bare number is lines, "10kB" is bytes."""
    bare = text.strip()
    if bare.isascii() and bare.isdigit():
        if not 1 <= int(bare) <= LINES_MAX:
            raise ValueError(f"{text!r} is no number of lines; write 1 to {LINES_MAX}, or a size like 10kB")
        return int(bare), 0
    return 0, parse_size(text)


def parse_gpu(text: str) -> GpuRequest:
    """MODEL[:COUNT]; the model is part of its name, "any" for any."""
    model, colon, count_text = parse_text(text).strip().partition(":")
    if not model or (colon and not count_text):
        raise ValueError(f"{text!r} names no GPU; write it like rtx4090, rtx4090:2 or any:2")
    if colon and not (
        count_text.isascii() and count_text.isdigit() and 1 <= int(count_text) <= GPU_COUNT_MAX
    ):
        raise ValueError(f"{count_text!r} is no number of GPUs; write 1 to {GPU_COUNT_MAX}, like rtx4090:2")
    return GpuRequest(model="" if model.lower() == "any" else model, count=int(count_text) if colon else 1)


def parse_env(text: str) -> tuple[str, str]:
    name, equals, value = parse_text(text).partition("=")
    if not equals or _ENV_NAME.fullmatch(name) is None:
        raise ValueError(f"{text!r} is no variable; write it like NAME=value")
    return name, value


def parse_secret(text: str) -> tuple[str, str]:
    """Its name, and the file that it is in; "" stands for the variable of that name."""
    name, equals, source = text.partition("=")
    if _SECRET_NAME.fullmatch(name) is None or bool(equals) is not bool(source):
        raise ValueError(f"{text!r} is no secret; write it like NAME=file, or NAME for the variable NAME")
    return name, source


def parse_destination(text: str) -> str:
    """A host name or IPv4 network, perhaps with a port; the market knows the exact form."""
    if _DESTINATION.fullmatch(text.lower()) is None:
        raise ValueError(
            f"{text!r} is no destination; write a host name or an IPv4 network, like example.org:443 "
            "or 203.0.113.0/24"
        )
    return text.lower()


def parse_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!a} is not UTF-8, which is all that the market takes") from None
    return text


def parse_label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or _LABEL_NAME.fullmatch(name) is None:
        raise ValueError(f"{text!r} is no label; write it like rack=b7, the name in small letters")
    return name, parse_text(value)


def parse_version(text: str) -> str:
    if _VERSION.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no version; write digits and dots, like 550.54")
    return text


def parse_processors(text: str) -> int:
    """Thousandths of a processor: "4", "1.5"."""
    found = _PROCESSORS.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no number of processors; write it like 4 or 1.5")
    return int(found.group(1)) * 1_000 + int((found.group(2) or "").ljust(3, "0"))


def parse_reliability(text: str) -> int:
    """Parts per million of "99%" or "99.5"."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no reliability; write it like 99% or 99.5%")
    ppm = int(found.group(1)) * 10_000 + int((found.group(2) or "").ljust(4, "0"))
    if ppm > 1_000_000:
        raise ValueError(f"{text!r} is more than 100%")
    return ppm


def parse_percent(text: str) -> int:
    """A whole part of a hundred: "80%", "80"."""
    digits = text.strip().removesuffix("%")
    if not (digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 100):
        raise ValueError(f"{text!r} is no percentage; write 1% to 100%, like 80%")
    return int(digits)


def parse_month(text: str) -> str:
    """A month of UTC; `cli.reports` knows when it was."""
    if text not in {"this", "last"} and not MONTH.fullmatch(text):
        raise ValueError(f"{text!r} is no month; write it like 2026-11, or this, or last")
    return text


def name_from_command(command: tuple[str, ...]) -> str:
    """A name for people, made of the program's own."""
    program = command[0].rsplit("/", 1)[-1]
    return _NAME_UNFIT.sub("-", program).strip("-")[:64] or "job"
