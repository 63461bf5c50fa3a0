"""The command line: one module per group of commands, errors rendered in one place. Only here is typer (`typed`)."""
