// What the page knows, in one place; whoever shows it subscribes.

import { t } from "./strings/strings.js";

// Bright enough for grey tissue, and far enough apart in protanopia, deuteranopia and tritanopia: a test computes it.
export const COLOURS = [
  "#ff9966", "#66ffcc", "#cc33ff", "#ffff00", "#ff3399", "#009999", "#cc99ff", "#ff3300",
];

/** Return the colour that an object has of itself, by its id from 1; they come round again after eight. */
export const ownColour = (objectId) => COLOURS[(objectId - 1) % COLOURS.length];

/** Return the colour of an object for styles; `objects/panel.js` sets those that were chosen. */
export const colourOf = (objectId) => `var(--object-${objectId}, ${ownColour(objectId)})`;

export const nameOf = (object) => object.name || t("Tumour {number}", { number: object.id });

const NOTHING = { tag: null, objects: [], can_undo: false, can_redo: false };

/**
 * @typedef {{low: number, high: number}} Range a window, in the scan's own unit
 * @typedef {{ras_mm: number[], positive: boolean, place: number}} Click
 * @typedef {{kind: string, points_ras_mm: number[][], positive: boolean, place: number}} Mark a line, box or drawing
 * @typedef {{kind?: string, ras_mm?: number[], points_ras_mm?: number[][], positive: boolean, object_id: number}} Pending
 * @typedef {{object_id: number, place: number, kind: string, positive: boolean}} ChosenMark
 * @typedef {{object_id: number, expected_dice: number | null, expected_dice_interval: number[] | null,
 *   comparable_patients: number | null, candidates: {num_voxels: number, predicted_dice: number}[],
 *   chosen: number, next_click_ras_mm: number[] | null}} Advice of the model on the answer that is shown
 * @typedef {{ends: number[][], mm: number}} Ruler its two ends in RAS mm
 * @typedef {{id: number, name: string, term: string, colour: string, frozen: boolean, volume_ml: number, num_voxels: number, clicks: Click[],
 *   marks: Mark[]}} SceneObject
 * @typedef {ReturnType<typeof initialState>} State
 */

export function initialState() {
  return {
    opened: /** @type {any} */ (null), // what the server said when it opened the scan
    session: /** @type {{tag: string | null, objects: SceneObject[], can_undo: boolean, can_redo: boolean}} */ (NOTHING), // objects and clicks, as the server last told them
    selected: 1, // the object that the next click goes to
    tool: "point", // of gestures.js; "navigate": no click segments
    brush: { radiusMm: 6, isBall: false, limit: /** @type {Range | null} */ (null) }, // limit: of the values that are painted
    advice: /** @type {Advice | null} */ (null),
    proposal: /** @type {{tag: string | null} | null} */ (null), // of an automatic model; tag: of the session that shows it
    chosenMark: /** @type {ChosenMark | null} */ (null), // the prompt that was pressed
    overlap: "yield", // what a click does where it meets other objects; or "take"
    masksHidden: false,
    hidden: /** @type {number[]} */ ([]), // objects that are not shown
    rulers: /** @type {Ruler[]} */ ([]),
    layout: "four", // or "large": the axial plane, and the others beside it
    masksOnly: false, // in 3D
    comparison: /** @type {any} */ (null), // with a reference, as the server said
    overlay: /** @type {any} */ (null), // another scan that is laid over: {name, modality, opacity, range}
    inverted: false,
    offline: false, // the server did not answer last time
    pointed: /** @type {{mm: number[], value: number} | null} */ (null), // {mm, value} under the pointer
    mode: "tumour", // what a click without Shift marks
    pending: /** @type {Pending[]} */ ([]), // prompts on their way
    working: "", // what is being computed; "" for nothing
    waiting: 0, // how many commands wait behind it
    opacity: 0.35,
    outline: true,
    preset: "auto",
    window: /** @type {Range | null} */ (null), // {low, high}
    place: /** @type {{mm: number[], value?: number} | null} */ (null), // {mm: [x, y, z], value}
    model: /** @type {any} */ (null),
  };
}

/** Hold the state; `set` changes some of it and tells every subscriber.
 *
 * @typedef {ReturnType<typeof makeStore>} Store
 */
export function makeStore(state = initialState()) {
  const listeners = /** @type {((state: any, before: any) => void)[]} */ ([]);
  return {
    get: () => state,
    /** @param {Partial<State> & Record<string, unknown>} changes */
    set(changes) {
      const before = state;
      state = { ...state, ...changes };
      for (const listener of listeners) listener(state, before);
    },
    subscribe: (listener) => listeners.push(listener),
  };
}

/** Return the object that clicks go to, or undefined before a scan is open. */
export const selectedObject = (state) =>
  state.session.objects.find((object) => object.id === state.selected);

/** Return the id of the object after the selected one, coming round. */
export function nextObjectId(state) {
  const ids = state.session.objects.map((object) => object.id);
  return ids.length ? ids[(ids.indexOf(state.selected) + 1) % ids.length] : state.selected;
}
