"""The command ``hccnet``: dispatch, exit statuses, and sentences instead of tracebacks."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

from HCCNetLib.commands.failures import refusal_of
from HCCNetLib.inference import NOTICE
from HCCNetLib.records import Refusal
from HCCNetLib.version import __version__

COMMANDS = (
    *("predict", "inspect", "train", "pretrain-backbone", "pretrain-encoder", "finetune", "evaluate", "explain-check"),
    *("bundle", "synthesize", "doctor"),
)

DONE, REFUSED, INTERRUPTED = 0, 1, 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``hccnet`` and all its subcommands."""
    parser = argparse.ArgumentParser(
        prog="hccnet",
        description=f"Risk of future hepatocellular carcinoma from a patient's time series of liver MRI exams. {NOTICE}",
    )
    parser.add_argument("--version", action="version", version=f"hccnet {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"HCCNetLib.commands.{name.replace('-', '_')}")
        subparser = subparsers.add_parser(name, help=module.HELP, description=f"{module.HELP.capitalize()}. {NOTICE}")
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``hccnet`` with the given arguments; returns the exit status: 0, 1 refused, 3 some patients refused."""
    try:
        arguments = build_parser().parse_args(argv)  # it imports torch: long enough to be interrupted
        return int(arguments.run(arguments))
    except Refusal as refusal:
        # A library that is interrupted may tell of an error of its own, and we of a file that is quite whole.
        return _tell_stopped() if _stop.requested else _refuse(refusal.message)
    except KeyboardInterrupt:
        return _tell_stopped()
    except BrokenPipeError:
        # The reader of our output (head, less) went away; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (MemoryError, OSError, RuntimeError) as error:
        told = refusal_of(error)
        if told is None:
            raise
        return _refuse(told.message)


class _Stop:
    """Whether somebody asked the command to end."""

    requested = False

    def request(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        self.requested = True
        raise KeyboardInterrupt


_stop = _Stop()


def _tell_stopped() -> int:
    print("hccnet: stopped; nothing half-written was left.", file=sys.stderr)
    return INTERRUPTED


def _refuse(message: str) -> int:
    print(f"hccnet: {message}", file=sys.stderr)
    return REFUSED


def entry_point() -> None:
    """The console script. A termination request cleans up as Ctrl-C does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal or pipe that has no '×' or '→' is no reason to stop
    signal.signal(signal.SIGTERM, _stop.request)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody, a shell say, wants it ignored
        signal.signal(signal.SIGINT, _stop.request)
    sys.exit(main())


if __name__ == "__main__":
    entry_point()
