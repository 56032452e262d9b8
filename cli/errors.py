"""What can go wrong between a person and the market.

UsanceError
|- WrongUse       the command line, the environment or the profile says something that can't be meant
|- NotConfirmed   a person had to agree and did not, or nobody was there to ask
|- Refused        the coordinator said no, with a stable code
|- Unreachable    no answer from the coordinator, however often we asked
`- Broken         the coordinator's answer can't be right, or a check of ours failed
"""

from dataclasses import dataclass

from cli.model import RefusalCode


@dataclass(frozen=True, kw_only=True)
class FieldFault:
    """A field that was at fault, and what would be right."""

    field: str
    description: str


class UsanceError(Exception):
    """The sentence is for people; `code` is for programs and never changes its meaning."""

    code = "ERROR"
    # By which the operator finds it in the logs; empty where nobody was asked.
    request_id = ""

    def __init__(self, sentence: str, faults: tuple[FieldFault, ...] = ()) -> None:
        super().__init__(sentence)
        self.faults = faults


class WrongUse(UsanceError):  # noqa: N818 -- what happened, said plainly
    code = "WRONG_USE"


class NotConfirmed(UsanceError):  # noqa: N818
    code = "NOT_CONFIRMED"


class Refused(UsanceError):  # noqa: N818
    def __init__(self, refusal: RefusalCode, sentence: str, faults: tuple[FieldFault, ...] = ()) -> None:
        super().__init__(sentence, faults)
        self.refusal = refusal

    @property
    def code(self) -> str:  # type: ignore[override]
        return self.refusal.value


class Unreachable(UsanceError):  # noqa: N818
    code = "UNREACHABLE"


class Broken(UsanceError):  # noqa: N818
    code = "BROKEN"
