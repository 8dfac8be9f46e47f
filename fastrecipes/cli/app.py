"""The command line: each command parses, calls and prints. Torch is imported only by commands that need it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from fastrecipes.cli import looking, preparing, training, using
from fastrecipes.cli.ranked import alike, check_command, end_with_launcher
from fastrecipes.errors import RecipeError, clean

__all__ = ["app", "main"]

NEWEST = ":newest:"  # what a `--resume` that stands alone means to the parser

app = typer.Typer(
    name="fastrecipes",
    help="Fine-tune image classifiers in stages: one recipe file, one command.\n\n"
    "A recipe file is Python code and runs as such: run only recipes that you trust.",
    epilog="Exit codes: 0 done; 1 the run failed; 2 wrong recipe, data or command, nothing was trained; 4 the loss diverged; "
    "130 Ctrl-C; 143 SIGTERM. A run that was stopped goes on with `run RECIPE --resume`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = {
    "run": training.run, "check": training.check, "plan": training.plan, "lrfind": training.lrfind, "sweep": training.sweep,
    "bench": training.bench,
    "list": preparing.list_, "cp": preparing.cp, "advise": preparing.advise, "demo-data": preparing.demo_data,
    "split": preparing.split, "bench-data": preparing.bench_data, "cache": preparing.cache,
    "runs": looking.runs, "compare": looking.compare, "report": looking.report, "doctor": looking.doctor,
    "board": looking.board, "sync": looking.sync,
    "eval": using.evaluate, "predict": using.predict, "export": using.export,
}  # fmt: skip
"""every command by its name, in the order of `fastrecipes --help`"""

for _name, _command in _COMMANDS.items():
    app.command(name=_name)(_command)


def _with_resume(words: list[str]) -> list[str]:
    """`--resume` may stand alone, which the parser cannot say: then the newest run is meant."""
    for i, word in enumerate(words):
        alone = word == "--resume" and (i + 1 == len(words) or not _is_run(words[i + 1]))
        if alone:
            return [*words[:i], f"--resume={NEWEST}", *words[i + 1 :]]
    return words


def _is_run(word: str) -> bool:
    """Whether the word after `--resume` is its RUN: no option and no recipe."""
    return not word.startswith("-") and (Path(word).is_dir() or ("/" in word and not word.endswith(".py")))


def main() -> None:
    """Run the command line; every mistake of a user ends in one clear message and an exit code."""
    from fastrecipes.read.quiet import quiet_warnings

    quiet_warnings()
    end_with_launcher()
    try:
        check_command(sys.argv[1:])
        code = app(_with_resume(sys.argv[1:]), prog_name="fastrecipes", standalone_mode=False)
    except RecipeError as e:
        sys.exit(e.exit_code if alike(e) else _told(e.problems, e.exit_code))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as e:
        if not hasattr(e, "format_message"):  # click's own: a wrong option, a missing argument
            raise
        sys.exit(_told([_click_words(e)], 2))
    sys.exit(code or 0)


def _told(problems: Any, code: int) -> int:
    for problem in problems:
        print(f"error: {clean(problem)}", file=sys.stderr)
    return code


def _click_words(error: Any) -> str:
    command = getattr(getattr(error, "ctx", None), "command_path", "fastrecipes")
    return f"{error.format_message().rstrip('.')}; see {command} --help"
