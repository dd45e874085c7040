"""Token bookkeeping: one place adds specials to patches, and its views agree with each other."""

import pytest
import torch

from spark3r.tokens import TokenLayout


@pytest.mark.parametrize("layout", [TokenLayout(3, 2, (2, 5)), TokenLayout(1, 0, (1, 1)), TokenLayout(4, 5, (3, 3), 2)])
def test_the_views_of_a_layout_agree(layout: TokenLayout):
    x = torch.arange(layout.total)[None, :, None]
    special, patches = layout.split(x)
    assert special.numel() + patches.numel() == layout.total
    assert torch.equal(patches[0, ..., 0], layout.patch_tokens())
    assert torch.equal(layout.is_patch().nonzero()[:, 0], layout.patch_tokens().flatten())
    assert torch.equal(layout.joined(layout.framed(x)), x)
    assert layout.framed(x).shape[:2] == (layout.frames, layout.per_frame)


def test_nonsense_is_refused():
    for wrong in ({"frames": 0}, {"special": -1}, {"grid": (0, 3)}, {"reference": 3}):
        with pytest.raises(ValueError):
            TokenLayout(**{"frames": 3, "special": 1, "grid": (2, 2), "reference": 0, **wrong})
