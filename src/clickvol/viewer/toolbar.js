// The bar above and the line below: the scan, its window, history, saving, and where the crosshair is.

import { byId } from "./page.js";
import { t } from "./strings/strings.js";
import { presetsFor } from "./picture/windows.js";

function factsText({ scan }) {
  const size = scan.shape_ijk.join(" × ");
  const spacing = scan.spacing_ijk_mm.map((mm) => mm.toFixed(2)).join(" × ");
  return `${scan.modality}  ·  ${size}  ·  ${spacing} mm`;
}

const signed = (number, digits) => number.toFixed(digits).replace("-", "−");

const SIDES = ["LR", "PA", "IS"]; // towards negative and positive RAS; the tiles say it in the same letters
const UNITS = { CT: " HU", PT: " SUV" };

function placeText(mm) {
  return mm.map((each, axis) => `${SIDES[axis][each < 0 ? 0 : 1]} ${Math.abs(each).toFixed(1)}`).join("   ");
}

function whereText({ place, pointed, opened }) {
  const shown = pointed ?? place;
  if (!shown || !opened) return "";
  const value = shown.value === undefined ? "" : signed(shown.value, Number.isInteger(shown.value) ? 0 : 2);
  return `${pointed ? t("Pointer") : t("Crosshair")}   ${placeText(shown.mm)} mm   ${value}${UNITS[opened.scan.modality] ?? ""}`;
}

function writePresets(group, state, acts) {
  const presets = state.opened ? presetsFor(state.opened.scan.modality) : [];
  group.hidden = !presets.length;
  const buttons = presets.map(({ id, name }, n) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = t(name);
    button.title = t("{name} window ({key})", { name: t(name), key: n + 1 });
    button.dataset.preset = id;
    button.setAttribute("aria-keyshortcuts", String(n + 1));
    button.addEventListener("click", () => acts.preset(n));
    return button;
  });
  group.replaceChildren(...buttons);
}

/** Return a function that writes a state into bar and line. */
export function makeToolbar(acts) {
  for (const id of ["undo", "redo", "save", "help"]) byId(id).addEventListener("click", acts[id]);
  const [width, level] = [byId("width"), byId("level")];
  for (const input of [width, level]) {
    input.addEventListener("change", () => acts.windowNumbers(Number(width.value), Number(level.value)));
  }

  return function write(state, before) {
    if (state.opened !== before?.opened) {
      writePresets(byId("presets"), state, acts);
      byId("scan").hidden = !state.opened;
      if (state.opened) {
        byId("scan-name").textContent = state.name;
        byId("scan-facts").textContent = factsText(state.opened);
        document.title = `${state.name} – clickvol`;
      }
    }
    for (const button of byId("presets").children) {
      button.setAttribute("aria-pressed", String(button.dataset.preset === state.preset));
    }
    byId("window").hidden = !state.window;
    if (state.window && state.window !== before?.window) {
      const { low, high } = state.window;
      const digits = high - low >= 20 ? 0 : 2;
      width.value = (high - low).toFixed(digits);
      level.value = ((low + high) / 2).toFixed(digits);
    }
    byId("undo").disabled = !state.session.can_undo;
    byId("redo").disabled = !state.session.can_redo;
    byId("save").disabled = !state.session.objects.some((object) => object.num_voxels > 0);
    byId("where").textContent = whereText(state);
    byId("model").textContent = state.model ? t("Model {id}", state.model) : "";
    byId("progress").hidden = !state.working;
    byId("stage").classList.toggle("busy", state.working !== "");
    byId("stage").classList.toggle("background", state.mode === "background");
  };
}
