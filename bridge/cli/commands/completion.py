"""`podbridge completion`: what a shell needs to complete our words."""

from __future__ import annotations

import click

_EXAMPLES = """
\b
Examples:
  source <(podbridge completion bash)                               this shell
  podbridge completion bash > ~/.local/share/bash-completion/completions/podbridge
  podbridge completion zsh > "${fpath[1]}/_podbridge"
  podbridge completion fish > ~/.config/fish/completions/podbridge.fish
"""


@click.command(epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, *, shell: str) -> None:
    """Print shell completion: commands, options and the names of runs."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    made = found(context.find_root().command, {}, "podbridge", "_PODBRIDGE_COMPLETE")
    # Not `source()`: for bash that looks for a bash here, which may not be where this is used.
    print(made.source_template % made.source_vars())
