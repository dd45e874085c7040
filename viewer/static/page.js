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

  // On a small screen the views start as one wipe pair.
  function fold() {
    const panes = document.getElementById("panes");
    const wipe = document.querySelector("[data-pane-tool=wipe]");
    if (!panes || !wipe || panes.dataset.folded || !matchMedia("(max-width: 1023px)").matches) return;
    panes.dataset.folded = "yes";
    if (panes.dataset.wipe !== "yes") wipe.click();
  }

  setInterval(note, 250);
  setInterval(fold, 500);
  setInterval(() => {
    for (const frame of panes()) revive(frame).catch(() => { frame.dataset.misses = 0; }); // offline: ask again later
  }, CHECK_MS);
})();

// The whole page takes a drop, the 3-D views too; a drop that misses never navigates away.
(() => {
  let depth = 0; // of nested enter events
  const overlay = document.createElement("div");
  overlay.className = "drop-overlay";
  overlay.textContent = "Drop a video, photos, a folder or a zip";

  function hasFiles(event) {
    return [...(event.dataTransfer?.types ?? [])].includes("Files");
  }

  function show(shown) {
    if (!overlay.isConnected) document.body.append(overlay);
    document.body.classList.toggle("dropping", shown);
    if (!shown) depth = 0;
  }

  async function filesIn(entry) {
    if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
    const reader = entry.createReader();
    const found = [];
    for (let batch; (batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))).length; ) {
      for (const inner of batch) found.push(...(await filesIn(inner)));
    }
    return found;
  }

  async function dropped(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = entries.length ? (await Promise.all(entries.map(filesIn))).flat() : [...transfer.files];
    document.querySelector("#upload button[aria-label=Clear]")?.click(); // what was chosen before makes room
    for (let wait = 0; wait < 40 && !document.querySelector("#upload input[type=file]"); wait++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const input = document.querySelector("#upload input[type=file]");
    if (!input || !files.length) return;
    const chosen = new DataTransfer();
    for (const file of files) if (!file.name.startsWith(".")) chosen.items.add(file);
    input.files = chosen.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  const listeners = {
    dragenter: () => { depth += 1; show(true); },
    dragover: () => {},
    dragleave: () => { depth -= 1; if (depth <= 0) show(false); },
    drop: (event) => { show(false); dropped(event.dataTransfer); },
  };

  function listen(target) {
    for (const [name, act] of Object.entries(listeners)) {
      target.addEventListener(name, (event) => {
        if (!hasFiles(event)) return;
        if (event.target.closest?.(".schedule")) return; // a schedule file has a field of its own
        event.preventDefault();
        event.stopPropagation();
        act(event);
      }, { capture: true });
    }
  }

  listen(window);
  const heard = new WeakSet(); // windows of panes swallow what is dragged over them
  setInterval(() => {
    for (const frame of document.querySelectorAll("iframe.viewer")) {
      const inner = frame.contentWindow;
      if (inner && frame.contentDocument?.readyState === "complete" && !heard.has(inner.document)) {
        heard.add(inner.document);
        listen(inner.document);
      }
    }
  }, 500);
})();
