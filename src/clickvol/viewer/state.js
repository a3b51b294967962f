// What the page knows, in one place; whoever shows it subscribes.

// Bright enough for grey tissue. Not every pair differs for every colour vision: names and glyphs say the same.
export const COLOURS = [
  "#ff8a5c", "#58c4ff", "#c3e35b", "#d9a8ff", "#ffd75e", "#4fd6b0", "#ff9ccb", "#a9b8ff",
];

/** Return the colour of an object, by its id from 1; they come round again after eight. */
export const colourOf = (objectId) => COLOURS[(objectId - 1) % COLOURS.length];

export const nameOf = (object) => object.name || `Tumour ${object.id}`;

const NOTHING = { tag: null, objects: [], can_undo: false, can_redo: false };

export function initialState() {
  return {
    opened: null, // what the server said when it opened the scan
    session: NOTHING, // objects and clicks, as the server last told them
    selected: 1, // the object that the next click goes to
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
