// The two 3-D views as one instrument: linked cameras, views, wipe, full screen, legends, the highlighted camera.
//
// The views are viser's own pages in frames of this origin, so their cameras can be read and set here, without a
// server between. viser 1.1 keeps what is needed in window.__viserMutable; without it the panes merely stand alone.
(() => {
  const SIDES = ["left", "right"];
  const CAMERAS = "/cameras";
  const HIGHLIGHT = `${CAMERAS}/highlight`;
  const OUT_OF_SIGHT = 1e4;
  const POINTS = { handheld: 250, gpu: 600 }; // thousands
  const SAME = 1e-5; // of a pose: below is rounding
  const REST_MS = 60; // a hand does not notice
  const SETTLED_MS = 500;
  const MOVED = ["difference", "error"];
  const state = { world: null, address: "", baseline: "", frame: 0, wipe: 0.5, nearRatio: { left: 0, right: 0 }, known: {} };

  // viser's own panel and notices would cover half of a pane; what they offer stands in the page's toolbar.
  const PANE_STYLE = ".mantine-Paper-root, #webgl-software-rendering { display: none !important; }";

  function dress(frame) {
    const page = frame?.contentDocument;
    if (!page?.head || page.getElementById("spark3r-style")) return;
    page.head.append(Object.assign(page.createElement("style"), { id: "spark3r-style", textContent: PANE_STYLE }));
  }

  const panes = () => document.getElementById("panes");
  const frameOf = (side) => document.querySelector(`#pane-${side} iframe.viewer`);
  const viewOf = (side) => {
    try {
      return frameOf(side)?.contentWindow?.__viserMutable ?? null;
    } catch {
      return null; // the frame is being loaded
    }
  };
  const isLive = (view) => Boolean(view?.cameraControl && view.nodeRefFromName?.["/cloud"]);
  const isLinked = () => document.querySelector("#linked input")?.checked ?? true;

  // three.js has y up, the scene z up: viser turns the root node.
  const turned = (q, [x, y, z]) => {
    const [tx, ty, tz] = [2 * (q.y * z - q.z * y), 2 * (q.z * x - q.x * z), 2 * (q.x * y - q.y * x)];
    return [
      x + q.w * tx + q.y * tz - q.z * ty,
      y + q.w * ty + q.z * tx - q.x * tz,
      z + q.w * tz + q.x * ty - q.y * tx,
    ];
  };

  function poseOf(view) {
    const { cameraControl: controls } = view;
    const target = controls.getTarget(undefined, false);
    return [...controls.camera.position.toArray(), target.x, target.y, target.z, controls.camera.fov];
  }

  function setPose(view, pose) {
    const { cameraControl: controls } = view;
    controls.setLookAt(...pose.slice(0, 6), false);
    controls.camera.fov = pose[6];
    controls.camera.updateProjectionMatrix();
    controls.update(0);
    view.requestRender();
    view.sendCamera?.();
  }

  // Calls `act` with every drawn frame while it says that something moves and for a while after, else now and then: an idle
  // page lets the machine rest, which may be measuring.
  function rhythm(act) {
    let moved = -Infinity;
    (function beat() {
      const now = performance.now();
      if (act(now)) moved = now;
      if (now - moved < SETTLED_MS) requestAnimationFrame(beat);
      else setTimeout(beat, REST_MS);
    })();
  }

  const differs = (a, b) => !a || a.some((value, i) => Math.abs(value - b[i]) > SAME * (1 + Math.abs(value)));

  // What moved last leads; a view that has just come takes the place of the one that was there. True where any did.
  function link() {
    const live = SIDES.filter((side) => isLive(viewOf(side)));
    for (const side of SIDES) if (!live.includes(side)) delete state.known[side];
    const poses = Object.fromEntries(live.map((side) => [side, poseOf(viewOf(side))]));
    const moved = live.filter((side) => state.known[side] && differs(state.known[side], poses[side]));
    const fresh = live.filter((side) => !state.known[side]);
    let leader = moved[0];
    if (!leader && fresh.length && live.length === 2) leader = live.find((side) => !fresh.includes(side)) ?? live[0];
    for (const side of live) {
      if (leader && side !== leader && (isLinked() || isWiped()) && (moved.length < 2 || fresh.includes(side))) {
        setPose(viewOf(side), poses[leader]);
        state.nearRatio[side] = state.nearRatio[leader];
        poses[side] = poses[leader];
      }
      state.known[side] = poses[side];
      cut(side);
    }
    return Boolean(leader);
  }

  // Walls between the eye and the scene are not drawn; the share is kept while the visitor orbits and zooms.
  function cut(side) {
    const view = viewOf(side);
    const { camera, distance } = view.cameraControl;
    const near = Math.max(0.005, state.nearRatio[side] * distance);
    if (Math.abs(camera.near - near) < 0.01 * near) return;
    camera.near = near;
    camera.updateProjectionMatrix();
    view.requestRender();
  }

  function look(name, sides = SIDES) {
    for (const side of sides) {
      const view = viewOf(side);
      if (!isLive(view) || !state.world) continue;
      const chosen = name === "camera" ? cameraLook(side) : lookFor(name, side);
      if (!chosen) continue;
      const root = view.nodeRefFromName[""].quaternion;
      state.nearRatio[side] = chosen.nearRatio;
      setPose(view, [...turned(root, chosen.position), ...turned(root, chosen.lookAt), (chosen.fov * 180) / Math.PI]);
      state.known[side] = poseOf(view);
      cut(side);
    }
  }

  const aspectOf = (side) => frameOf(side).clientWidth / Math.max(1, frameOf(side).clientHeight);

  // Linked views look alike, so that the narrower pane decides.
  function lookFor(name, side) {
    const aspect = isLinked() || isWiped() ? Math.min(...SIDES.filter(frameOf).map(aspectOf)) : aspectOf(side);
    const fitting = state.world.looks[name].filter((entry) => entry.aspect <= aspect);
    return fitting.at(-1) ?? state.world.looks[name][0];
  }

  function cameraOf(side) {
    const cameras = state.world?.cameras;
    return cameras?.[side]?.[state.frame] ?? null;
  }

  function cameraLook(side) {
    const camera = (isLinked() && cameraOf("left")) || cameraOf(side);
    if (!camera) return null;
    const [w, x, y, z, ...position] = camera;
    const forward = turned({ w, x, y, z }, [0, 0, 0.5]);
    const lookAt = position.slice(0, 3).map((value, i) => value + forward[i]);
    return { position: position.slice(0, 3), lookAt, fov: camera[7], nearRatio: 0.2 };
  }

  function place(view, node, changes) {
    const pose = view.nodePoseData[node];
    if (!pose || Object.entries(changes).every(([name, value]) => !differs(pose[name], value))) return;
    Object.assign(pose, changes, { poseUpdateState: "needsUpdate" });
    view.requestRender();
  }

  // The camera of the chosen frame stands out; to one who looks through it, drawn cameras would be in the way.
  function highlight() {
    for (const side of SIDES) {
      const view = viewOf(side);
      if (!isLive(view)) continue;
      place(view, CAMERAS, { position: [0, 0, isFollowing() ? OUT_OF_SIGHT : 0] });
      const camera = cameraOf(side);
      if (camera) place(view, HIGHLIGHT, { wxyz: camera.slice(0, 4), position: camera.slice(4, 7) });
    }
  }

  const isFollowing = () => document.getElementById("follow")?.getAttribute("aria-pressed") === "true";
  const isWiped = () => panes()?.dataset.wipe === "yes";

  function setWipe(on) {
    panes().dataset.wipe = on ? "yes" : "no";
    if (on) divide(state.wipe);
    for (const button of document.querySelectorAll("[data-pane-tool=wipe]")) button.setAttribute("aria-pressed", on);
    if (on && state.known.left) delete state.known.right; // take the left one's place
  }

  function divide(share) {
    state.wipe = Math.min(0.98, Math.max(0.02, share));
    panes().style.setProperty("--wipe", `${(100 * state.wipe).toFixed(2)}%`);
    divider().setAttribute("aria-valuenow", Math.round(100 * state.wipe));
  }

  function divider() {
    const found = panes().querySelector(".wipe-bar");
    if (found) return found;
    const bar = document.createElement("div");
    bar.className = "wipe-bar";
    bar.tabIndex = 0;
    for (const [name, value] of [
      ["role", "slider"], ["aria-label", "Divider between the two views"], ["aria-valuemin", 0],
      ["aria-valuemax", 100], ["aria-orientation", "horizontal"],
    ]) bar.setAttribute(name, value);
    bar.addEventListener("pointerdown", (event) => bar.setPointerCapture(event.pointerId));
    bar.addEventListener("pointermove", (event) => {
      if (!bar.hasPointerCapture(event.pointerId)) return;
      const box = panes().getBoundingClientRect();
      divide((event.clientX - box.left) / box.width);
    });
    bar.addEventListener("keydown", (event) => {
      const share = { ArrowLeft: state.wipe - 0.02, ArrowRight: state.wipe + 0.02, Home: 0, End: 1 }[event.key];
      if (share === undefined) return;
      event.preventDefault();
      divide(share);
    });
    panes().append(bar);
    return bar;
  }

  function tool(name) {
    if (name === "wipe") setWipe(!isWiped());
    else if (name === "full") {
      if (document.fullscreenElement) document.exitFullscreen();
      else panes().requestFullscreen?.();
    } else look(name);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-pane-tool]");
    if (button) tool(button.dataset.paneTool);
  });
  document.addEventListener("fullscreenchange", () => {
    const on = document.fullscreenElement === panes();
    for (const button of document.querySelectorAll("[data-pane-tool=full]")) button.setAttribute("aria-pressed", on);
  });

  const palettes = new Map();

  // 256 × RGB
  function palette(name) {
    if (!palettes.has(name) && state.world) {
      palettes.set(name, Uint8Array.from(atob(state.world.palettes[name]), (letter) => letter.charCodeAt(0)));
    }
    return palettes.get(name);
  }

  function gradient(name) {
    const steps = palette(name);
    const stops = Array.from({ length: 12 }, (_, i) => Math.round((255 * i) / 11));
    return `linear-gradient(to right, ${stops.map((at) => `rgb(${steps.slice(3 * at, 3 * at + 3).join(" ")})`).join(", ")})`;
  }

  const colour = () => document.querySelector("#colour-by input:checked")?.value ?? "image";
  const movedPercent = () => Number(document.querySelector("#moved-percent input")?.value) || 2;
  const number = (value) => (value >= 0.1 ? value.toFixed(2) : value.toPrecision(2));

  // What the colours of the clouds stand for: [low end, high end, of what].
  function legend(by) {
    const ends = state.world.scales[by];
    if (by === "depth") return [`near ${number(ends[0])}`, `${number(ends[1])} far`, `× scene diagonal, from frame ${state.frame + 1}`];
    if (by === "confidence") return [`unsure ${number(ends[0])}`, `${number(ends[1])} sure`, ""];
    if (by === "error" && !state.world.hasTruth) return ["", "", "no truth is known for this clip"];
    const from = by === "error" ? "from the truth" : "from the baseline";
    return ["0", `${movedPercent()} % or more`, `of the scene diagonal, ${from}`];
  }

  function showLegends() {
    const by = colour();
    const words = state.world && by !== "image" ? legend(by) : null;
    for (const box of document.querySelectorAll(".colour-legend")) {
      const text = words ? words.join("|") + by : "";
      if (box.dataset.shown === text) continue;
      box.dataset.shown = text;
      box.hidden = !words;
      if (!words) continue;
      const bar = document.createElement("i");
      bar.style.background = words[1] ? gradient(by) : "none";
      const parts = words.map((part) => Object.assign(document.createElement("span"), { textContent: part }));
      box.replaceChildren(parts[0], bar, parts[1], parts[2]);
    }
    const scale = document.getElementById("moved-percent");
    if (scale) scale.style.display = MOVED.includes(by) ? "" : "none";
  }

  // From the server, or out of the page itself where a report holds all it shows.
  async function described(address) {
    if (address.startsWith("#")) return JSON.parse(document.querySelector(address).textContent);
    const answer = address ? await fetch(`${address}/world.json`) : null;
    return answer?.ok ? answer.json() : null;
  }

  // The strip's element names the description of what is shown; another baseline is looked at from its first view.
  async function follow() {
    const address = document.querySelector("#frame-strip [data-timeline]")?.dataset.timeline ?? "";
    if (address === state.address) return;
    state.address = address;
    const world = await described(address);
    if (state.address !== address) return;
    state.world = world;
    if (state.world) state.frame = Math.min(state.frame, state.world.frames - 1);
    document.dispatchEvent(new CustomEvent("spark3r:world"));
  }

  // A new scene is fitted once its cloud stands in a pane.
  function fitNew() {
    if (!state.world || state.baseline === state.world.baseline || !isLive(viewOf("left") ?? viewOf("right"))) return;
    state.baseline = state.world.baseline;
    look("fit");
  }

  function choose(frame) {
    state.frame = frame;
    highlight();
    if (isFollowing()) look("camera");
  }

  // How many thousand points a pane shows at first: what the browser draws smoothly. Moved by hand, it stays.
  function points(chosen, usual) {
    if (chosen !== usual) return chosen;
    const context = document.createElement("canvas").getContext("webgl2");
    const told = context?.getExtension("WEBGL_debug_renderer_info");
    const renderer = told ? context.getParameter(told.UNMASKED_RENDERER_WEBGL) : "software";
    if (/swiftshader|llvmpipe|softpipe|software|basic render/i.test(renderer)) return usual;
    return matchMedia("(pointer: coarse)").matches ? POINTS.handheld : POINTS.gpu;
  }

  rhythm(() => {
    if (!panes()) return false;
    fitNew();
    showLegends();
    return link();
  });
  setInterval(() => SIDES.forEach((side) => dress(frameOf(side))), 250);
  setInterval(() => follow().catch(() => { state.address = ""; }), 250);
  setInterval(highlight, 1000); // a pane that was reloaded shows the first frame's camera
  window.spark3r = { state, look, choose, palette, gradient, movedPercent, setWipe, points, rhythm };
})();
