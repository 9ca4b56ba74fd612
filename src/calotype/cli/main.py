"""The `calotype` command: its verbs, and how every outcome becomes a line and an exit status.

0 done; 2 the input is wrong, with one line that says what and the mend; 1 anything else. With `--json` stdout holds one
JSON object in every case.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from calotype.cli import (
    data,
    doctor,
    evaluate,
    export,
    failures,
    models,
    output,
    plan,
    quickstart,
    sample,
    train,
    verify_resume,
)

app = typer.Typer(
    name="calotype",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("quickstart")(quickstart.quickstart)
app.command("train")(train.train)
app.command("sample")(sample.sample)
app.command("evaluate")(evaluate.evaluate)
app.command("data")(data.data)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.command("models")(models.models)
app.command("export")(export.export)
app.command("verify-resume")(verify_resume.verify_resume)
app.command("import")(export.import_model)


def _show_version(wanted: bool) -> None:
    if wanted:
        from calotype import __version__

        typer.echo(f"calotype {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def calotype(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a folder of pictures to a latent diffusion model of your own."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return its exit status; never raises."""
    as_json = "--json" in arguments
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            command = typer.main.get_command(app)
            with command.make_context("calotype", list(arguments)) as context:
                command.invoke(context)
            sys.stdout.flush()
            return 0
        except typer.Exit as stop:
            return stop.exit_code
        except BrokenPipeError:
            output.discard_stdout()
            return 1
        except (Exception, KeyboardInterrupt) as error:
            failure = failures.explain(error)
            output.fail(failure.line, as_json=as_json)
            if type(error).__name__ == "LostProcessError":  # by name: its module would load torch here
                sys.stdout.flush()
                os._exit(failure.status)
            return failure.status


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    output.say(f"warning: {output.one_line(str(message))}")


def main() -> NoReturn:
    """Entry point of the console script."""
    # Read by OpenMP when torch is first loaded: threads that spin while they wait cost most of the speed as soon as
    # one other process is busy, and gain nothing measurable when none is.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(run(sys.argv[1:]))
