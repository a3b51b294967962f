// What the page knows, in one place; whoever shows it subscribes.

import { t } from "./strings/strings.js";

// Bright enough for grey tissue, and far enough apart in protanopia, deuteranopia and tritanopia: a test computes it.
export const COLOURS = [
  "#ff9966", "#66ffcc", "#cc33ff", "#ffff00", "#ff3399", "#009999", "#cc99ff", "#ff3300",
];

/** Return the colour of an object, by its id from 1; they come round again after eight. */
export const colourOf = (objectId) => COLOURS[(objectId - 1) % COLOURS.length];

export const nameOf = (object) => object.name || t("Tumour {number}", { number: object.id });

const NOTHING = { tag: null, objects: [], can_undo: false, can_redo: false };

export function initialState() {
  return {
    opened: null, // what the server said when it opened the scan
    session: NOTHING, // objects and clicks, as the server last told them
    selected: 1, // the object that the next click goes to
    tool: "point", // "navigate": no click segments
    overlap: "yield", // what a click does where it meets other objects; or "take"
    masksHidden: false,
    inverted: false,
    offline: false, // the server did not answer last time
    pointed: null, // {mm, value} under the pointer
    mode: "tumour", // what a click without Shift marks
    pending: [], // clicks on their way, {ras_mm, positive, object_id}
    working: "", // what is being computed; "" for nothing
    waiting: 0, // how many commands wait behind it
    opacity: 0.35,
    outline: true,
    preset: "auto",
    window: null, // {low, high}
    place: null, // {mm: [x, y, z], value}
    model: null,
  };
}

/** Hold the state; `set` changes some of it and tells every subscriber. */
export function makeStore(state = initialState()) {
  const listeners = [];
  return {
    get: () => state,
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
