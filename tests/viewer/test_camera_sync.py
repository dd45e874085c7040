"""Who leads when two linked panes report at once."""

from viewer.camera_sync import LeaderLock


def test_the_pane_that_moved_leads_until_it_rests() -> None:
    now = [0.0]
    lock = LeaderLock(hold_s=0.3, clock=lambda: now[0])
    assert lock.lead("left")
    now[0] = 0.2
    assert not lock.lead("right")  # an echo
    assert lock.lead("left")  # still dragging: the lead goes on
    now[0] = 0.45
    assert not lock.lead("right")
    now[0] = 0.55
    assert lock.lead("right")  # the left pane rested, now a hand is on the right one
    assert not lock.lead("left")
