// How a scan comes in: from the command line, a dropped or chosen file, or a path; and its earlier clicks.

import { byId } from "../page.js";
import { askForSeries, isOfSeveral } from "./choosing.js";
import { presetsFor, windowOf } from "../picture/windows.js";
import { initialState } from "../state.js";
import { language, t } from "../strings/strings.js";

const megabytes = (bytes) => `${Math.max(1, Math.round(bytes / 1e6))} MB`;

/** Return "17 clicks of 3 March 2026, 14:05". */
function whenText({ num_clicks, last_time }) {
  const when = new Date(last_time).toLocaleString(language, { dateStyle: "long", timeStyle: "short" });
  const values = { count: num_clicks, when };
  return num_clicks === 1 ? t("{count} click of {when}", values) : t("{count} clicks of {when}", values);
}

/** Ask whether to go on with an earlier session; resolves to its log, or null for none. */
function askToResume(logs) {
  const dialog = byId("resume-dialog");
  byId("resume-text").textContent =
    logs.length === 1
      ? t("There is an earlier session on this scan. It stays, whatever you choose.")
      : t("There are {count} earlier sessions on this scan. They stay, whatever you choose.", { count: logs.length });
  const choices = logs.map((log, n) => {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "log", value: log.log, checked: n === 0 });
    label.append(radio, ` ${whenText(log)}`);
    return label;
  });
  byId("resumable").replaceChildren(...choices);
  dialog.returnValue = "fresh";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve(dialog.returnValue === "resume" ? dialog.querySelector("input:checked").value : null),
      { once: true },
    );
  });
}

/** Tell `act` what is dropped into the window, and show meanwhile that it may be. */
function listenToDrops(act) {
  let depth = 0; // enters and leaves come for every element on the way
  const drop = byId("drop");
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const count = (change) => {
    depth = change === 0 ? 0 : Math.max(0, depth + change);
    drop.hidden = depth === 0;
  };
  const on = (name, then) =>
    window.addEventListener(name, (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      then(event);
    });
  on("dragenter", () => count(+1));
  on("dragleave", () => count(-1));
  on("dragover", () => {});
  on("drop", (event) => {
    count(0);
    act(event.dataTransfer);
  });
}

/**
 * Return {open, openPath, offerEarlier, askForToken, showStart, reopen}.
 *
 * @param {Record<string, any>} parts `api`, `store`, `scene`, `notify`, `session()`, which takes over an opened scan, and
 *   `propose`, which then may ask for a first mask.
 */
export function makeOpening({ api, store, scene, notify, session, propose }) {
  let source = /** @type {any} */ (null); // {name, open}: how to open the present scan once more

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
      wait(t("Loading the scan into the view"));
      await show(opened, next.name, next.bytes);
      source = next;
      if (earlier) api.close(earlier.session_id).catch(() => {}); // its lease ends it otherwise
      await session().begin(opened);
      for (const note of opened.scan.notes) notify("info", note);
      wait("");
      byId("canvas").focus();
      await offerToResume(opened, resumeAtOnce);
      propose(opened);
    } catch (error) {
      if (next.choose && isOfSeveral(error)) {
        wait(t("Reading the series"));
        const chosen = await next.choose().then(askForSeries).catch((problem) => notify("error", problem.message));
        if (chosen) return await open(next.with(chosen), { resumeAtOnce });
      } else notify("error", error.message);
      showStart(!earlier);
    } finally {
      wait("");
    }
  }

  async function show(opened, name, fetched) {
    const bytes = fetched ?? (await api.scan(opened.session_id));
    const { scan } = opened;
    const { opened: earlier, preset: kept } = store.get();
    const presets = presetsFor(scan.modality);
    // Who reads lungs goes on reading lungs.
    const preset = (earlier?.scan.modality === scan.modality && presets.find(({ id }) => id === kept)) || presets[0];
    let range = { low: 0, high: 1 };
    await scene.showScan(bytes, (image) => (range = windowOf(preset, image)));
    const { opacity, outline, model, layout, masksOnly } = store.get();
    store.set({ ...initialState(), opacity, outline, model, layout, masksOnly, opened, name, window: range, preset: preset.id });
    scene.tellPlace();
  }

  async function offerToResume({ resumable }, atOnce) {
    const logs = resumable.filter((each) => each.num_clicks > 0);
    byId("earlier").hidden = !logs.length;
    const log = logs.length && (atOnce ? logs[0].log : await askToResume(logs));
    if (log) session().resume(log);
  }

  const byPath = (path, chosen) => ({
    name: path.split(/[\\/]/).at(-1),
    says: t("Reading the scan"),
    open: () => api.open({ path, ...chosen }),
    choose: () => api.seriesOf({ path }),
    with: (choice) => byPath(path, choice),
  });
  const openPath = (path, series) => open(byPath(path, { series }));

  const byFile = (file, chosen) => ({
    name: file.name,
    says: t("Sending {name} ({size})", { name: file.name, size: megabytes(file.size) }),
    open: () => api.open({ file, ...chosen }),
    choose: () => api.seriesOf({ file }),
    with: (choice) => byFile(file, choice),
  });
  const openFile = (file) => open(byFile(file));

  function openDropped(transfer) {
    const entry = transfer.items?.[0]?.webkitGetAsEntry?.();
    if (transfer.files.length !== 1 || entry?.isDirectory) {
      notify("error", t("drop one file; of a DICOM series, drop a zip of its folder"));
      return;
    }
    openFile(transfer.files[0]);
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
  listenToDrops(openDropped);
  // A page that is loaded anew opens a session of its own, and offers the clicks of this one.
  window.addEventListener("pagehide", ({ persisted }) => {
    const { opened } = store.get();
    if (opened && !persisted) api.close(opened.session_id).catch(() => {});
  });

  // A new address over the old one, with another key, changes the fragment alone.
  window.addEventListener("hashchange", () => location.reload());

  return {
    open,
    openPath,
    /** Offer the clicks of earlier sessions whenever the user asks for them. */
    offerEarlier: () => byId("earlier").addEventListener("click", () => offerToResume(store.get().opened, false)),
    /** Ask for the key that the address lacks, with which the page is loaded anew. */
    askForToken() {
      const dialog = byId("token-dialog");
      if (dialog.open) return;
      dialog.onclose = () => {
        const key = /token=([^&\s]+)/.exec(byId("token").value)?.[1] ?? byId("token").value.trim();
        if (key) location.hash = `token=${key}`;
      };
      dialog.showModal();
    },
    showStart,
    /** Open the present scan once more and repeat its clicks. */
    reopen: () => source && open(source, { resumeAtOnce: true }),
  };
}
