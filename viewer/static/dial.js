// A dial moves freely under the hand and tells the page only where it is left: on release, or a moment after a key.
// What the hand chose holds until the page answers for it: answers to what was set before come late, and change nothing.
const PAUSE_MS = 350;
let pause = 0;
let isDown = false; // the pointer, on the dial
let held = null; // what the hand chose and the page has not answered yet
let told = false; // whether the page knows of it

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

function tell() {
  if (held === null || told) return;
  if (held === props.value) {
    held = null;
    return;
  }
  told = true;
  props.value = held;
  trigger("release", { value: held });
}

function leave() {
  clearTimeout(pause);
  if (!isDown) pause = setTimeout(tell, PAUSE_MS);
}

// A browser sends no "change" for a drag during which the page redrew the dial, so the pointer is heard itself.
element.addEventListener("pointerdown", () => { isDown = true; });
for (const name of ["pointerup", "pointercancel"]) {
  window.addEventListener(name, () => {
    if (!isDown) return;
    isDown = false;
    leave();
  });
}
element.addEventListener("input", ({ target }) => {
  held = stopOf(target).value;
  told = false;
  show(target);
  leave();
});

// What is pressed elsewhere, a run in the plot say, may turn the dial.
document.addEventListener("click", ({ target }) => {
  if (told && !element.contains(target)) held = null;
}, { capture: true });

watch(["view", "value"], () => {
  const input = element.querySelector("input");
  const stops = input.dataset.stops.split(" ").map(Number);
  const isAnswer = told && Number(input.dataset.answers) === held;
  if (isAnswer || !stops.includes(held)) held = null;
  if (held !== null && told && props.value !== held) props.value = held;
  const place = stops.indexOf(held ?? props.value);
  if (place < 0) return;
  input.value = place;
  show(input);
});
