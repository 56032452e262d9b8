"""Requests that nobody would send: any message of the contract, at random, or nearly right and bent."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

DEPTH_MAX = 4
_INTS = [
    0,
    1,
    -1,
    2,
    63,
    64,
    65,
    255,
    500,
    501,
    1_000_000,
    2**31 - 1,
    -(2**31),
    2**53,
    2**62,
    2**63 - 1,
    -(2**63),
]
_TEXTS = [
    "",
    " ",
    "a",
    "A" * 65,
    "x" * 5_000,
    "../../etc/passwd",
    "'; DROP TABLE job; --",
    "a\x00b",
    "\x1b[2J\x1b]0;owned\x07",
    "line\nline\r",
    "\u202egnp.exe",
    "\ufeff\u200b",
    "e\u0301\U0001f4a9" * 40,
    "%s%n{0}${HOME}",
    "\x1f\x1e",
    "9" * 18,
    "99999999999999999999999",
    "-1",
    "0.5",
    "1.2.3.4",
    "[::1]:22",
    "*",
    "tok_0123456789abcdef",
    "null",
]
_BYTES = [b"", b"\x00", b"\xff" * 100, b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", b"x" * 9_000]
_WHOLE = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


@dataclass
class Pool:
    """Words that mean something here, by the field that holds them: what is nearly right goes deeper."""

    dice: Random
    words: dict[str, list[Any]] = field(default_factory=dict)

    def fill(self, message: Message, chance: float, depth: int = 0) -> None:
        """Each field with that chance."""
        fields: Any = message.DESCRIPTOR.fields
        for of in fields:
            if self.dice.random() < chance:
                self._set(message, of, depth)

    def bend(self, message: Message) -> None:
        """One field, at any depth, to something else or to nothing."""
        fields: Any = message.DESCRIPTOR.fields
        if not fields:
            return
        of = self.dice.choice(fields)
        inside = of.type == FieldDescriptor.TYPE_MESSAGE and not of.is_repeated and message.HasField(of.name)
        if inside and self.dice.random() < 0.8:
            self.bend(getattr(message, of.name))
        elif self.dice.random() < 0.15:
            message.ClearField(of.name)
        else:
            self._set(message, of, 0)

    def bent_bytes(self, message: Message) -> bytes:
        """As on the wire, with some of it cut off, doubled or turned over."""
        raw = bytearray(message.SerializeToString() or b"\x0a\x01a")
        for _ in range(self.dice.randint(1, 4)):
            place = self.dice.randrange(len(raw) + 1)
            kind = self.dice.randrange(3)
            if kind == 0:
                del raw[place:]
            elif kind == 1 and place < len(raw):
                raw[place] = self.dice.randrange(256)
            else:
                raw[place:place] = self.dice.randbytes(self.dice.randint(1, 8))
        return bytes(raw)

    def _set(self, message: Message, of: Any, depth: int) -> None:
        if of.type == FieldDescriptor.TYPE_MESSAGE and of.message_type.GetOptions().map_entry:
            for _ in range(self.dice.choice([0, 1, 2, 40])):
                getattr(message, of.name)[self._text(of.name)] = self._text(of.name)
        elif of.is_repeated:
            count = self.dice.choice([0, 1, 2, 3, 65, 300]) if depth < DEPTH_MAX else 1
            message.ClearField(of.name)
            for _ in range(count if of.type != FieldDescriptor.TYPE_MESSAGE else min(count, 66)):
                if of.type == FieldDescriptor.TYPE_MESSAGE:
                    self.fill(getattr(message, of.name).add(), 0.5, depth + 1)
                else:
                    getattr(message, of.name).append(self._plain(of))
        elif of.type == FieldDescriptor.TYPE_MESSAGE:
            inner = getattr(message, of.name)
            inner.SetInParent()
            if depth < DEPTH_MAX:
                self.fill(inner, 0.6, depth + 1)
        else:
            setattr(message, of.name, self._plain(of))

    def _plain(self, of: Any) -> Any:
        words = self.words.get(of.name, [])
        if words and self.dice.random() < 0.6:
            return self.dice.choice(words)
        if of.type == FieldDescriptor.TYPE_STRING:
            return self._text(of.name)
        if of.type == FieldDescriptor.TYPE_BYTES:
            return self.dice.choice(_BYTES)
        if of.type == FieldDescriptor.TYPE_BOOL:
            return self.dice.random() < 0.5
        if of.type == FieldDescriptor.TYPE_ENUM and self.dice.random() < 0.8:
            return self.dice.choice(of.enum_type.values).number
        least, most = _WHOLE[of.cpp_type]
        return min(max(self.dice.choice([*_INTS, self.dice.randint(-9, 999)]), least), most)

    def _text(self, name: str) -> str:
        words = [word for word in self.words.get(name, []) if isinstance(word, str)]
        if words and self.dice.random() < 0.5:
            return self.dice.choice(words)
        if self.dice.random() < 0.2:
            return "".join(chr(self.dice.choice([*range(32, 127), *range(0x400, 0x450)])) for _ in range(9))
        return self.dice.choice(_TEXTS)
