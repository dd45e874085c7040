"""`models`"""

from dataclasses import asdict, dataclass

from spark3r.commands.options import OutputOptions
from spark3r.commands.report import Report, byte_count, table
from spark3r.models.checkpoints import ModelCard, list_models


@dataclass(frozen=True, kw_only=True)
class Models(OutputOptions):
    """List the models by name: size, download, licences."""

    def run(self) -> None:
        """Prints the cards."""
        cards = list_models()
        Report(self).answer(cards_text(cards), {"rows": [asdict(card) for card in cards]})


def cards_text(cards: tuple[ModelCard, ...]) -> str:
    """One line per model and one note per model."""
    rows = [
        (
            card.name,
            f"{card.parameters / 1e6:.1f} M",
            "bundled" if card.bundled else byte_count(card.download_bytes),
            card.code_licence,
            card.weights_licence,
            "CPU, GPU" if card.suits_cpu else "GPU",
        )
        for card in cards
    ]
    header = ("model", "parameters", "download", "code licence", "weights licence", "runs well on")
    return "\n\n".join([table(rows, header), *(f"{card.name}: {card.note}" for card in cards)])
