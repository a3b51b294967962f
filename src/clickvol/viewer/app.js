// The page: makes the parts and ties them together.

import { makeApi } from "./api.js";
import { makeComparison } from "./comparing/comparison.js";
import { makeOverlay } from "./comparing/overlay.js";
import { listenToKeys, stepOf } from "./keyboard.js";
import { makeMarkers } from "./picture/markers.js";
import { makeNotices } from "./notices.js";
import { askForSource, MASK_FILES } from "./files/choosing.js";
import { makeOpening } from "./files/opening.js";
import { makeRulers } from "./measuring/rulers.js";
import { makeDescribing } from "./objects/describing.js";
import { makePanel } from "./objects/panel.js";
import { makeProposing } from "./objects/proposing.js";
import { byId } from "./page.js";
import { listenToPointer } from "./pointer.js";
import { makeSaving } from "./files/saving.js";
import { PLANES, Scene } from "./picture/scene.js";
import { makeSession } from "./session.js";
import { makeStore, nextObjectId, selectedObject } from "./state.js";
import { makeGestures } from "./tools/gestures.js";
import { makeMarkMenu } from "./tools/mark-menu.js";
import { makeSketch } from "./tools/sketch.js";
import { makeToolPanel } from "./tools/tool-panel.js";
import { language, LANGUAGES, speak, t, translatePage } from "./strings/strings.js";
import { makeTiles } from "./picture/tiles.js";
import { makeToolbar } from "./toolbar.js";
import { draggedWindow, presetsFor, windowOf } from "./picture/windows.js";
import { makeWorklist } from "./worklist/worklist.js";

translatePage();
for (const [code, { name }] of Object.entries(LANGUAGES)) byId("language").append(new Option(name, code, false, code === language));
byId("language").addEventListener("change", ({ target }) => speak(target.value));

// The fragment of the address, which no server and no log ever sees: the token, and which series to open.
const fragment = new URLSearchParams(location.hash.slice(1));

// The browser tests import these two from here.
export const store = makeStore();
export const scene = new Scene(byId("canvas"));
const notify = makeNotices(byId("notices"));
const api = makeApi(fragment.get("token"), (offline) => store.set({ offline }), () => opening.askForToken());
const opening = makeOpening({ api, store, scene, notify, session: () => session, propose: (opened) => proposing.propose(opened) });
const session = makeSession({ api, store, scene, notify, reopen: opening.reopen });
const proposing = makeProposing({ api, store, scene, notify, session });
const openSaving = makeSaving({ api, store, notify, isUndecided: proposing.isUndecided });
const worklist = makeWorklist({ api, store, notify, opening, isUndecided: proposing.isUndecided });

let pointedPlane = PLANES[0]; // the one that arrow keys work in

const isPositive = (isShift) => (store.get().mode === "tumour") !== isShift;

/** Let clicks go to an object, and show where it is. */
function select(id) {
  store.set({ selected: id });
  session.showLastClick();
}

const markers = makeMarkers(byId("marks"), scene);
const sketch = makeSketch(byId("sketch"), scene, store, { isPositive, handleAt: markers.handleAt });
const menu = makeMarkMenu(byId("mark-menu"), store, {
  remove: ({ object_id, place }) => session.editPrompt(object_id, place, null),
  moveHere({ kind, object_id, place, positive }) {
    const [mm, by] = [scene.crosshairMm(), { kind, space: "ras", positive }];
    session.editPrompt(object_id, place, { ...by, position: mm }, { ras_mm: mm, positive });
  },
});
const gestures = makeGestures({ store, scene, session, notify, sketch, markers, menu, isPositive });

const comparison = makeComparison({ api, store, scene, notify }, byId("reference"));
const writeOverlay = makeOverlay({ api, store, scene, notify });
const rulers = makeRulers(byId("rulers"), scene, store);
const describe = makeDescribing({ api, store, notify, session });

const CINE_MS = 100; // a slice
let cineTimer = 0;

/** Go on by a slice, and turn round at the ends. */
function play(direction) {
  const before = scene.sliceOf(pointedPlane.axis).number;
  scene.scroll(pointedPlane, direction);
  const isAtEnd = scene.sliceOf(pointedPlane.axis).number === before;
  cineTimer = setTimeout(() => play(isAtEnd ? -direction : direction), CINE_MS);
}

const acts = {
  ...session,
  ...proposing,
  select,
  describe,
  describeSelected: () => describe(store.get().selected),
  goToDifference: comparison.goToDifference,
  switchLayout: () => store.set({ layout: store.get().layout === "four" ? "large" : "four" }),
  cine() {
    clearTimeout(cineTimer);
    cineTimer = cineTimer || !scene.image ? 0 : setTimeout(() => play(1), CINE_MS);
  },
  async loadMasks() {
    const about = t("Masks on the grid of the scan: NIfTI, NRRD, MHA, DICOM SEG or RTSTRUCT. Each object of the file becomes one.");
    const source = await askForSource(t("Correct which masks?"), about, MASK_FILES);
    if (source) session.addMasks(source);
  },
  switchEye(id) {
    const { hidden } = store.get();
    store.set({ hidden: hidden.includes(id) ? hidden.filter((each) => each !== id) : [...hidden, id] });
  },
  clickHere: (isShift) => scene.image && session.click(scene.crosshairMm(), isPositive(isShift)),
  move: (key) => scene.moveCrosshair(...stepOf(key, pointedPlane.axis)),
  tool(tool) {
    gestures.cancel();
    menu.close();
    store.set({ tool });
    sketch.leave();
  },
  brush: (changes) => store.set({ brush: { ...store.get().brush, ...changes } }),
  brushSize(steps) {
    const radius = store.get().brush.radiusMm * 1.25 ** steps;
    acts.brush({ radiusMm: Math.min(Math.max(radius, 0.5), 40) });
  },
  operate: (operation, mm) =>
    session.shape({ kind: "mask_operation", operation, ...(mm ? { mm } : {}) }, { says: t("Changing the mask"), asks: false }),
  removeMark: menu.remove,
  isOffered: () => (store.get().advice?.candidates.length ?? 0) > 1,
  goToNextClick() {
    const place = store.get().advice?.next_click_ras_mm;
    if (place) scene.goTo(place);
  },
  /** Leave what is being drawn, the menu at a mark, or the choice among masks. */
  escape() {
    if (gestures.cancel()) return;
    if (store.get().chosenMark) menu.close();
    else store.set({ advice: null });
  },
  switchOverlap: () => store.set({ overlap: store.get().overlap === "yield" ? "take" : "yield" }),
  hideMasks: () => store.set({ masksHidden: !store.get().masksHidden }),
  invert: () => store.set({ inverted: !store.get().inverted }),
  nextObject: () => select(nextObjectId(store.get())),
  freezeSelected() {
    const object = selectedObject(store.get());
    if (object) session.freeze(object.id, !object.frozen);
  },
  switchMode: () => store.set({ mode: store.get().mode === "tumour" ? "background" : "tumour" }),
  preset(number) {
    const { opened } = store.get();
    const preset = opened && presetsFor(opened.scan.modality)[number];
    if (preset) store.set({ preset: preset.id, window: windowOf(preset, scene.image) });
  },
  windowNumbers(width, level) {
    const { window: range } = store.get();
    if (!range) return undefined;
    if (!(width > 0) || !Number.isFinite(level)) return store.set({ window: { ...range } });
    return store.set({ preset: "", window: { low: level - width / 2, high: level + width / 2 } });
  },
  opacity: (change) => store.set({ opacity: Math.min(1, Math.max(0, store.get().opacity + change)) }),
  switchOutline: () => store.set({ outline: !store.get().outline }),
  zoom: (factor) => (factor ? scene.zoom(factor) : scene.resetView()),
  save: openSaving,
  saveAndNext: worklist.saveAndNext,
  help: () => byId("help-dialog").showModal(),
};

// As a link it would take the place of the token in the address.
byId("skip").addEventListener("click", () => byId("canvas").focus());

listenToKeys(byId("canvas"), acts);
listenToPointer(byId("canvas"), {
  click(x, y, isShift) {
    const mm = scene.mmUnder(x, y);
    if (mm && store.get().tool === "point") session.click(mm, isPositive(isShift));
  },
  drawing: (...words) => (store.get().tool === "ruler" ? rulers.drag(words[0], words[1], words[2]) : gestures.draw(...words)),
  brush: (steps) => acts.brushSize(steps),
  hover(x, y, isShift) {
    sketch.point(x, y, isShift);
    const plane = scene.planeUnder(x, y);
    if (plane && plane.axis !== null) pointedPlane = plane;
    const mm = scene.mmUnder(x, y);
    const value = mm ? scene.valueAt(mm) : undefined;
    store.set({ pointed: mm && value !== undefined ? { mm, value } : null });
  },
  leave() {
    sketch.leave();
    store.set({ pointed: null });
  },
  scroll(slices, x, y) {
    const plane = scene.planeUnder(x, y);
    if (plane) scene.scroll(plane, slices);
  },
  window(dx, dy) {
    const { window: range } = store.get();
    if (range) store.set({ preset: "", window: draggedWindow(range, dx, dy) });
  },
  zoom: (factor, x, y) => scene.zoom(factor, scene.flatUnder(x, y)),
});

const writeToolbar = makeToolbar(acts);
const writePanel = makePanel(store, acts);
const writeToolPanel = makeToolPanel(store, scene, acts);
const writeTiles = makeTiles(byId("tiles"), scene, (planeId) => {
  scene.enlarge(planeId);
  writeTiles(store.get());
});

function write(state, before) {
  writeToolbar(state, before);
  writePanel(state, before);
  writeTiles(state);
  writeToolPanel(state);
  writeOverlay(state, before);
  proposing.writeProposal(state);
  comparison.write(state, before);
  if (!before || ["session", "pending", "advice", "chosenMark"].some((name) => state[name] !== before[name])) markers.draw(state);
}

/** Draw all that lies over the planes. */
function drawOver() {
  comparison.draw();
  markers.draw(store.get());
  rulers.draw(store.get());
}

/** Bring to the planes what of the objects, the layout and the rulers has changed. */
function writeScene(state, before) {
  const known = new Set([...state.hidden, ...before.hidden]);
  if (state.hidden !== before.hidden) for (const id of known) scene.hide(id, state.hidden.includes(id));
  if (state.masksOnly !== before.masksOnly) scene.view.setMasksOnly(state.masksOnly);
  if (state.rulers !== before.rulers) rulers.draw(state);
  if (state.layout !== before.layout) {
    scene.layout = state.layout;
    scene.arrange();
  }
  const coloursOf = ({ session: { objects } }) => objects.map(({ id, colour }) => `${id}${colour}`).join();
  if (coloursOf(state) !== coloursOf(before)) {
    scene.view.setColours(Object.fromEntries(state.session.objects.map(({ id, colour }) => [id, colour])));
  }
}

let windowFrame = 0;
store.subscribe((state, before) => {
  write(state, before);
  if ((state.window !== before.window || state.inverted !== before.inverted) && state.opened === before.opened) {
    // A drag sends more changes than a card can show.
    cancelAnimationFrame(windowFrame);
    windowFrame = requestAnimationFrame(() => {
      const { window: range, inverted } = store.get();
      if (range) scene.setWindow(range, inverted);
    });
  }
  if (state.opacity !== before.opacity || state.outline !== before.outline || state.masksHidden !== before.masksHidden) {
    scene.setMaskStyle(state.masksHidden ? 0 : state.opacity, state.outline && !state.masksHidden);
  }
  writeScene(state, before);
});
scene.onMove = (place) => store.set({ place });
scene.onDraw = drawOver;

async function start() {
  write(store.get());
  const isListed = await worklist.show(); // before the scene, which takes what width is left
  await scene.attach();
  scene.setMaskStyle(store.get().opacity, store.get().outline);
  const [{ path }, model] = await Promise.all([api.start(), api.model()]);
  opening.offerEarlier();
  store.set({ model });
  if (isListed) await worklist.openNext();
  else if (path) await opening.openPath(path, fragment.get("series") ?? undefined);
  else opening.showStart();
}

start().catch((error) => {
  if (error.status === 401) return; // the key is asked for
  notify("error", error.message ?? String(error));
  opening.showStart();
});
