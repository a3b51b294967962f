// What the panel says of the tools: the brush, what can be done to a mask, and what the model says of its answer.

import { byId } from "../page.js";
import { selectedObject } from "../state.js";
import { numberText, t } from "../strings/strings.js";

const MEASURED = new Set(["smooth", "grow", "shrink"]); // those that take a distance in mm
const LIMIT_PERCENTILES = [0.05, 0.95];
const MOST_SAMPLES = 20_000;

function expectedText({ expected_dice, expected_dice_interval, comparable_patients }) {
  if (expected_dice === null) return "";
  const dice = numberText(expected_dice, 2);
  if (!expected_dice_interval) return t("Expected Dice {dice}", { dice });
  const [low, high] = expected_dice_interval.map((end) => numberText(end, 2));
  const range = t("Expected Dice {dice} ({low} to {high})", { dice, low, high });
  return comparable_patients ? range : `${range}, ${t("few comparable masks")}`;
}

function adviceText(advice) {
  const { candidates, chosen } = advice;
  const expected = expectedText(advice);
  if (candidates.length < 2) return expected;
  const number = t("Mask {number} of {count}", { number: chosen + 1, count: candidates.length });
  const said = t("the model gives it {dice}", { dice: numberText(candidates[chosen].predicted_dice, 2) });
  return [number, said, expected].filter(Boolean).join(" · ");
}

/** Return {low, high} of most values in the mask of an object; the window's where it has none. */
function limitFor({ window, session, selected }, scene) {
  const object = session.objects.find((each) => each.id === selected);
  if (!object?.num_voxels) return { ...window };
  const indices = scene.indicesOf(selected);
  const step = Math.max(1, Math.floor(indices.length / MOST_SAMPLES));
  const values = Float64Array.from(indices.filter((_, n) => n % step === 0), (index) => scene.valueOf(index)).sort();
  const [low, high] = LIMIT_PERCENTILES.map((part) => values[Math.floor(part * (values.length - 1))]);
  return { low, high };
}

/** Return a function that writes a state into the tools' part of the panel. */
export function makeToolPanel(store, scene, acts) {
  const [size, ball, limited, low, high] = ["brush-size", "brush-ball", "brush-limited", "limit-low", "limit-high"].map(byId);
  size.addEventListener("input", () => acts.brush({ radiusMm: Number(size.value) / 2 }));
  ball.addEventListener("change", () => acts.brush({ isBall: ball.checked }));
  limited.addEventListener("change", () => acts.brush({ limit: limited.checked ? limitFor(store.get(), scene) : null }));
  for (const input of [low, high]) {
    input.addEventListener("change", () => {
      const [from, to] = [Number(low.value), Number(high.value)];
      acts.brush({ limit: from <= to ? { low: from, high: to } : { ...store.get().brush.limit } });
    });
  }
  const operations = [...byId("operations").querySelectorAll("button")];
  for (const button of operations) {
    const { operation } = button.dataset;
    button.addEventListener("click", () => acts.operate(operation, MEASURED.has(operation) ? Number(byId("operation-mm").value) : 0));
  }
  byId("next-mask").addEventListener("click", () => acts.nextCandidate(1));
  byId("next-click").addEventListener("click", acts.goToNextClick);
  let shownLimit = null;

  return function write(state) {
    const { brush, tool, advice } = state;
    byId("stage").dataset.tool = tool;
    byId("brush").hidden = tool !== "brush" && tool !== "eraser";
    size.value = String(2 * brush.radiusMm);
    byId("brush-size-value").textContent = `${numberText(2 * brush.radiusMm, 1)} mm`;
    [ball.checked, limited.checked] = [brush.isBall, brush.limit !== null];
    byId("limits").hidden = brush.limit === null;
    if (brush.limit && brush.limit !== shownLimit) [low.value, high.value] = [brush.limit.low, brush.limit.high].map((value) => String(Math.round(100 * value) / 100));
    shownLimit = brush.limit;
    const object = selectedObject(state);
    const canChange = Boolean(object && object.num_voxels && !object.frozen);
    for (const button of operations) button.disabled = !canChange;
    byId("advice").hidden = !advice || (!adviceText(advice) && !advice.next_click_ras_mm);
    if (!advice) return;
    const text = adviceText(advice);
    byId("advice-text").hidden = !text;
    if (byId("advice-text").textContent !== text) byId("advice-text").textContent = text;
    byId("next-mask").hidden = advice.candidates.length < 2;
    byId("next-click").hidden = !advice.next_click_ras_mm;
  };
}
