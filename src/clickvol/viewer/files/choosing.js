// Which file, or which path below the served folder: asked in one dialog for masks, references and scans to lay over.

import { byId, make } from "../page.js";

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

export const MASK_FILES = ".nii,.gz,.nrrd,.mha,.dcm";
export const SCAN_FILES = ".nii,.gz,.nrrd,.mha,.zip";

/** Hand a file to the browser, which puts it where downloads go. */
export function handOver({ name, blob }) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
