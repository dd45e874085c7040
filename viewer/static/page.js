// Keeps the two 3-D panes alive and quiet.
(() => {
  const CHECK_MS = 5000;
  const PATIENCE = 4; // checks in a row without a connection: a busy machine answers late
  // A pane without focus does not reconnect by itself after its socket dropped (a laptop that slept), so it is reloaded.
  async function revive(frame) {
    const answer = await fetch(`viewer/${frame.dataset.pane}/clients`, { cache: "no-store" });
    if (answer.status === 404) {
      frame.closest(".pane").dataset.state = "ended";
      return;
    }
    const lost = (await answer.json()).connected === 0;
    const misses = lost ? Number(frame.dataset.misses ?? 0) + 1 : 0;
    frame.dataset.misses = misses < PATIENCE ? misses : 0;
    if (misses === PATIENCE) frame.src = `viewer/${frame.dataset.pane}/`;
  }

  function panes() {
    return document.querySelectorAll("iframe.viewer");
  }

  setInterval(() => {
    for (const frame of panes()) {
      if (frame.contentDocument?.getElementById("webgl-software-rendering")) document.body.dataset.softwareGl = "yes";
    }
  }, 250);
  // Settings stand in the address, the session's key in the tab: a link reproduces, a reload restores.
  function note() {
    const known = document.getElementById("address");
    if (!known) return;
    sessionStorage.setItem("spark3r", known.dataset.tab);
    if (known.dataset.query && location.search !== known.dataset.query) history.replaceState(null, "", known.dataset.query);
  }

  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("[data-copy]");
    if (!button) return;
    navigator.clipboard?.writeText(button.dataset.copy);
    button.textContent = "Copied";
  });

  setInterval(note, 250);
  setInterval(() => {
    for (const frame of panes()) revive(frame).catch(() => { frame.dataset.misses = 0; }); // offline: ask again later
  }, CHECK_MS);
})();
