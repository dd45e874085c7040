// An upload that was refused is told to the session like a click, so that the sentence stands where the clip would.
document.addEventListener("spark3r:refused", ({ detail }) => {
  if (element.isConnected) trigger("click", { value: detail });
});
