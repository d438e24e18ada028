"""The command line: one typed function per verb; the work is done elsewhere."""

from __future__ import annotations

import os
import sys
import warnings

import typer
from rich.console import Console

from perdure.cli.banks import evaluate, list_concepts, remove, show
from perdure.cli.bench import bench
from perdure.cli.checking import verify
from perdure.cli.classify import classify
from perdure.cli.drawing import generate
from perdure.cli.exchange import adopt, export, push
from perdure.cli.learning import learn
from perdure.cli.suggesting import suggest
from perdure.cli.surroundings import demo, doctor, methods, smallworld
from perdure.errors import PerdureError

__all__ = ["app", "main"]

_INTERRUPTED = 130

app = typer.Typer(
    help="Teach one text-to-image model concept after concept; it keeps them all.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(suggest)
app.command()(learn)
app.command()(generate)
app.command("list")(list_concepts)
app.command()(show)
app.command()(remove)
app.command()(evaluate)
app.command()(export)
app.command()(adopt)
app.command()(push)
app.command()(bench)
app.command()(classify)
app.command()(methods)
app.command()(doctor)
app.command()(verify)
app.command()(smallworld)
app.command()(demo)


def main() -> None:
    """Entry point: what the user can mend is one sentence and exit status 2."""
    _quiet()
    try:
        status = app(standalone_mode=False)
    except PerdureError as error:
        status = _say(f"perdure: {error}", status=2)
    except typer.TyperException as error:
        status = _say(_misspelt(error), status=2)
    except BrokenPipeError:  # whoever read what is said has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _say(
            f"perdure: {where}{error.strerror or error}: check the disk's free space and your"
            " permissions, and try again.",
            status=2,
        )
    if status == _INTERRUPTED:
        _say(
            "Interrupted; nothing is lost. Go on with the same command, or after `perdure learn` "
            "with `perdure learn --resume`."
        )
    sys.exit(status)


def _say(sentence: str, *, status: int = 0) -> int:
    Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, markup=False)
    return status


def _misspelt(error: typer.TyperException) -> str:
    """Of a verb or an option that is none, or lacks its value; where none was named, the help."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if "\n" in message or context is None:
        return message
    return f"perdure: {message.rstrip('.')}: see `{context.command_path} --help`."


def _quiet() -> None:
    """Libraries' own progress bars and advice are not for perdure's users."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", module=r"(diffusers|transformers|torch)(\..*)?")
