from __future__ import annotations

from cag_avatar_node.stamp_order import Order, StampOrder

SECOND = 10**9


def test_stamps_must_grow_and_a_long_way_back_is_a_restart() -> None:
    order = StampOrder(restart_s=0.5)
    took = [
        order.take(stamp)
        for stamp in (
            10 * SECOND,
            10 * SECOND + 1,
            10 * SECOND + 1,
            10 * SECOND - SECOND // 4,
            3 * SECOND,
            3 * SECOND,
            4 * SECOND,
            0,
            -5 * SECOND,
        )
    ]
    newer, stale = Order.NEWER, Order.STALE
    assert took == [newer, newer, stale, stale, Order.RESTARTED, stale, newer, stale, stale]
    assert order.last == 4 * SECOND
    order.restart()
    assert order.take(SECOND) is newer
