// Another scan of the patient over this one, such as PET over CT: with its own window, where both say they are.

import { askForSeries, askForSource, isOfSeveral, SCAN_FILES } from "../files/choosing.js";
import { byId } from "../page.js";
import { numberText, t } from "../strings/strings.js";
import { windowOf } from "../picture/windows.js";

const SUV_RANGE = { low: 0, high: 10 }; // as PET is commonly read
const numberOf = (input) => Number(input.value.trim().replace(",", "."));

/** Make the overlay; return a function that writes a state. */
export function makeOverlay({ api, store, scene, notify }) {
  const [opacity, low, high, modalities] = ["opacity", "low", "high", "modality"].map((name) => byId(`overlay-${name}`));

  const rangeOf = (modality, image) => (modality === "PT" ? SUV_RANGE : windowOf({}, image));

  async function fetchScan(id, source) {
    try {
      return await api.overlay(id, source);
    } catch (error) {
      if (source.series || !isOfSeveral(error)) throw error;
      const chosen = await askForSeries(await api.seriesOf(source));
      return chosen && fetchScan(id, { ...source, ...chosen });
    }
  }

  async function ask() {
    const about = t("Another scan of the patient, such as PET over CT: a file, a zip of a DICOM series, or a folder below the served one.");
    const source = await askForSource(t("Lay which scan over this one?"), about, SCAN_FILES);
    if (!source) return;
    store.set({ working: t("Reading the scan") });
    try {
      const { opened } = store.get();
      const fetched = await fetchScan(opened.session_id, source);
      if (!fetched || opened !== store.get().opened) return;
      const { bytes, modality } = fetched;
      let range = SUV_RANGE;
      await scene.view.layOver(bytes, (image) => (range = rangeOf(modality, image)));
      store.set({ overlay: { name: source.name, modality, opacity: 0.5, range } });
    } catch (error) {
      notify("error", error.message ?? String(error));
    } finally {
      store.set({ working: "" });
    }
  }

  const change = (changes) => store.set({ overlay: { ...store.get().overlay, ...changes } });
  const setRange = () => {
    const range = { low: numberOf(low), high: numberOf(high) };
    change(range.high > range.low ? { range } : {});
  };
  byId("lay-over").addEventListener("click", ask);
  byId("take-off").addEventListener("click", () => store.set({ overlay: null }));
  opacity.addEventListener("input", () => change({ opacity: Number(opacity.value) / 100 }));
  for (const input of [low, high]) input.addEventListener("change", setRange);
  modalities.addEventListener("change", () => change({ modality: modalities.value, range: rangeOf(modalities.value, scene.view.volumes[1]) }));

  return function write({ opened, overlay }, before) {
    byId("lay-over").disabled = !opened;
    byId("overlay").hidden = !overlay;
    if (overlay === before?.overlay) return;
    if (!overlay) {
      if (before?.opened === opened) scene.view.takeOff(); // a new scan has taken it off already
      return;
    }
    byId("overlay-name").textContent = overlay.name;
    modalities.value = overlay.modality;
    opacity.value = String(Math.round(100 * overlay.opacity));
    byId("overlay-value").textContent = `${opacity.value} %`;
    low.value = numberText(overlay.range.low, 1);
    high.value = numberText(overlay.range.high, 1);
    if (before?.overlay) scene.view.setOverlay(overlay.opacity, overlay.range);
  };
}
