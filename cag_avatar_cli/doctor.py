"""``cag-avatar doctor``."""

from __future__ import annotations

import json
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cag_avatar_node.doctor import Finding, diagnose, exit_code

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def command(
    port: int = 8008, json_output: Annotated[bool, tyro.conf.arg(name="json")] = False
) -> int:
    """Look for what would keep this machine from running the nodes; each problem with its fix.

    The exit code is 1 when there is a problem; warnings alone give 0.

    Args:
        port: that the display page is to have.
        json_output: print a list of objects (check, level, detail, fix) instead of a table.
    """
    findings = diagnose(port)
    if json_output:
        print(json.dumps([finding.as_dict() for finding in findings], indent=1))
    else:
        Console().print(_table(findings))
    return exit_code(findings)


def _table(findings: list[Finding]) -> Table:
    table = Table(show_lines=False)
    for column in ("check", "", "found", "fix"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        style = _STYLES[finding.level]
        table.add_row(
            finding.check,
            f"[{style}]{finding.level}[/]",
            escape(finding.detail),
            escape(finding.fix),
        )
    return table
