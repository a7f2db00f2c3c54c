"""The command `kresnets`.

A module beside the package: `import kresnets` brings Keras and TensorFlow, which takes seconds, and `kresnets --help`,
a typo in a verb, and shell completion shall not wait for them.
"""

import contextlib
import difflib
import importlib.metadata
import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read by TensorFlow's C++ when it is loaded

VERBS = {
    "finetune": "Fine-tune a network on your images.",
    "predict": "Name what is on images, with a run or an exported model.",
    "export": "Export a run as a SavedModel for TF Serving, or a file for another runtime.",
    "search": "Search how to fine-tune a network on your images.",
    "serve": "Serve an exported model as TF Serving would, to try it.",
    "compare": "Compare networks by what they cost and what is published of them.",
    "networks": "List networks and their published weights.",
    "weights": "Convert a PyTorch checkpoint of your own to .safetensors.",
}
_OPTIONS = ("--help", "-h", "--version", "--install-completion")


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    given[:] = argv
    program = f"kresnets {argv[0]}" if argv and argv[0] in VERBS else "kresnets"

    def run() -> Any:
        from cyclopts import CycloptsError

        if argv and argv[0] not in (*VERBS, *_OPTIONS):
            what, known = ("option", _OPTIONS) if argv[0].startswith("-") else ("verb", VERBS)
            close = difflib.get_close_matches(argv[0], known, n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(known)}."
            raise ValueError(f"There is no {what} {argv[0]!r}. {meant} See {program} --help.")
        if argv and argv[0] in VERBS:
            if argv[0] in ("predict", "export", "compare"):
                os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever a run was trained with
            import_tensorflow()
        app = make_app(argv[0] if argv else None)
        try:
            if argv and argv[0] in VERBS:
                options.update(name for one in app[argv[0]].assemble_argument_collection() for name in one.names)
            return app(argv, exit_on_error=False, print_error=False, result_action="return_value")
        except CycloptsError as error:
            error.verbose = False
            raise ValueError(f"{_sentence(error)} See {program} --help.") from None

    options.clear()
    try:
        end_with(run, program)
    finally:
        options.clear()  # what comes later in this process is Python's again


options: set[str] = set()  # of the verb that runs
_VALUE_OF = {"None": "none", "True": "yes", "False": "no"}
_ARGUMENT = re.compile(
    r"(?P<call>\b\w+\((?:[^()]|\([^()]*\))*\))|"  # a line of Python stays one
    r"`(?P<name>\w+)`|(?<![^\s(])(?<!\w\()(?P<given>[a-z]\w*)=(?P<value>'[^']*'|\"[^\"]*\"|[\w+-]+(\.\w+)*)"
)


def spelled(text: str) -> str:
    """Write the arguments that a text of the library names as the command spells them.

    Example:
        >>> options.update(("--weights", "--size"))
        >>> spelled("`size` is too small; pass weights=None or groups=2.")
        '--size is too small; pass --weights none or groups=2.'
    """

    def option(match: re.Match[str]) -> str:
        if match["call"]:
            return match[0]
        name = "--" + (match["name"] or match["given"]).replace("_", "-")
        if name not in options:
            return match[0]
        if match["name"]:
            return name
        value = match["value"].strip("'\"")
        return f"{name} {_VALUE_OF.get(value) or shlex.quote(value)}"

    if not options:
        return text
    return _ARGUMENT.sub(option, text.removeprefix("Recipe: "))


def log(level: int) -> None:
    """Show what the library logs, from a level on, as the command spells it."""
    logging.basicConfig(format="%(message)s")
    logger = logging.getLogger("kresnets")
    logger.setLevel(level)
    logger.addFilter(_as_spelled)


def _as_spelled(record: logging.LogRecord) -> bool:
    record.msg, record.args = spelled(record.getMessage()), ()
    return True


def make_app(asked: str | None = None) -> Any:
    """Return the `cyclopts.App` of the command; the help of the verb that is asked for is its own docstring.

    Only the module of that verb is imported: the others have their lines in `VERBS`.
    """
    from cyclopts import App, Parameter

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("kresnets")
    app = App(
        "kresnets",
        help="Residual networks and the fine-tuning recipe for Keras 3.",
        version=version,
        default_parameter=Parameter(allow_repeating=True),  # the last one holds: commands are repeated with more
        help_epilogue="`kresnets VERB --help` says what a verb takes.",
    )
    for verb, text in VERBS.items():
        app.command(f"kresnets.cli.{verb}:{verb}", name=verb, help=None if verb == asked else text)
    app.register_install_completion_command()
    return app


def command(*argv: str) -> list[str]:
    """Return the command line of a process that runs the command with these arguments.

    `python -m kresnets` imports the package, and with it TensorFlow, before `main` can choose its backend and quiet it.
    """
    return [sys.executable, "-c", "from kresnets_command import main; main()", *argv]


given: list[str] = []  # what `main` was given: a verb repeats it, in a child or in what it writes


def import_tensorflow() -> Any:
    """Import TensorFlow without the lines that its C++ prints before any log level applies, and return it."""
    with _stderr_closed():
        import tensorflow as tf

        tf.config.list_physical_devices()
        if os.environ.get("KERAS_BACKEND") == "jax":
            tf.config.set_visible_devices([], "GPU")  # it only reads images, and would take the memory that JAX needs
    tf.get_logger().setLevel("ERROR")
    return tf


def end_with(run: Callable[[], Any], program: str | None = None) -> NoReturn:
    """Call a function and end the process with what it returns as exit code (None: 0).

    What bad input raises (ValueError, OSError, RuntimeError, ImportError), and a training of NaN, is told in one line,
    with exit code 2; any other exception is a defect and keeps its traceback. Warnings are told in one line each.

    Example:
        >>> end_with(lambda: 0)
        Traceback (most recent call last):
        SystemExit: 0
    """
    program = program or os.path.basename(sys.argv[0])

    def show_warning(
        message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None
    ) -> None:
        print(f"{program}: warning: {_sentence(message)}", file=file or sys.stderr)

    warnings.showwarning = show_warning
    _open_streams()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    try:
        code = run() or 0
    except KeyboardInterrupt:
        if program.endswith(" finetune"):
            print(f"\n{program}: interrupted; the same command goes on after the last whole epoch.", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError, FloatingPointError) as error:
        tell(error, program, _sentence(error))
        code = 2
    except Exception as error:
        # TensorFlow's own errors (out of memory, a file gone since it was checked) have no base class in Python's.
        if not type(error).__module__.startswith("tensorflow."):
            raise
        tell(error, program, f"TensorFlow gave up ({type(error).__name__}): {_sentence(error).split(' [[')[0][:300]}")
        code = 2
    sys.exit(code)


def tell(error: BaseException, program: str, sentence: str) -> None:
    """Tell what ended the program; a process that another one watches tells that one instead (`listeners`)."""
    if not listeners:
        print(f"{program}: {sentence}", file=sys.stderr)
    for listener in listeners:
        listener(error, sentence)


listeners: list[Callable[[BaseException, str], None]] = []
_MOST = 4000  # characters of a sentence: a library's may hold a whole array


def _sentence(error: Any) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = " ".join(spelled(str(error)).split()) or type(error).__name__
    return text if len(text) <= _MOST else f"{text[:_MOST]} ..."


def _open_streams() -> None:
    """Give a stream that was closed by whoever started us (`>&-`) somewhere to go; in order, so with its own number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    # On the descriptor, not on sys.stderr: C++ writes past Python.
    _open_streams()
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
