// A dial moves freely under the hand and tells the page only where it is left: on release, or a moment after a key.
const KEY_PAUSE_MS = 350;
let pause = 0;

function stopOf(input) {
  const place = Number(input.value);
  return { value: Number(input.dataset.stops.split(" ")[place]), kept: input.dataset.kept.split("|")[place] };
}

element.addEventListener("input", ({ target }) => {
  const stop = stopOf(target);
  element.querySelector(".dial-value").textContent = stop.value;
  element.querySelector(".dial-kept").textContent = stop.kept;
  target.setAttribute("aria-valuetext", `${stop.value}: ${stop.kept}`);
});

element.addEventListener("change", ({ target }) => {
  clearTimeout(pause);
  pause = setTimeout(() => {
    const { value } = stopOf(target);
    if (value === props.value) return;
    props.value = value;
    trigger("release", { value });
  }, KEY_PAUSE_MS);
});
