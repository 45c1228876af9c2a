"""The end of the preflight: nothing found, or one refusal that says everything at once."""

from collections.abc import Iterable

from teleport.errors import RefusedError
from teleport.model import Finding
from teleport.preflight.advice import sentences

_LISTED_WHATS = 5


def refusal(findings: Iterable[Finding], *, what: str = "teleport refused") -> RefusedError:
    """The error that carries all findings, one or more, as rows (what, here, there, mend).

    Both sides look, so that many a thing is found twice, in other words: of those with the same `what` and `here` the first stays.

    The hint lists every mending command once, in the table's order, so that the whole block can be pasted; then what else is to be done.
    """
    firsts: dict[tuple[str, str], tuple[str, str, str, str]] = {}
    for each in findings:
        firsts.setdefault((each.what, each.here), (each.what, each.here, each.there, each.mend))
    rows = tuple(firsts.values())
    names = [row[0] for row in rows]
    listed = ", ".join(names[:_LISTED_WHATS])
    if len(names) > _LISTED_WHATS:
        listed += f" and {len(names) - _LISTED_WHATS} more"
    why = f"{'one finding' if len(rows) == 1 else f'{len(rows)} findings'}: {listed}"
    commands = dict.fromkeys(row[3] for row in rows if row[3])
    hints = [f"try: {' ; '.join(commands)}"] if commands else []
    return RefusedError(what, why, "; ".join((*hints, *sentences(rows))), findings=rows)


def require_none(findings: Iterable[Finding], *, what: str = "teleport refused") -> None:
    """Raises RefusedError with all findings, if there are any."""
    if found := tuple(findings):
        raise refusal(found, what=what)
