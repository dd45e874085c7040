"""Scripts: what of the page they may call, and that it works with gradio_client."""

from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from spark3r.examples import list_clips
from viewer import forgetting
from viewer.server import Running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(page: Running, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(page.url, download_files=tmp_path_factory.mktemp("got"), verbose=False)


def test_scripts_see_two_entrances_and_no_handler(client: Client) -> None:
    told = client.view_api(return_format="dict")
    assert isinstance(told, dict)
    assert sorted(told["named_endpoints"]) == ["/compare", "/reconstruct"]
    assert told["unnamed_endpoints"] == {}


def call(client: Client, name: str, frames: int = 4, suffix: str = ".ply"):
    clip = [handle_file(str(list_clips()[0].video))]
    return client.predict(clip, "mini", "2x4", frames, 64, suffix, api_name=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["/reconstruct", "/compare"])
def test_a_script_brings_a_clip_and_gets_numbers_and_a_file(
    name: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "KEPT_SECONDS", 0.0)  # nobody is forgotten who waits for an answer
    numbers, file = call(client, name)
    told = numbers if name == "/reconstruct" else numbers["rows"][1]
    assert told["frames"] == 4
    assert Path(file).read_bytes().startswith(b"ply\n")
    assert Path(file).name.endswith("_mini_q2-kv4.ply")


def test_what_a_script_cannot_have_is_one_sentence(client: Client) -> None:
    with pytest.raises(AppError, match=r"must be one of .*\.glb"):
        call(client, "/reconstruct", suffix=".exe")
    with pytest.raises(AppError, match="Max frames"):
        call(client, "/reconstruct", frames=0)
