"""Weights from the hub (a stand-in on this machine), from official files on disk, and every way this can fail."""

import errno
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from spark3r import Cancelled, CheckpointError, list_models, load_model
from spark3r.models import checkpoints, hub, registry
from spark3r.models.checkpoints import load_weights, save_checkpoint
from spark3r.models.family import Entry, Family
from spark3r.models.registry import ENTRIES
from spark3r.parity.check import read_oracle
from spark3r.parity.sizes import BUILDERS
from tests.models.hub_server import Hub, serving

GOLDEN = Path(__file__).parents[1] / "golden" / "parity"
OFFICIAL_PREFIX = {"vggt": "", "pi3": "", "pi3x": "", "vggt_omega": "", "da3": "model."}
CPU = torch.device("cpu")
NAME, FILE = "da3-small", "depth-anything/DA3-SMALL/model.safetensors"


def small(model: str) -> tuple[Entry, dict[str, Tensor]]:
    """A family at the size of its small oracle, and the tensors of its file in exactly the official layout."""
    facts, _, state = read_oracle(GOLDEN / model / "tiny_s.safetensors")
    config, converter = BUILDERS[model](facts)
    named = {f"{OFFICIAL_PREFIX[model]}{name}": tensor.contiguous() for name, tensor in state.items()}
    card = replace(ENTRIES["vggt-omega" if model == "vggt_omega" else NAME].card, download_bytes=1000)
    return Entry(card, config, converter, ENTRIES[NAME].sources), named


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The file the hub has; DA3-Small is of its size for the time of a test."""
    entry, state = small("da3")
    monkeypatch.setitem(ENTRIES, NAME, entry)
    return save(state)


@pytest.fixture
def server(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(Hub({FILE: weights})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def load() -> torch.nn.Module:
    return load_model(NAME, "cpu", "float32")


def test_a_named_model_is_fetched_once_and_then_comes_from_the_cache(server: Hub, weights: bytes):
    seen: list[tuple[int, int]] = []
    network = load_model(NAME, "cpu", "float32", progress=lambda done, whole: seen.append((done, whole)))
    assert network.config == ENTRIES[NAME].config
    assert seen[-1] == (len(weights), len(weights))
    asked = len(server.requests)
    load()
    assert len(server.requests) == asked


def test_a_cut_connection_is_resumed(server: Hub, monkeypatch: pytest.MonkeyPatch, weights: bytes):
    monkeypatch.setattr("spark3r.models.fetch._CHUNK", 1 << 16)
    server.cut_after = len(weights) // 2
    load()
    resumed = [span for method, _, span in server.requests if method == "GET" and span]
    assert len(resumed) == 1
    assert int(resumed[0].removeprefix("bytes=").rstrip("-")) > 0


def test_a_cancelled_download_goes_on_where_it_stopped(server: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spark3r.models.fetch._CHUNK", 1 << 16)
    seen: list[int] = []
    with pytest.raises(Cancelled):
        load_model(NAME, progress=lambda done, whole: seen.append(done), cancel=lambda: len(seen) >= 3)
    load()  # after the one that was stopped has let go
    assert len(seen) == 3
    spans = [span for method, _, span in server.requests if method == "GET"]
    assert spans[0] == ""
    assert spans[1] != ""


def test_a_download_from_a_hub_that_fell_silent_is_stopped_at_once(server: Hub, monkeypatch: pytest.MonkeyPatch):
    """And goes on afterwards, as soon as the one that still waits has let go."""
    monkeypatch.setattr("spark3r.models.fetch._CHUNK", 1 << 10)
    server.silent, heard = threading.Event(), []

    def has_waited() -> bool:
        return bool(heard) and time.monotonic() > heard[-1] + 0.5

    with pytest.raises(Cancelled):
        load_model(NAME, progress=lambda done, whole: heard.append(time.monotonic()), cancel=has_waited)
    took = time.monotonic() - heard[-1]
    server.silent.set()
    assert took < 6.0  # the network itself would have been waited for ten seconds
    load()


def test_a_second_download_of_a_file_waits_for_the_first(server: Hub):
    def asked(method: str) -> int:
        return sum(each == method for each, *_ in server.requests)

    def has_waited() -> bool:
        if asked("HEAD") > heads and not waits:
            waits.append(time.monotonic())
        return bool(waits) and time.monotonic() > waits[0] + 1.0

    server.silent, waits = threading.Event(), []
    first = threading.Thread(target=load)
    first.start()
    while not asked("GET"):
        time.sleep(0.01)
    heads = asked("HEAD")
    with pytest.raises(Cancelled):
        load_model(NAME, cancel=has_waited)
    assert asked("GET") == 1
    server.silent.set()
    first.join(60)
    load()
    assert asked("GET") == 1


@pytest.mark.parametrize("device", ["mps", "meta", "cuda:99", "hpu", "tpu", "cpu:one", "", "\0", "c" * 5000])
def test_a_device_that_is_not_there_is_one_sentence(device: str):
    with pytest.raises(CheckpointError) as caught:
        checkpoints.pick_device(device)
    assert str(caught.value).startswith("device=")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "", r"refuses model\.safetensors .*HTTP 401.*check HF_TOKEN"),
        (401, "RepoNotFound", r"refuses model\.safetensors .*HTTP 401.*check HF_TOKEN"),
        (403, "", r"HTTP 403"),
        (403, "GatedRepo", r"gated: accept its licence at https://huggingface\.co/.*HF_TOKEN"),
        (404, "RepoNotFound", r"HTTP 404.*HF_ENDPOINT"),
        (404, "EntryNotFound", r"has no model\.safetensors in depth-anything/DA3-SMALL any more"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(server: Hub, status: int, code: str, says: str):
    server.refuse, server.error_code = status, code
    with pytest.raises(CheckpointError, match=says) as caught:
        load()
    assert str(caught.value).startswith("da3-small: ")
    assert "\n" not in str(caught.value)


def test_a_connection_that_keeps_breaking_is_given_up_and_kept(server: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("spark3r.models.fetch._LONGEST_PAUSE", 0.01)
    server.cut_after, server.cuts = 1, 100
    with pytest.raises(CheckpointError, match=r"no connection to the hub, or it broke off.*goes on where it stopped"):
        load()
    server.cuts = 0
    load()


def test_an_empty_answer_is_not_taken_for_weights(server: Hub):
    server.files[FILE] = b""
    with pytest.raises(CheckpointError, match=r"does not answer as a hub does"):
        load()


def test_a_file_damaged_on_the_way_is_refused(server: Hub):
    server.corrupt = True
    with pytest.raises(CheckpointError, match=r"its checksum differs.*try again"):
        load()
    server.corrupt = False
    load()


def test_the_next_source_is_tried_where_the_hub_lacks_a_file(
    server: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch
):
    (source,) = ENTRIES[NAME].sources
    other = replace(source, file="elsewhere.safetensors")
    monkeypatch.setitem(ENTRIES, NAME, replace(ENTRIES[NAME], sources=(other, source)))
    load()


def test_no_network_is_said_at_once(server: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"no connection to the hub.*give the path of a local copy"):
        load()


def test_offline_mode_uses_the_cache_only(server: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"not in the cache and HF_HUB_OFFLINE is set"):
        load()
    assert not server.requests
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    load()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    load()


def test_a_disk_too_small_is_said_before_the_download(server: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(CheckpointError, match=r"disk is full.*set HF_HOME to a folder on a larger disk"):
        load()
    assert not server.requests


def test_a_disk_that_fills_up_underway_is_said(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    actual = Path.open

    def full(path: Path, *args: Any, **kwargs: Any) -> IO[Any]:
        if path.is_relative_to(tmp_path):  # the cache; modules imported on the way are still read
            raise OSError(errno.ENOSPC, "No space left on device")
        return actual(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match=r"disk is full"):
        load()


@pytest.mark.parametrize("content", [b"<html>Sign in</html>", b"PK\x03\x04 no zip"], ids=["page", "zip"])
def test_a_file_that_holds_no_weights_is_said_to_be_damaged(server: Hub, content: bytes):
    server.files[FILE] = content
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged.*delete .* and fetch it again"):
        load()


def test_a_truncated_file_is_said_to_be_incomplete(weights: bytes, tmp_path: Path):
    for kind, content in (("safetensors", weights), ("pt", pickled(tmp_path, small("vggt")[1]))):
        path = tmp_path / f"half.{kind}"
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match=rf"half\.{kind} is damaged, incomplete"):
            load_model(path)


def pickled(folder: Path, state: object) -> bytes:
    torch.save(state, folder / "state.pt")
    return (folder / "state.pt").read_bytes()


@pytest.mark.parametrize("model", ["vggt", "pi3", "pi3x", "vggt_omega", "da3"])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_official_file_becomes_a_network(model: str, kind: str, dtype: torch.dtype, tmp_path: Path):
    entry, state = small(model)
    path = tmp_path / f"model.{kind}"
    path.write_bytes(save(state) if kind == "safetensors" else pickled(tmp_path, state))
    network = load_weights(path, entry.config, entry.converter, CPU, dtype)
    assert network.dtype == dtype
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    path.unlink()  # nothing refers to the file any more
    images = torch.rand(1, 2, 3, 3 * entry.config.patch, 2 * entry.config.patch)
    with torch.inference_mode():
        prediction = network(images)
    assert all(torch.isfinite(value).all() for value in (prediction.depth, prediction.world_from_camera))


def test_a_folder_as_the_hub_lays_it_out_is_taken(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "FAMILIES", (Family((), lambda shapes: ENTRIES[NAME]),))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert load_model(tmp_path, "cpu").config.name == "da3"


def test_weights_of_no_known_family_are_refused(tmp_path: Path):
    (tmp_path / "other.safetensors").write_bytes(save({"conv.weight": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"no model that Spark3R knows"):
        load_model(tmp_path / "other.safetensors")


def test_a_wrong_tensor_is_named_with_its_family(tmp_path: Path):
    entry, state = small("vggt")
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({name: x for name, x in state.items() if not name.endswith("frame_blocks.1.ls1.gamma")}))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit vggt: 1 tensors missing.*ls1\.gamma"):
        load_weights(path, entry.config, entry.converter, CPU, torch.float32)


def test_a_pickle_with_code_is_refused(tmp_path: Path):
    path = tmp_path / "model.pt"
    torch.save({"model": Path.cwd()}, path)
    with pytest.raises(CheckpointError, match=r"model\.pt is damaged, incomplete or no file of weights"):
        load_model(path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CheckpointError, match=r"no model 'vgtt': must be one of mini, da3-small, .* or the path"):
        load_model("vgtt")


def test_what_is_saved_is_what_is_loaded(tmp_path: Path):
    network = checkpoints.random_model("mini", "cpu", "float32")
    save_checkpoint(network, tmp_path / "mine.safetensors", dtype=torch.float32)
    again = load_model(tmp_path / "mine.safetensors", "cpu", "float32")
    assert again.config == network.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_every_card_says_what_a_person_must_know():
    cards = {card.name: card for card in list_models()}
    assert list(cards) == [
        "mini", "da3-small", "da3-base", "da3-large", "da3-giant", "vggt", "vggt-commercial", "pi3", "pi3x",
        "vggt-omega",
    ]  # fmt: skip
    assert {name for name, card in cards.items() if card.suits_cpu} == {"mini", "da3-small", "da3-base"}
    assert all("step up" in cards[name].note for name in ("da3-small", "da3-base"))
    for name in ("da3-large", "da3-giant", "vggt", "pi3", "pi3x", "vggt-omega"):
        assert "non-commercial" in cards[name].weights_licence.lower()
    for name, card in cards.items():
        assert (card.download_bytes == 0) == card.bundled == (name == "mini")


def test_the_bundled_model_is_there_and_is_what_its_card_says():
    mini = load_model("mini", "cpu", "float32")
    (card,) = (card for card in list_models() if card.bundled)
    assert sum(parameter.numel() for parameter in mini.parameters()) == card.parameters
