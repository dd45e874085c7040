// The frames of a comparison: input, both depths, a wipe between them, their difference; scrubbed without a server.
(() => {
  const PLAY_FPS = { least: 4, most: 15, photos: 4 };
  const RETRY_MS = 250;
  const TELL_MS = 300; // after scrubbing has stopped, colours by depth follow
  const NAMES = { input: "Input", wipe: "Wipe", difference: "Difference" };
  const sheets = new Map(); // address → image
  const strip = { root: null, tiles: {}, playing: false, wipe: 0.5, shown: -1, next: 0, told: 0 };
  const api = () => window.spark3r;
  const world = () => api()?.state.world;

  function build() {
    const holder = document.querySelector("#frame-strip [data-timeline]");
    strip.root = null;
    if (!holder || !world()) return;
    holder.replaceChildren();
    const tiles = make("div", "strip-tiles", holder);
    strip.tiles = {};
    for (const kind of ["input", "left", "right", "wipe", "difference"]) {
      const needs = { wipe: "difference" }[kind] ?? kind;
      if (world().kinds.includes(needs)) addTile(tiles, kind);
    }
    addControls(holder);
    strip.root = holder;
    strip.shown = -1;
    prefetch();
  }

  function make(tag, className, parent, text = "") {
    const made = document.createElement(tag);
    made.className = className;
    if (text) made.textContent = text;
    parent?.append(made);
    return made;
  }

  function addTile(parent, kind) {
    const figure = make("figure", "strip-tile", parent);
    figure.dataset.kind = kind;
    const canvas = make("canvas", "", figure);
    canvas.width = world().width;
    canvas.height = world().height;
    const name = NAMES[kind] ?? `${world().titles[kind]} depth`;
    make("figcaption", "", figure, name);
    if (kind === "difference") figure.title = "Difference of the two depth maps, as share of the scene's diagonal";
    strip.tiles[kind] = canvas.getContext("2d", { willReadFrequently: true });
    if (kind === "wipe") addWipe(canvas);
    else {
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", name);
    }
  }

  function addWipe(canvas) {
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider");
    canvas.setAttribute("aria-label", "Divider between the two depth maps");
    const set = (share) => {
      strip.wipe = Math.min(1, Math.max(0, share));
      canvas.setAttribute("aria-valuenow", Math.round(100 * strip.wipe));
      strip.shown = -1;
    };
    set(strip.wipe);
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    for (const name of ["pointerdown", "pointermove"]) {
      canvas.addEventListener(name, (event) => {
        const box = canvas.getBoundingClientRect();
        if (canvas.hasPointerCapture(event.pointerId)) set((event.clientX - box.left) / box.width);
      });
    }
    canvas.addEventListener("keydown", (event) => {
      const share = { ArrowLeft: strip.wipe - 0.05, ArrowRight: strip.wipe + 0.05, Home: 0, End: 1 }[event.key];
      if (share === undefined) return;
      event.preventDefault();
      set(share);
    });
  }

  function addControls(holder) {
    const side = make("div", "strip-side", holder);
    const buttons = make("div", "strip-buttons", side);
    strip.play = button(buttons, "play", "Play", () => setPlaying(!strip.playing));
    const following = strip.follow?.getAttribute("aria-pressed") ?? false;
    strip.follow = button(buttons, "follow", "Follow", () => {
      const on = strip.follow.getAttribute("aria-pressed") !== "true";
      strip.follow.setAttribute("aria-pressed", on);
      api().look(on ? "camera" : "fit");
      api().choose(api().state.frame);
    });
    strip.follow.id = "follow";
    strip.follow.setAttribute("aria-pressed", following);
    strip.follow.title = "Look through the camera of the chosen frame";
    strip.label = make("output", "strip-label", side);
    strip.legends = make("div", "strip-legends", side);
    strip.range = make("input", "strip-range", holder);
    Object.assign(strip.range, { type: "range", min: 0, max: world().frames - 1, step: 1, value: api().state.frame });
    strip.range.setAttribute("aria-label", "Frame");
    strip.range.addEventListener("input", () => {
      setPlaying(false);
      api().choose(Number(strip.range.value));
    });
    setPlaying(strip.playing && world().frames > 1);
  }

  function button(parent, className, text, pressed) {
    const made = make("button", className, parent, text);
    made.type = "button";
    made.setAttribute("aria-pressed", false);
    made.addEventListener("click", pressed);
    return made;
  }

  function setPlaying(on) {
    strip.playing = on;
    strip.play.textContent = on ? "Pause" : "Play";
    strip.play.setAttribute("aria-pressed", on);
  }

  function address(kind, frame) {
    const name = `${kind}-${Math.floor(frame / world().perSheet)}`;
    return world().sheets?.[name] ?? `${api().state.address}/${name}`;
  }

  function sheet(kind, frame) {
    const url = address(kind, frame);
    if (!sheets.has(url)) {
      const image = new Image();
      image.decoding = "async";
      image.addEventListener("load", () => { strip.shown = -1; });
      image.src = url;
      sheets.set(url, image);
    }
    return sheets.get(url);
  }

  const isMeasuring = () => document.querySelector("#progress .progress")?.dataset.phase === "measuring";
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  // The sheet at hand first, then all others one after the other, while nothing is timed: server and browser would take
  // part of the machine. Sheets of what is no longer shown are let go.
  async function prefetch() {
    const { perSheet, frames, kinds } = world();
    const mine = api().state.address;
    for (const url of sheets.keys()) if (!url.startsWith("data:") && !url.startsWith(`${mine}/`)) sheets.delete(url);
    const first = Math.floor(api().state.frame / perSheet);
    const count = Math.ceil(frames / perSheet);
    for (let i = 0; i < count; i += 1) {
      for (const kind of kinds) {
        while (isMeasuring()) await pause(RETRY_MS);
        if (api().state.address !== mine) return;
        const image = sheet(kind, ((first + i) % count) * perSheet);
        await image.decode().catch(() => {});
      }
    }
    if (api().state.address === mine) strip.root.dataset.ahead = "true"; // all frames are here
  }

  function place(frame) {
    const { perSheet, columns, frames, width, height } = world();
    const start = Math.floor(frame / perSheet) * perSheet;
    const wide = Math.min(columns, Math.min(perSheet, frames - start));
    const at = frame - start;
    return [(at % wide) * width, Math.floor(at / wide) * height, width, height];
  }

  function draw(context, kind, frame) {
    const image = sheet(kind, frame);
    if (!image.complete || !image.naturalWidth) return false;
    const [x, y, width, height] = place(frame);
    context.imageSmoothingEnabled = false;
    context.drawImage(image, x, y, width, height, 0, 0, width, height);
    if (kind === "difference") colour(context, "difference", (level) => {
      const root = (level - 1) / world().levels;
      return (root * root * world().topDifference * 100) / api().movedPercent();
    });
    else if (kind !== "input") colour(context, "depth", (level) => (level - 1) / world().levels);
    return true;
  }

  // Grey levels become colours; level 0 is where nothing is known.
  function colour(context, name, placeOf) {
    const steps = api().palette(name);
    const table = new Uint8Array(3 * 256).fill(110);
    for (let level = 1; level < 256; level += 1) {
      const at = Math.round(255 * Math.min(1, placeOf(level)));
      table.set(steps.subarray(3 * at, 3 * at + 3), 3 * level);
    }
    const pixels = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
    const { data } = pixels;
    for (let i = 0; i < data.length; i += 4) {
      const level = data[i];
      data[i] = table[3 * level];
      data[i + 1] = table[3 * level + 1];
      data[i + 2] = table[3 * level + 2];
    }
    context.putImageData(pixels, 0, 0);
  }

  function drawWipe(frame) {
    const context = strip.tiles.wipe;
    const { left, right } = strip.tiles;
    if (!context || !left || !right) return;
    const { width, height } = context.canvas;
    const at = Math.round(strip.wipe * width);
    context.drawImage(left.canvas, 0, 0);
    if (at < width) context.drawImage(right.canvas, at, 0, width - at, height, at, 0, width - at, height);
    context.fillStyle = "#fff";
    context.fillRect(at - 1, 0, 2, height);
  }

  function show() {
    const { frame } = api().state;
    const key = `${frame}|${api().movedPercent()}`;
    if (strip.shown === key) return false;
    let complete = true;
    for (const kind of world().kinds) if (strip.tiles[kind]) complete = draw(strip.tiles[kind], kind, frame) && complete;
    drawWipe(frame);
    strip.root.dataset.frame = frame;
    strip.root.dataset.complete = complete;
    strip.range.value = frame;
    const second = world().seconds[frame];
    strip.label.textContent = `Frame ${frame + 1} of ${world().frames}` + (isVideo() ? ` · ${second.toFixed(1)} s` : "");
    legends();
    if (complete) strip.shown = key;
    return complete;
  }

  const isVideo = () => world().seconds.some((second) => !Number.isInteger(second));

  function legends() {
    const [near, far] = world().scales.depth;
    const rows = [["depth", `${near.toFixed(2)}`, `${far.toFixed(2)} × diagonal`]];
    if (strip.tiles.difference) rows.push(["difference", "0", `${api().movedPercent()} % of diagonal`]);
    strip.legends.replaceChildren();
    for (const [name, low, high] of rows) {
      const row = make("div", "strip-legend", strip.legends);
      make("span", "", row, low);
      make("i", "", row).style.background = api().gradient(name);
      make("span", "", row, high);
    }
  }

  function rate() {
    const { seconds } = world();
    if (!isVideo() || seconds.length < 2) return PLAY_FPS.photos;
    const fps = (seconds.length - 1) / (seconds.at(-1) - seconds[0]);
    return Math.min(PLAY_FPS.most, Math.max(PLAY_FPS.least, fps));
  }

  // The server hears of the frame once scrubbing has come to rest: only colours by depth depend on it.
  function tell(now) {
    const { frame } = api().state;
    if (world().sheets) return; // a report has no server
    if (strip.told === frame) { strip.since = now; return; }
    if (strip.pending !== frame) { strip.pending = frame; strip.since = now; }
    if (now - strip.since < TELL_MS) return;
    strip.told = frame;
    const [, key] = api().state.address.split("/");
    fetch(`timeline/${key}/frame/${frame}`, { method: "POST" }).catch(() => { strip.told = -1; });
  }

  // True while frames are played or scrubbed.
  function beat(now) {
    if (!world()) return false;
    if (!strip.root?.isConnected) build();
    if (!strip.root) return false;
    if (strip.playing && now >= strip.next) {
      api().choose((api().state.frame + 1) % world().frames);
      strip.next = Math.max(strip.next + 1000 / rate(), now - 100);
    }
    const drew = show();
    tell(now);
    return drew || strip.playing;
  }
  document.addEventListener("spark3r:world", build);
  api().rhythm(beat);
})();
