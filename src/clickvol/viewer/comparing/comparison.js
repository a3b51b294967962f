// A reference to compare the masks with: its outline over the planes, Dice, and where the largest difference is.

import { askForSource, MASK_FILES } from "../files/choosing.js";
import { element } from "../picture/markers.js";
import { inflate } from "../picture/mask-worker.js";
import { byId } from "../page.js";
import { numberText, t } from "../strings/strings.js";
import { outlineOn, readDrawn } from "./outline.js";

function textOf({ dice, missing_ml, surplus_ml }) {
  const values = { dice: numberText(dice, 3), missing: numberText(missing_ml, 2), surplus: numberText(surplus_ml, 2) };
  return t("Dice {dice}; {missing} ml missing, {surplus} ml too much", values);
}

/** Make the comparison: `draw` draws the outline, `goToDifference` moves the crosshair, `write` shows a state. */
export function makeComparison({ api, store, scene, notify }, layer) {
  let reference = /** @type {any} */ (null);
  let comparedTag = /** @type {string | null} */ (null);

  const idOf = () => store.get().opened?.session_id;

  async function tell(asked) {
    try {
      const [id, { tag }] = [idOf(), store.get().session];
      const comparison = await asked(id);
      if (id === idOf()) store.set({ comparison });
      comparedTag = tag;
    } catch (error) {
      notify("error", error.message);
    }
  }

  async function ask() {
    const about = t("A mask on the grid of the scan: NIfTI, NRRD, MHA, DICOM SEG or RTSTRUCT.");
    const source = await askForSource(t("Compare with which mask?"), about, MASK_FILES);
    if (!source) return;
    await tell(async (id) => {
      const comparison = await api.compare(id, source);
      reference = await readDrawn(await api.reference(id), inflate);
      return comparison;
    });
    draw();
  }

  async function forget() {
    reference = null;
    store.set({ comparison: null });
    draw();
    await api.forgetReference(idOf()).catch((error) => notify("error", error.message));
  }

  function draw() {
    if (!reference || !scene.image) return layer.replaceChildren();
    const voxel = scene.grid.nearest(scene.crosshairMm());
    const paths = scene.tilesShown().map((tile) => {
      const axis = scene.fileAxis(tile.axis);
      const at = (place) => tile.placeOf(scene.grid.mmOf(place));
      // Straight lines stay straight: three places say where all others are.
      const zero = at([0, 1, 2].map((each) => (each === axis ? voxel[axis] : 0)));
      const steps = [0, 1, 2].map((each) => {
        const one = at([0, 1, 2].map((other) => (other === axis ? voxel[axis] : Number(other === each))));
        return { x: one.x - zero.x, y: one.y - zero.y };
      });
      const [u, v] = [0, 1, 2].filter((each) => each !== axis);
      const onScreen = (place) =>
        `${(zero.x + place[u] * steps[u].x + place[v] * steps[v].x).toFixed(1)} ${(zero.y + place[u] * steps[u].y + place[v] * steps[v].y).toFixed(1)}`;
      const d = outlineOn(reference, axis, voxel[axis]).map(([from, to]) => `M${onScreen(from)}L${onScreen(to)}`).join("");
      const { left, top, width, height } = tile.tile;
      const clipped = element("svg", { x: left, y: top, width, height, viewBox: `${left} ${top} ${width} ${height}` });
      clipped.append(element("path", { class: "reference", d }));
      return clipped;
    });
    return layer.replaceChildren(...paths);
  }

  function goToDifference() {
    const place = store.get().comparison?.differs_at_ras_mm;
    if (place) scene.goTo(place);
  }

  byId("compare").addEventListener("click", ask);
  byId("go-difference").addEventListener("click", goToDifference);
  byId("forget-reference").addEventListener("click", forget);

  return {
    draw,
    goToDifference,
    write(state, before) {
      byId("compare").disabled = !state.opened;
      if (before && state.opened !== before.opened) reference = null;
      byId("comparison").hidden = !state.comparison;
      if (state.comparison && state.comparison !== before?.comparison) byId("comparison-text").textContent = textOf(state.comparison);
      // The masks have changed since, and nothing more is on its way.
      if (state.comparison && !state.working && state.session.tag !== comparedTag) {
        comparedTag = state.session.tag;
        tell(api.comparison);
      }
    },
  };
}
