"""Methods beside each other in numbers, as a LaTeX table."""

import re
import textwrap
from collections.abc import Mapping, Sequence

from perdure.measuring.tables import MINUS, MISSING, Best, Column, cells

__all__ = ["escape", "latex_table"]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    MINUS: "$-$",
    MISSING: "--",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def escape(text: str) -> str:
    """Plain text as LaTeX."""
    return re.sub(".", lambda sign: _SPECIAL.get(sign[0], sign[0]), text, flags=re.DOTALL)


def latex_table(
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[Column],
    *,
    caption: str,
    label: str,
    first: str = "Method",
    best: Best | None = None,
) -> str:
    """`cells` as a table of booktabs, as wide as the text; the best of a column bold."""
    heads = [
        _stacked(c.title, r"$\uparrow$" if c.higher_is_better else r"$\downarrow$") for c in columns
    ]
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{{label}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join([escape(first), *heads]) + r" \\",
        r"\midrule",
        *(
            " & ".join([escape(name), *(_cell(*cell) for cell in row)]) + r" \\"
            for name, row in cells(rows, columns, best).items()
        ),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str, best: bool) -> str:
    if text == MISSING:
        return "--"
    inner = text.replace(MINUS, "-").replace(",", "{,}")
    mean, _, spread = inner.partition(" ± ")
    if best:
        mean = rf"\mathbf{{{mean}}}"
    return f"${mean} \\pm {spread}$" if spread else f"${mean}$"


def _stacked(title: str, arrow: str) -> str:
    text = r"\\".join(escape(part) for part in textwrap.wrap(title, 14))
    return rf"\shortstack[r]{{{text} {arrow}}}"
