"""A bill that was saved as JSON, as a value again: what is there is checked, whoever wrote it. Pure."""

import dataclasses
import json
import types
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from cli.model import Bill

_INT_MAX = 2**63 - 1


def read_bill(text: str) -> Bill:
    """What `usance bill JOB --json` wrote. Raises ValueError saying what is wrong and where."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(content, dict) or "bill" not in content:
        raise ValueError("holds no bill; save one with: usance bill JOB --json > FILE")
    bill = _value(Bill, content["bill"], "bill")
    assert isinstance(bill, Bill)
    return bill


def _value(kind: Any, raw: object, where: str) -> object:  # noqa: ANN401 - a type of any form
    """The value of a field's type. Fields that we do not know are a newer version's and are passed over."""
    if dataclasses.is_dataclass(kind):
        return _record(kind, raw, where)
    if get_origin(kind) is tuple:
        if not isinstance(raw, list):
            raise ValueError(f"{where} is no list")
        return tuple(_value(get_args(kind)[0], each, f"{where}[{i}]") for i, each in enumerate(raw))
    if get_origin(kind) in {Union, types.UnionType}:
        (some,) = (each for each in get_args(kind) if each is not types.NoneType)
        return None if raw is None else _value(some, raw, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        known = {each.value: each for each in kind}
        return known.get(raw if isinstance(raw, str) else None, kind("UNSPECIFIED"))
    return _plain(kind, raw, where)


def _record(kind: Any, raw: object, where: str) -> object:  # noqa: ANN401 - as above
    if not isinstance(raw, dict):
        raise ValueError(f"{where} is no object")  # noqa: TRY004 - the text is wrong, not the program
    hints, given = get_type_hints(kind), dict[str, object]()
    for field in dataclasses.fields(kind):
        if field.name in raw:
            given[field.name] = _value(hints[field.name], raw[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{where}.{field.name} is missing")
    return kind(**given)


def _plain(kind: object, raw: object, where: str) -> object:
    if kind is bytes and isinstance(raw, str):
        try:
            return bytes.fromhex(raw)
        except ValueError:
            raise ValueError(f"{where} is not hexadecimal") from None
    if kind is int and isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) <= _INT_MAX:
        return raw
    if (kind is str and isinstance(raw, str)) or (kind is bool and isinstance(raw, bool)):
        return raw
    raise ValueError(f"{where} is no {getattr(kind, '__name__', kind)}")
