"""The rules in force while a process runs: read again when their file changes, one by one as good as they can be."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from alerts.rules import Rule, RuleSet, read_rules

log = logging.getLogger(__name__)


class RuleBook:
    """The rules in force: the file's, read again when it has changed; a broken rule stays as it last worked.

    A file counts as changed when two looks find it the same: while it is being written it may be empty, or end between
    two rules, and alerts of rules that are missing would be over. It is not told by its time of writing: a file that
    may be read at last, or that a backup brought back with its old time, has changed as well.

    Args:
        path: The rule file.
        host: The label `host` of alerts that other machines may have as well; empty for none.
    """

    def __init__(self, path: Path, host: str = "") -> None:
        self._path = path
        self._host = host
        self._seen: tuple[int, int, int] | None = None
        self._changing: tuple[int, int, int] | None = None
        self.current = RuleSet(path=path)

    def refresh(self) -> RuleSet:
        """The rules in force now."""
        try:
            stat = self._path.stat()
            seen = (stat.st_ctime_ns, stat.st_ino, stat.st_size)
        except OSError:
            seen = (0, 0, 0)
        if seen != self._seen and (self._seen is None or seen == self._changing):
            self._seen = seen
            self._adopt(read_rules(self._path))
        self._changing = seen
        return self.current

    def _placed(self, rule: Rule) -> Rule:
        if not self._host or rule.fleet or "host" in rule.labels:
            return rule
        return replace(rule, labels={**rule.labels, "host": self._host})

    def _adopt(self, fresh: RuleSet) -> None:
        fresh = replace(fresh, rules=tuple(map(self._placed, fresh.rules)))
        for problem in fresh.problems:
            log.error("%s", problem)
        names = {_identity(rule) for rule in fresh.rules}
        kept = [rule for rule in self.current.rules if fresh.lost(rule.alert) and _identity(rule) not in names]
        self.current = RuleSet((*fresh.rules, *kept), fresh.problems, fresh.path)
        log.info("%d alert rules in force from %s", len(self.current.rules), self._path)


def _identity(rule: Rule) -> tuple[str, tuple[tuple[str, str], ...]]:
    return rule.alert, tuple(sorted(rule.labels.items()))
