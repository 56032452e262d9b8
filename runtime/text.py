"""Text of strangers, before a terminal or a log sees it."""


def printable(text: str) -> str:
    """With everything escaped that could be more than text: no second line, no colours, no cursor."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
