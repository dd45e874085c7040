// One listener for whatever HTML the block holds: an element with data-action is a button of the page.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button || button.disabled) return;
  const fields = !button.dataset.collect ? [] : [...element.querySelectorAll(`[data-${button.dataset.collect}]`)];
  const collected = fields.map((field) => [Object.values(field.dataset)[0], field.type === "checkbox" ? field.checked : field.value]);
  trigger("click", { action: button.dataset.action, value: button.dataset.value ?? "", ...Object.fromEntries(collected) });
});
element.addEventListener("change", (event) => {
  const field = event.target.closest("[data-change]");
  if (field) trigger("click", { action: field.dataset.change, value: field.value });
});
element.addEventListener("keydown", (event) => {
  const button = event.target.closest("[data-action]:not(button)");
  if (!button || (event.key !== "Enter" && event.key !== " ")) return;
  event.preventDefault();
  trigger("click", { action: button.dataset.action, value: button.dataset.value ?? "" });
});
