"""What is checked of each data set: one module per family, and the list of them all.

A family is a module with a tuple `CHECKS` of `TreeCheck`; to add one, name it in `_FAMILIES`. The command line, the
choice of names and the table of published counts follow from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from data_tools.checks import image_sets, interactive, listed_apart, panoptic, reasoning, run_lengths
from data_tools.checks.report import Problem, Report, TreeCheck

__all__ = ["CHECKS", "TreeCheck", "Problem", "Report"]

_FAMILIES = (listed_apart, run_lengths, reasoning, panoptic, image_sets, interactive)
CHECKS: Mapping[str, TreeCheck] = {check.tree.name: check for family in _FAMILIES for check in family.CHECKS}
