"""The frame of every tool: one line for an error of mmfreq's own, quiet warnings of the hosts."""
import os
import sys
import warnings
from typing import Callable

from tqdm import tqdm

from mmfreq.errors import RefusedError


def say(text: str) -> None:
    """Write a line on stderr that begins with the name of the program, as argparse does."""
    tqdm.write(f'{os.path.basename(sys.argv[0])}: {text}', file=sys.stderr)


def say_failed(name: object, error: Exception) -> None:
    """Write on one line which input failed, and why, where the others go on."""
    say(f'{name}: {type(error).__name__}: {" ".join(str(error).split())}')


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool's ``main``. Errors of a user's code and of the hosts keep their traceback.

    Raises:
        SystemExit: 2, after one line, for a RefusedError or a SystemExit with a message; 130 if the
            user interrupts the tool.
    """
    warnings.filterwarnings('ignore', module=r'mm(cv|det|engine|pretrain)\b')
    warnings.filterwarnings('ignore', message='.*(pin_memory|meshgrid|worker processes)')
    try:
        main()
    except KeyboardInterrupt:
        say('interrupted')
        raise SystemExit(130) from None
    except BrokenPipeError:
        pass
    except (RefusedError, SystemExit) as error:
        message = error.code if isinstance(error, SystemExit) else str(error)
        if not isinstance(message, str):
            raise
        say(f'error: {message}')
        raise SystemExit(2) from error
    finally:
        _flush()


def _flush() -> None:
    """Write buffered output while a closed pipe, as of ``mmfreq list | head``, can be caught."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
