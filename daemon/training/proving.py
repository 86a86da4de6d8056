"""What happens at the end of a version's probation: it is kept or withdrawn, and the ledger knows what it has brought."""

from __future__ import annotations

from daemon.operator.observer import Observer
from daemon.training.ledger import Ledger
from daemon.training.memory import Memory
from daemon.training.publisher import PROBLEMS
from model.judge.probation import Proof
from model.registry.versions import Registry


class Proving:
    """Goes back to the version before if the new one is worse on later rows, unless a person has pinned it."""

    def __init__(self, registry: Registry, ledger: Ledger, memory: Memory, observer: Observer) -> None:
        self._registry, self._ledger, self._memory, self._observer = registry, ledger, memory, observer

    def follow(self, proof: Proof | None, now_s: float) -> None:
        """Act on a proof, once.

        Args:
            proof: see Group.proof.
            now_s: UTC seconds.
        """
        if proof is None or self._memory.proved == proof.version:
            return
        self._memory.proved = proof.version
        self._ledger.proof(proof, now_s)
        fields = {"version": proof.version, "before": proof.before, "worse_by": round(proof.worse, 4)}
        if not proof.failed:
            self._observer.emit("version_proved", **fields)
            return
        self._memory.withdrawn()
        problem: str | None = "it stays: a person has pinned it, or another version is live by now"
        try:
            if self._registry.withdraw(proof.version, proof.before):
                problem = None
        except PROBLEMS as error:
            problem = str(error)
        if problem is None:
            self._observer.emit("version_withdrawn", **fields)
        else:
            self._observer.emit("version_worse", **fields, problem=problem)
