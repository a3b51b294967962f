// How a scan comes in: from the command line, a dropped or chosen file, or a path; and its earlier clicks.

import { presetsFor, windowOf } from "./windows.js";
import { initialState } from "./state.js";

const byId = (id) => document.getElementById(id);

const megabytes = (bytes) => `${Math.max(1, Math.round(bytes / 1e6))} MB`;

/** Return "17 clicks of 3 March 2026, 14:05". */
function whenText({ num_clicks, last_time }) {
  const when = new Date(last_time).toLocaleString([], { dateStyle: "long", timeStyle: "short" });
  return `${num_clicks} click${num_clicks === 1 ? "" : "s"} of ${when}`;
}

/** Ask whether to go on with an earlier session; resolves to true or false. */
function askToResume(log) {
  const dialog = byId("resume-dialog");
  byId("resume-text").textContent = `There is an earlier session on this scan: ${whenText(log)}.`;
  dialog.returnValue = "fresh";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "resume"), { once: true });
  });
}

/**
 * Return {begin, openFile, reopen, showStart}.
 *
 * @param {object} parts `api`, `store`, `scene`, `notify`, and `session()`, which takes over an opened scan.
 */
export function makeOpening({ api, store, scene, notify, session }) {
  let source = null; // {name, open}: how to open the present scan once more

  function wait(text) {
    byId("wait").hidden = !text;
    byId("wait-text").textContent = text;
  }

  function showStart(isShown = true) {
    byId("start").hidden = !isShown;
    byId("back").hidden = !store.get().opened;
    if (isShown) byId("choose").focus();
  }

  async function open(next, { resumeAtOnce = false } = {}) {
    const earlier = store.get().opened;
    showStart(false);
    wait(next.says);
    try {
      const opened = await next.open();
      wait("Loading the scan into the view");
      await show(opened, next.name);
      source = next;
      if (earlier) api.close(earlier.session_id).catch(() => {}); // its lease ends it otherwise
      await session().begin(opened);
      for (const note of opened.scan.notes) notify("info", note);
      wait("");
      byId("canvas").focus();
      await offerToResume(opened, resumeAtOnce);
    } catch (error) {
      notify("error", error.message);
      showStart(!earlier);
    } finally {
      wait("");
    }
  }

  async function show(opened, name) {
    const bytes = await api.scan(opened.session_id);
    const { scan } = opened;
    let window = null;
    let preset = null;
    await scene.showScan(bytes, (image) => {
      [preset] = presetsFor(scan.modality);
      window = windowOf(preset, image);
      return window;
    });
    const { opacity, outline, model } = store.get();
    store.set({ ...initialState(), opacity, outline, model, opened, name, window, preset: preset.id });
    scene.tellPlace();
  }

  async function offerToResume({ resumable }, atOnce) {
    const log = resumable.find((each) => each.num_clicks > 0);
    if (log && (atOnce || (await askToResume(log)))) session().resume(log.log);
  }

  const openPath = (path, series) =>
    open({
      name: path.split(/[\\/]/).at(-1),
      says: "Reading the scan",
      open: () => api.openPath(path, series),
    });

  const openFile = (file) =>
    open({ name: file.name, says: `Sending ${file.name} (${megabytes(file.size)})`, open: () => api.openFile(file) });

  function openDropped(transfer) {
    const entry = transfer.items?.[0]?.webkitGetAsEntry?.();
    if (transfer.files.length !== 1 || entry?.isDirectory) {
      notify("error", "drop one file; of a DICOM series, drop a zip of its folder");
      return;
    }
    openFile(transfer.files[0]);
  }

  function listenToDrops() {
    let depth = 0; // enters and leaves come for every element on the way
    const drop = byId("drop");
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
    const show = (change) => {
      depth = change === 0 ? 0 : Math.max(0, depth + change);
      drop.hidden = depth === 0;
    };
    const on = (name, act) =>
      window.addEventListener(name, (event) => {
        if (!carriesFiles(event)) return;
        event.preventDefault();
        act(event);
      });
    on("dragenter", () => show(+1));
    on("dragleave", () => show(-1));
    on("dragover", () => {});
    on("drop", (event) => {
      show(0);
      openDropped(event.dataTransfer);
    });
  }

  byId("open").addEventListener("click", () => showStart());
  byId("back").addEventListener("click", () => showStart(false));
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files.length) openFile(target.files[0]);
    target.value = "";
  });
  byId("path-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const path = byId("path").value.trim();
    if (path) openPath(path);
  });
  listenToDrops();
  // A page that is loaded anew opens a session of its own, and offers the clicks of this one.
  window.addEventListener("pagehide", ({ persisted }) => {
    const { opened } = store.get();
    if (opened && !persisted) api.close(opened.session_id).catch(() => {});
  });

  return {
    openPath,
    showStart,
    /** Open the present scan once more and repeat its clicks. */
    reopen: () => source && open(source, { resumeAtOnce: true }),
  };
}
