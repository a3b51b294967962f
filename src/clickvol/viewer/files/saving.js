// The save dialog: one button per format; what cannot be written says why.

import { byId } from "../page.js";
import { nameOf } from "../state.js";
import { t } from "../strings/strings.js";
import { handOver } from "./choosing.js";

const FORMATS = [
  { id: "nifti", name: "NIfTI", about: t("label map, .nii.gz"), isDicom: false },
  { id: "nrrd", name: "NRRD", about: t("label map for 3D Slicer, .nrrd"), isDicom: false },
  { id: "dicom-seg", name: "DICOM SEG", about: t("voxels, beside the images"), isDicom: true },
  { id: "rtstruct", name: "RTSTRUCT", about: t("contours, for radiotherapy"), isDicom: true },
];

const SUFFIXES = { nifti: "_mask.nii.gz", nrrd: "_mask.nrrd", "dicom-seg": "_seg.dcm", rtstruct: "_rtstruct.dcm" };

/** Return the name of a file that holds the masks of a scan: the scan's own, as a file of any system may be called. */
export function fileName(scanName, format) {
  // eslint-disable-next-line no-control-regex -- Windows allows none of them
  const stem = scanName.replace(/(\.nii(\.gz)?|\.nrrd|\.mha|\.zip)$/i, "").replace(/[\u0000-\u001f<>:"/\\|?*]+/g, "_");
  return `${stem || "clickvol"}${SUFFIXES[format]}`;
}

/** Return a function that opens the dialog. */
export function makeSaving({ api, store, notify, isUndecided }) {
  const dialog = byId("save-dialog");
  const deidentify = byId("deidentify");

  async function save(format) {
    const { opened, session } = store.get();
    dialog.close();
    store.set({ working: t("Writing {name}", { name: format.name }) });
    try {
      const file = await api.exportFile(opened.session_id, format.id, format.isDicom && deidentify.checked);
      if (!byId("nameless").checked) file.name = fileName(store.get().name, format.id);
      handOver(file);
      const names = session.objects.filter((object) => object.num_voxels).map(nameOf);
      notify("info", t("saved {file}: {objects}", { file: file.name, objects: names.join(", ") }));
    } catch (error) {
      notify("error", error.message, error.status === 0 ? { name: t("Try again"), run: () => save(format) } : null);
    } finally {
      store.set({ working: "" });
    }
  }

  const buttons = FORMATS.map((format) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "format";
    button.dataset.format = format.id;
    const name = document.createElement("strong");
    name.textContent = format.name;
    const about = document.createElement("small");
    about.textContent = format.about;
    button.append(name, about);
    button.addEventListener("click", () => save(format));
    byId("formats").append(button);
    return { button, format };
  });

  return function open() {
    const { opened, session } = store.get();
    if (!opened || dialog.open || isUndecided()) return;
    if (!session.objects.some((object) => object.num_voxels)) {
      notify("info", t("there is nothing to save yet; click inside a tumour first"));
      return;
    }
    const isDicom = opened.scan.is_dicom;
    for (const { button, format } of buttons) {
      button.disabled = format.isDicom && !isDicom;
      if (button.disabled) button.setAttribute("aria-describedby", "dicom-reason");
    }
    const reason = byId("dicom-reason");
    reason.hidden = isDicom;
    reason.textContent = t("DICOM SEG and RTSTRUCT refer to the images of a DICOM series; this scan was not read from one.");
    deidentify.disabled = !isDicom;
    dialog.showModal();
  };
}
