"""What one rank sees of each collective, on parts of uneven length."""

import torch

from spark3r.ranks import Ranks


def main(rank: int, size: int) -> dict[str, bool]:
    """{what: whether it is as the whole says}."""
    ranks, counts = Ranks(), [3, 0, 1, 2][:size]
    starts = [sum(counts[:r]) for r in range(size + 1)]
    found = {}
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        whole = (torch.arange(2 * starts[-1] * 3).view(2, starts[-1], 3) % 7).to(dtype)
        mine = whole[:, starts[rank] : starts[rank + 1]]
        found[f"gather {dtype}"] = torch.equal(ranks.gather(mine, counts, dim=1), whole)
        passed = dict(ranks.ring(mine, counts, dim=1))
        parts = [torch.equal(passed[r], whole[:, starts[r] : starts[r + 1]]) for r in range(size)]
        found[f"ring {dtype}"] = all(parts) and next(iter(passed)) == rank
        order = [starts[-1] - 1, *range(starts[-1] - 1)]  # the last frame first, as a reference is put in front
        moved = ranks.exchange(mine[0], starts, order)
        found[f"exchange {dtype}"] = torch.equal(moved, whole[0][order][starts[rank] : starts[rank + 1]])
    found["any"] = ranks.any(rank == size - 1) and not ranks.any(False)
    found["sum"] = float(ranks.sum(torch.tensor([1.0 + rank]))) == size * (size + 1) / 2
    found["counted"] = (ranks.traffic.all.bytes > 0) == (size > 1)
    return found
