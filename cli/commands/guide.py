"""`usance help`: of a command what `--help` says, of a topic what one has to know."""

import difflib
import sys

import click

from cli.errors import WrongUse


@click.command()
@click.argument("words", metavar="[COMMAND | TOPIC]", nargs=-1)
@click.pass_context
def help(ctx: click.Context, words: tuple[str, ...]) -> None:  # noqa: A001 -- it is what people type
    """Explain a command, like `run` or `admin deposit`, or a topic; without either, list the topics."""
    from cli.topics import TOPICS, summary, topic_lines

    if not words:
        lines = [f"  {topic:13} {summary(topic)}" for topic in TOPICS]
        _write(["usance COMMAND --help explains a command, usance --help lists them. Topics:", "", *lines])
    elif len(words) == 1 and words[0] in TOPICS:
        _write(topic_lines(words[0]))
    else:
        _write([_help_of(ctx.find_root(), words)])


def _help_of(root: click.Context, words: tuple[str, ...]) -> str:
    from cli.topics import TOPICS

    context = root
    for word in words:
        group = context.command
        found = group.get_command(context, word) if isinstance(group, click.Group) else None
        if found is None:
            known = [*TOPICS, *(group.list_commands(context) if isinstance(group, click.Group) else ())]
            close = difflib.get_close_matches(word, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; see: usance help"
            raise WrongUse(f"{' '.join(words)!r} is no command and no topic{hint}")
        context = click.Context(found, info_name=word, parent=context)
    return context.get_help()


def _write(lines: list[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
