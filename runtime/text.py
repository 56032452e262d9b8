"""What terminals and logs show: text of strangers made safe, and amounts of credits."""


def printable(text: str) -> str:
    """With everything escaped that could be more than text: no second line, no colours, no cursor."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def amount(micro: int) -> str:
    """Credits: at least two decimals, exact, without the unit."""
    whole, rest = divmod(abs(micro), 1_000_000)
    fraction = f"{rest:06}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}{whole}.{fraction}"
