"""Settings as the page's address says them, so that a link reproduces a comparison; and as a command does."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from spark3r.reduction.schedule import ReductionSchedule
from viewer.request import Clip
from viewer.runs import KeptRun
from viewer.state import ReductionSettings, SamplingSettings

# {word of the address: (setting, what it is read as)}
WORDS: dict[str, tuple[str, type]] = {
    "q": ("query_factor", int),
    "kv": ("kv_factor", int),
    "mode": ("mode", str),
    "policy": ("policy", str),
    "group": ("group_size", int),
    "boost": ("kv_boost", int),
    "model": ("model", str),
    "frames": ("max_frames", int),
    "fps": ("fps", float),
    "size": ("resolution", int),
}
ALWAYS = ("q", "kv", "model")


def query(clip: Clip | None, values: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """The address's query for these settings; what is as usual is left out."""
    words = {"clip": clip.example} if clip is not None and clip.example else {}
    for word, (name, _) in WORDS.items():
        if word in ALWAYS or values[name] != usual[name]:
            words[word] = values[name]
    if words.get("mode") == "file":  # a file does not travel with a link
        del words["mode"]
    return "?" + urlencode({word: f"{value:g}" if isinstance(value, float) else value for word, value in words.items()})


def read_query(text: str) -> tuple[str, dict[str, Any]]:
    """(name of an example clip or "", {setting: value}) of an address; what is no setting is passed over."""
    words = dict(parse_qsl(text.lstrip("?")))
    settings: dict[str, Any] = {}
    for word, (name, kind) in WORDS.items():
        try:
            if word in words:
                settings[name] = kind(words[word])
        except ValueError:
            continue
    return words.get("clip", ""), settings


def command(run: KeptRun) -> str:
    """The command that makes this comparison, as a shell takes it."""
    sampling: SamplingSettings = run.input.sampling
    parts = ["python", "-m", "spark3r", "compare", str(_source(run.input.clip))]
    parts += ["--model", sampling.model, "--max-frames", str(sampling.max_frames)]
    if sampling.fps:
        parts += ["--fps", f"{sampling.fps:g}"]
    if sampling.resolution:
        parts += ["--resolution", str(sampling.resolution)]
    if run.settings.mode != "file" and _is_unusual(run.schedule):  # there are no flags for it, so a file is written
        written = shlex.join(["printf", "%s", run.schedule.to_json()]) + " > schedule.json"
        return f"{written} && {shlex.join([*parts, '--schedule', 'schedule.json'])}"
    return shlex.join([*parts, *_reduction(run.settings, run)])


def _source(clip: Clip) -> Path:
    """What holds the clip: one path, so the folder where it is several files."""
    return clip.paths[0] if len(clip.paths) == 1 else clip.paths[0].parent


def _is_unusual(schedule: ReductionSchedule) -> bool:
    usual = ReductionSchedule()
    return schedule.group_size != usual.group_size or (schedule.kv_factor > 1 and schedule.kv_boost != usual.kv_boost)


def _reduction(settings: ReductionSettings, run: KeptRun) -> list[str]:
    if settings.mode == "auto":
        return ["--schedule", "auto"]
    if settings.mode == "file":
        return ["--schedule", settings.file]
    schedule = run.schedule
    if run.policy != "spark3r":
        return ["--schedule", schedule.word]
    return ["--query-factor", str(schedule.query_factor), "--kv-factor", str(schedule.kv_factor)]
