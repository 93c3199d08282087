"""The runner of the tools."""
import logging
import re
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

# Warnings of the hosts about their own code, which a user can do nothing about.
_HOSTS_OWN = re.compile('FileClient|HardDiskBackend|"function" registry|is duplicate. It is skipped')


@RUNNERS.register_module()
class QuietRunner(Runner):
    """A Runner that shows warnings and errors in the terminal; its log file holds everything."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the stock logger and raise the level of its console."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(max(handler.level, logging.WARNING))
                handler.addFilter(lambda record: not _HOSTS_OWN.search(record.getMessage()))
        return logger
