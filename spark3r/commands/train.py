"""`train FOLDER`"""

from dataclasses import dataclass

import tyro

from spark3r.training.config import TrainingConfig


@dataclass(frozen=True)
class Train:
    """Train the small model on rendered scenes; an interrupted run in the same FOLDER goes on where it stopped."""

    config: tyro.conf.OmitArgPrefixes[tyro.conf.PositionalRequiredArgs[TrainingConfig]]

    def run(self) -> None:
        """One run, logged by the loop itself."""
        from spark3r.models.families.mini import mini_config
        from spark3r.training.loop import train

        c = self.config
        train(c, mini_config(c.channels, c.pairs, c.patch, (c.height, c.width)))
