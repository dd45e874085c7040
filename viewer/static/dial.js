// A dial moves freely under the hand and tells the page only where it is left: on release, or a moment after a key.
const KEY_PAUSE_MS = 350;
let pause = 0;
let held = null; // where the hand is, until the page has been told

function stopOf(input) {
  const place = Number(input.value);
  return { value: Number(input.dataset.stops.split(" ")[place]), kept: input.dataset.kept.split("|")[place] };
}

function show(input) {
  const stop = stopOf(input);
  element.querySelector(".dial-value").textContent = stop.value;
  element.querySelector(".dial-kept").textContent = stop.kept;
  input.setAttribute("aria-valuetext", `${stop.value}: ${stop.kept}`);
}

element.addEventListener("input", ({ target }) => {
  held = stopOf(target).value;
  show(target);
});

element.addEventListener("change", ({ target }) => {
  clearTimeout(pause);
  pause = setTimeout(() => {
    const { value } = stopOf(target);
    held = null;
    if (value === props.value) return;
    props.value = value;
    trigger("release", { value });
  }, KEY_PAUSE_MS);
});

// Redrawn for another clip, it stands where it was left.
watch(["view", "value"], () => {
  const input = element.querySelector("input");
  const place = input.dataset.stops.split(" ").indexOf(String(held ?? props.value));
  if (place < 0) return;
  input.value = place;
  show(input);
});
