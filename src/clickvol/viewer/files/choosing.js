// Which file, or which path below the served folder: asked in one dialog for masks, references and scans to lay over.

import { byId, make } from "../page.js";
import { t } from "../strings/strings.js";

/**
 * Ask for a file or a path.
 *
 * @param {string} title of the dialog.
 * @param {string} about what may be given.
 * @param {string} accept how file names may end, for the browser's own dialog.
 * @returns {Promise<{file?: File, path?: string, name: string} | null>} null for none.
 */
export function askForSource(title, about, accept) {
  const dialog = byId("source-dialog");
  byId("source-title").textContent = title;
  byId("source-about").textContent = about;
  byId("source-path").value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  return new Promise((resolve) => {
    let chosen = /** @type {File | null} */ (null);
    byId("source-choose").onclick = () => {
      const input = make("input", { type: "file", accept });
      input.addEventListener("change", () => {
        [chosen] = input.files;
        dialog.close("open");
      });
      input.click();
    };
    dialog.addEventListener(
      "close",
      () => {
        const path = byId("source-path").value.trim();
        const file = chosen;
        if (dialog.returnValue !== "open") resolve(null);
        else if (file) resolve({ file, name: file.name });
        else resolve(path ? { path, name: path.split(/[\\/]/).at(-1) ?? path } : null);
      },
      { once: true },
    );
  });
}

/** Return a button that shows a series: its picture, description, modality, slices and size. */
function seriesButton(series, choose) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "one-series";
  const words = document.createElement("span");
  const size = series.shape_ijk ? series.shape_ijk.join(" × ") : t("{count} slices", { count: series.num_slices });
  const name = document.createElement("strong");
  const numbered = series.number === null ? t("Series without number") : t("Series {number}", { number: series.number });
  name.textContent = series.description || (series.volume === null ? numbered : t("Volume {number}", { number: series.volume }));
  const about = document.createElement("small");
  about.textContent = series.problem ??
    t("{modality}, series {number}, {size}", { modality: series.modality, number: series.number ?? "–", size });
  words.append(name, about);
  const picture = document.createElement("img");
  picture.alt = "";
  if (series.picture) picture.src = series.picture;
  button.append(picture, words);
  button.disabled = series.problem !== null;
  button.addEventListener("click", choose);
  return button;
}

/** Ask which series or volume of a scan is meant; resolves to {series, volume}, or null for none. */
export function askForSeries(listed) {
  const dialog = byId("series-dialog");
  return new Promise((resolve) => {
    let chosen = /** @type {{series?: string, volume?: number} | null} */ (null);
    const buttons = listed.map((series) =>
      seriesButton(series, () => {
        chosen = { series: series.uid || undefined, volume: series.volume ?? undefined };
        dialog.close();
      }),
    );
    byId("series").replaceChildren(...buttons);
    dialog.addEventListener("close", () => resolve(chosen), { once: true });
    dialog.showModal();
  });
}

/** Tell whether a scan was refused because it holds several series or volumes. */
export const isOfSeveral = (error) => / (series|volumes), but one /.test(error.message);

export const MASK_FILES = ".nii,.gz,.nrrd,.mha,.dcm";
export const SCAN_FILES = ".nii,.gz,.nrrd,.mha,.zip";

/** Hand a file to the browser, which puts it where downloads go. */
export function handOver({ name, blob }) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
