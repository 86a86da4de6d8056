"""A fault is reported once it has lasted, again while it lasts, and at once if it is another one."""

from __future__ import annotations

from streams.kafka.faults import Faults


def test_a_fault_is_reported_after_its_grace_and_again_while_it_lasts() -> None:
    faults = Faults()
    reported = [now_s for now_s in range(0, 100, 2) if faults.lasts("lost", float(now_s), grace_s=3.0, repeat_s=30.0)]
    assert reported == [4, 34, 64, 94]
    assert faults.seconds("lost", 98.0) == 98.0


def test_a_fault_that_comes_back_soon_waits_for_its_time_and_another_one_does_not() -> None:
    """A connection that flaps is one fault; a later transaction that holds a partition is another."""
    faults = Faults()
    assert faults.lasts("lost", 10.0, grace_s=0.0)
    faults.end("lost")
    assert not faults.lasts("lost", 20.0, grace_s=0.0)
    faults.forget("lost")
    assert faults.lasts("lost", 21.0, grace_s=0.0)
    assert (faults.reported("lo"), faults.reported("held")) == (["lost"], [])
    faults.clear()
    assert faults.reported("") == []
    assert faults.is_due("lost", now_s=22.0)
