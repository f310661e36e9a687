"""The command: options → one library call → print. The only place that imports typer."""

from slimnet.cli.app import app, main, run
