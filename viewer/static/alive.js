// Signs of life: the server keeps a tab's session as long as they come, and ends it soon after the goodbye.
(() => {
  const EVERY_MS = 2000;
  const PATIENCE_MS = 8000; // for one answer
  const page = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  let beat = 0; // signs may overtake each other on their way
  let known = false;

  const body = () => JSON.stringify({ beat: ++beat, key: sessionStorage.getItem("spark3r") ?? "" });

  async function live() {
    const answer = await fetch(`alive/${page}`, { method: "POST", body: body(), signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.ok) known = true;
    else if (answer.status === 404 && known) location.reload(); // away for longer than sessions are kept
  }

  function beats() {
    live().catch(() => {}); // offline: the next one may come through
  }

  addEventListener("pagehide", () => navigator.sendBeacon(`alive/${page}/bye`, body()));
  addEventListener("pageshow", ({ persisted }) => { if (persisted) beats(); });
  setInterval(beats, EVERY_MS);
  beats();
  window.spark3rPage = page; // named when the page opens its session
})();
