"""Writes the man pages and the bash completion of `nitroproxy`, from its tree of argparse parsers.

usage: manual.py DIRECTORY

DIRECTORY gets man1/nitroproxy.1, a page for each command (nitroproxy-status.1) and bash-completion/nitroproxy. The same
tree gives the same bytes; the date of the pages is SOURCE_DATE_EPOCH's.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from nitroproxy import __version__
from nitroproxy.commands.main import build_parser

#: Metavars whose values are names of files, for the completion.
_FILES = ("FILE", "DIRECTORY", "DIR", "PATH", "EIF", "PEM", "PROGRAM")


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below *parser*, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def walk(parser: argparse.ArgumentParser, *names: str) -> Iterator[tuple[Sequence[str], argparse.ArgumentParser]]:
    """The parser and all below it, each with the words that lead to it."""
    yield names, parser
    for name, below in subcommands(parser).items():
        yield from walk(below, *names, name)


def roff(text: str) -> str:
    """*text* as roff takes it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Its options and arguments, without what the help leaves out."""
    return [
        action
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)
    ]


def described(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """An option and its help, as a tagged paragraph."""
    formatter = parser._get_formatter()
    value = (
        "" if action.nargs == 0 else formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    )
    names = ", ".join(f"\\fB{roff(name)}\\fR" for name in action.option_strings)
    tag = f"{names} \\fI{roff(value)}\\fR".rstrip() if names else f"\\fI{roff(value)}\\fR"
    return f".TP\n{tag}\n{roff(formatter._expand_help(action))}\n"


def page(names: Sequence[str], parser: argparse.ArgumentParser, day: str) -> str:
    """The man page of a command, with those below it that have no page of their own."""
    title = "-".join(["nitroproxy", *names])
    summary = (parser.description or "").split(". ")[0].rstrip(".").replace("\n", " ")
    lines = [
        f'.TH {title.upper()} 1 "{day}" "nitroproxy {__version__}" "nitroproxy"\n',
        f".SH NAME\n{roff(title)} \\- {roff(summary)}\n",
    ]
    for words, one in walk(parser, *names) if names else [(names, parser)]:
        lines += section(words, one, whole=words == names)
    if not names:
        lines.append(".SH COMMANDS\n")
        lines += [
            f".TP\n\\fB{roff(title)}\\-{roff(name)}\\fR(1)\n{roff(_summary(parser, name))}\n"
            for name in subcommands(parser)
        ]
    if parser.epilog:
        lines.append(f".SH NOTES\n{roff(parser.epilog)}\n")
    others = ["twistd(1)"] if not names else ["nitroproxy(1)"]
    return "".join([*lines, f".SH SEE ALSO\n{roff(', '.join(others))}\n"])


def section(words: Sequence[str], parser: argparse.ArgumentParser, *, whole: bool) -> Iterator[str]:
    """Synopsis, description and options of one command."""
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    if whole:
        yield f".SH SYNOPSIS\n{roff(usage)}\n.SH DESCRIPTION\n{roff(parser.description or '')}\n"
    else:
        yield f".SH {roff(' '.join(words)).upper()}\n{roff(usage)}\n.PP\n{roff(parser.description or '')}\n"
    found = arguments_of(parser)
    if found:
        yield ".SH OPTIONS\n" if whole else ".PP\nOptions:\n"
        yield from (described(parser, action) for action in found)


def _summary(parser: argparse.ArgumentParser, name: str) -> str:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return next((choice.help or "" for choice in action._choices_actions if choice.dest == name), "")
    return ""


def completion(parser: argparse.ArgumentParser) -> str:
    """The bash completion: commands, options, and the names of files and choices as values of options."""
    cases, values = [], []
    for names, one in walk(parser):
        options = [name for action in arguments_of(one) for name in action.option_strings]
        cases.append(f"        '{' '.join(names)}') words='{' '.join([*subcommands(one), *options])}' ;;\n")
        for action in arguments_of(one):
            if action.choices and action.option_strings:
                choices = " ".join(map(str, action.choices))
                values += [
                    f"        '{' '.join(names)}:{name}') words='{choices}' ;;\n" for name in action.option_strings
                ]
            elif action.option_strings and action.metavar in _FILES:
                values += [f"        '{' '.join(names)}:{name}') files=yes ;;\n" for name in action.option_strings]
    commands = " ".join(f"'{' '.join(names)}'" for names, _ in walk(parser) if names)
    return _COMPLETION.format(cases="".join(cases), values="".join(values), commands=commands)


_COMPLETION = """# bash completion of nitroproxy; made by scripts/manual.py
_nitroproxy() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} at='' words='' files='' word
    local -a commands=({commands})
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
        case " ${{commands[*]/#/|}} " in
            *"|${{at:+$at }}$word "*) at=${{at:+$at }}$word ;;
        esac
    done
    case $at:$before in
{values}        *) ;;
    esac
    [ -n "$words$files" ] || case $at in
{cases}    esac
    if [ -n "$files" ]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        compopt -o filenames 2>/dev/null
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        [ ${{#COMPREPLY[@]}} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}}
complete -F _nitroproxy nitroproxy
"""


def main(directory: Path) -> None:
    """Write everything below *directory*."""
    os.environ["COLUMNS"] = "100000"  # argparse wraps by it
    when = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
    parser = build_parser()
    pages = {"nitroproxy": page((), parser, time.strftime("%Y-%m-%d", when))}
    for name, one in subcommands(parser).items():
        pages[f"nitroproxy-{name}"] = page((name,), one, time.strftime("%Y-%m-%d", when))
    (directory / "man1").mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (directory / "man1" / f"{name}.1").write_text(text, "utf-8")
    (directory / "bash-completion").mkdir(exist_ok=True)
    (directory / "bash-completion" / "nitroproxy").write_text(completion(parser), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
