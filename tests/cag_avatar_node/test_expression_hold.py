"""Bridging gaps: live, hold, decay, neutral, at known times."""

from __future__ import annotations

import numpy as np
import pytest

from cag_avatar_node.expression_hold import ExpressionHold, HoldConfig, HoldState
from cag_avatar_node.expression_validation import CheckedExpression

EXPRESSION = CheckedExpression(np.full(52, 0.8, np.float32), np.eye(4), 0)


def test_nothing_is_shown_before_a_face() -> None:
    hold = ExpressionHold(HoldConfig())
    assert hold.update(None, 1.0) is None
    assert hold.shown(100.0) is None
    assert hold.state(1.0) is HoldState.WAITING


def test_states_and_codes_over_time() -> None:
    hold = ExpressionHold(HoldConfig(hold_s=0.5, decay_s=1.0))
    live = hold.update(EXPRESSION, 10.0)
    assert live is not None
    assert live.state is HoldState.LIVE
    expected = {
        10.4: (HoldState.HOLD, 0.8),
        10.75: (HoldState.DECAY, 0.8 * (3 * 0.75**2 - 2 * 0.75**3)),
        11.0: (HoldState.DECAY, 0.4),
        11.5: (HoldState.NEUTRAL, 0.0),
        99.0: (HoldState.NEUTRAL, 0.0),
    }
    for now, (state, value) in expected.items():
        shown = hold.update(None, now)
        assert shown is not None
        assert shown.state is state, now
        np.testing.assert_allclose(shown.code, value, rtol=1e-5)
        assert shown.code.dtype == np.float32
        np.testing.assert_array_equal(shown.head_pose, np.eye(4))


def test_a_new_face_is_live_at_once() -> None:
    hold = ExpressionHold(HoldConfig(hold_s=0.1, decay_s=0.1))
    hold.update(EXPRESSION, 0.0)
    hold.update(None, 5.0)
    shown = hold.update(EXPRESSION, 5.1)
    assert shown is not None
    assert shown.state is HoldState.LIVE
    np.testing.assert_array_equal(shown.code, EXPRESSION.code)


def test_without_decay_neutral_comes_at_once() -> None:
    hold = ExpressionHold(HoldConfig(hold_s=0.0, decay_s=0.0))
    hold.update(EXPRESSION, 0.0)
    assert hold.state(0.01) is HoldState.NEUTRAL


def test_negative_times_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        HoldConfig(hold_s=-1.0)


def test_it_fades_to_the_avatars_own_rest() -> None:
    rest = np.full(52, 0.2, np.float32)
    hold = ExpressionHold(HoldConfig(hold_s=0.5, decay_s=1.0), rest)
    hold.update(EXPRESSION, 10.0)
    for now, value in {10.4: 0.8, 11.0: 0.5, 11.5: 0.2}.items():
        shown = hold.update(None, now)
        assert shown is not None
        np.testing.assert_allclose(shown.code, value, rtol=1e-5)
