"""`models`"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from spark3r.commands.options import OutputOptions, shown_as
from spark3r.commands.report import Report, table
from spark3r.errors import InputError
from spark3r.estimate import needed_memory
from spark3r.formatting import byte_count
from spark3r.models.checkpoints import ModelCard, list_models
from spark3r.parity import Parity, check, oracles

FRAME_SIZE = (480, 640)  # height, width of the frames that memory is told for


@dataclass(frozen=True, kw_only=True)
class Models(OutputOptions):
    """List the models by name: size, download, memory, licences; or check them against the official networks."""

    frames: Annotated[int, shown_as("N")] = 32
    """Tell the memory for this many frames of 640x480; default: 32."""
    resolution: Annotated[int | None, shown_as("PIXELS")] = None
    """And for this resolution of the network's input; default: each model's own."""
    check: Annotated[Path | None, shown_as("DIR")] = None
    """Run every oracle file DIR/<model>/*.safetensors and print how near its numbers are; exit code 1 if one is not."""

    def run(self) -> None:
        """Prints the cards, or the check."""
        report = Report(self)
        if self.check is not None:
            run_check(self.check, report)
            return
        cards = list_models()
        memory = [needed_memory(card.name, self.frames, *FRAME_SIZE, self.resolution) for card in cards]
        rows = [
            {**asdict(card), "non_commercial": card.is_non_commercial, "needed_bytes": needed}
            for card, needed in zip(cards, memory, strict=True)
        ]
        report.answer(cards_text(cards, memory, self.frames), {"rows": rows})


def run_check(folder: Path, report: Report) -> None:
    """Every oracle of a folder; raises InputError if a number is out of tolerance."""
    results = []
    for path in oracles(folder):
        report.doing(f"checking {path.parent.name}/{path.name}")
        results.append(check(path))
    report.answer(check_text(results), {"rows": [result.to_json() for result in results]})
    failed = sum(not result.ok for result in results)
    if failed:
        raise InputError(f"{failed} of {len(results)} oracle files are not reproduced within tolerance")


def check_text(results: list[Parity]) -> str:
    """One line per oracle file."""
    rows = [(r.model, r.file, f"{r.worst_e:.1e}", f"{r.worst_r:.1e}", "ok" if r.ok else "FAILS") for r in results]
    return table(rows, ("model", "file", "worst e", "worst r", ""))


def cards_text(cards: tuple[ModelCard, ...], memory: list[int], frames: int) -> str:
    """One line per model, then what each is and under which licences it stands."""
    rows = [
        (
            card.name,
            f"{card.parameters / 1e6:.1f} M",
            "bundled" if card.bundled else byte_count(card.download_bytes),
            byte_count(needed),
            "CPU, GPU" if card.suits_cpu else "GPU",
            "no" if card.is_non_commercial else "yes",
        )
        for card, needed in zip(cards, memory, strict=True)
    ]
    header = ("model", "parameters", "download", f"memory, {frames} frames", "suits", "commercial")
    about = [
        f"{card.name}: {card.note}\n  code: {card.code_licence}\n  weights: {card.weights_licence}" for card in cards
    ]
    return "\n\n".join([table(rows, header), *about])
