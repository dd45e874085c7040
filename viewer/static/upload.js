// Uploads: the server is asked for room before a byte travels, and what it says of a refusal stands beside the field.
(() => {
  const SHOWN_MS = 3000; // until gradio's own notice of a failed upload must have come
  const BROKEN_OFF = "The upload broke off: bring the files again.";
  const send = window.fetch.bind(window);

  window.fetch = (resource, options) => {
    const files = options?.body instanceof FormData ? options.body.getAll("files") : [];
    const isUpload = files.length > 0 && String(resource.url ?? resource).includes("/gradio_api/upload");
    const isSchedule = files.every(({ name }) => name.endsWith(".json"));
    return isUpload && !isSchedule ? upload(files, resource, options) : send(resource, options);
  };

  async function upload(files, resource, options) {
    const sizes = files.map(({ size }) => size);
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    try {
      const room = await send(`uploads/room?bytes=${bytes}&largest=${Math.max(...sizes)}`);
      const answer = room.ok ? await send(resource, options) : room;
      return answer.ok ? answer : refused(await sentence(answer), answer.status);
    } catch {
      return refused(BROKEN_OFF, 503);
    }
  }

  // Ours is plain text; what stands between (a proxy with a limit of its own) answers with a page.
  async function sentence(answer) {
    if (answer.headers.get("content-type")?.startsWith("text/plain")) return answer.text();
    return `The server refused the upload (${answer.status}): bring fewer or smaller files.`;
  }

  function refused(words, status) {
    document.dispatchEvent(new CustomEvent("spark3r:refused", { detail: words }));
    dismiss(words);
    return new Response(words, { status });
  }

  // Gradio tells the same in a notice that goes after ten seconds; once is enough.
  function dismiss(words) {
    const observer = new MutationObserver(() => {
      for (const notice of document.querySelectorAll(".toast-body.error")) {
        if (notice.textContent.includes(words)) notice.querySelector(".toast-close")?.click();
      }
    });
    observer.observe(document.body, { childList: true, subtree: true });
    setTimeout(() => observer.disconnect(), SHOWN_MS);
  }
})();
