"""What a config refuses."""

from typing import Any

import pytest

from focusvit.distill.logits import DistillConfig
from testkit.tiny_training import small


@pytest.mark.parametrize(
    ("distill", "said"),
    [
        ({"weight": 0.3}, "distill.weight would do nothing: set distill.teacher"),
        ({"hard": True, "temperature": 2.0}, "distill.temperature, distill.hard"),
        ({"regions": 0.2, "teacher": "t"}, "distill.regions would do nothing: distill.target is logits"),
        (
            {"weight": 0.3, "target": "features", "regions": 0.0},
            "distill.weight would do nothing: distill.target is features",
        ),
    ],
)
def test_a_setting_of_a_teacher_that_nobody_would_read_is_refused(distill: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(distill=DistillConfig(**distill))
    assert small(distill=DistillConfig(weight=0.3, teacher="t")).distill.weight == 0.3
