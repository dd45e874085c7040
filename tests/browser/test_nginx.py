"""The page behind nginx with TLS and a path, by the configuration in docs/nginx.conf."""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from spark3r.examples import list_clips
from tests.browser.conftest import COARSE, HURRIED, PROXIED_NAME, ROOT, START_SECONDS, free_port

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
WAIT_MS = 200_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.checkout,
    pytest.mark.skipif(not Path(NGINX).exists() or not shutil.which("openssl"), reason="no nginx or no openssl"),
]


def configuration(folder: Path, port: int, app_port: int) -> Path:
    """The documented one, with ports and a certificate of this test."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={PROXIED_NAME}",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    text = (ROOT / "docs" / "nginx.conf").read_text(encoding="utf-8")
    for ours, theirs in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/studio.example.pem", str(certificate)),
        ("/etc/ssl/studio.example.key", str(key)),
        ("127.0.0.1:7860", f"127.0.0.1:{app_port}"),
        ("http {", f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"),
    ):
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    path = folder / "nginx.conf"
    path.write_text(f"daemon off; pid {folder}/pid; error_log {folder}/error.log; user root;\n{text}")
    return path


def wait_for(url: str, app: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        assert app.poll() is None, "the app ended at its start"
        assert time.monotonic() < end, "the app did not come up"
        try:
            urllib.request.urlopen(url, timeout=20).close()
            return
        except OSError:
            time.sleep(0.5)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """nginx's port, with the app behind it; both have to end by themselves."""
    folder, port, app_port = tmp_path_factory.mktemp("nginx"), free_port(), free_port()
    environment = {**os.environ, "GRADIO_ROOT_PATH": "/spark3r", "SPARK3R_HURRIED_FRAMES": "4"}
    command = [sys.executable, str(HURRIED), "--port", str(app_port), "--allow-host", PROXIED_NAME]
    app = subprocess.Popen(command, env=environment)
    nginx = subprocess.Popen([NGINX, "-c", str(configuration(folder, port, app_port)), "-p", str(folder)])
    try:
        wait_for(f"http://127.0.0.1:{app_port}/", app)
        yield port
    finally:
        for process in (nginx, app):
            process.send_signal(signal.SIGTERM)
        assert app.wait(timeout=30) == 0
        nginx.wait(timeout=30)


def test_everything_works_behind_nginx(chromium: Browser, proxied: int, tmp_path: Path) -> None:
    context = chromium.new_context(ignore_https_errors=True, viewport={"width": 1440, "height": 900})
    context.add_init_script(COARSE)
    page, strayed = context.new_page(), []
    page.set_default_timeout(WAIT_MS)
    own = (f"https://{PROXIED_NAME}:{proxied}/spark3r/", f"wss://{PROXIED_NAME}:{proxied}/spark3r/", "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else strayed.append(request.url))
    page.goto(f"https://{PROXIED_NAME}:{proxied}/spark3r/?frames=4", wait_until="domcontentloaded")
    page.wait_for_function("document.querySelectorAll('iframe.viewer').length === 2")
    for side in ("left", "right"):  # their sockets are open
        page.wait_for_function(
            f"document.querySelector('#pane-{side} iframe')?.contentWindow?.__viserMutable?.cameraControl"
        )
    page.locator("#upload input[type=file]").first.set_input_files(str(list_clips()[1].video))
    page.wait_for_function("document.querySelector('#clip')?.innerText.includes('video.mp4')")
    page.click("#run")
    page.wait_for_selector("#progress .progress[data-phase=done]", state="attached")  # told by the stream
    with page.expect_download() as downloading:
        page.locator("#downloads a[download], #downloads a").first.click()
    got = tmp_path / "got"
    downloading.value.save_as(got)
    assert got.stat().st_size > 1000
    if picture := os.environ.get("SPARK3R_PICTURE"):
        page.screenshot(path=picture)
    context.close()
    assert [url for url in strayed if not url.endswith("/favicon.ico")] == []
