// Keys: which there are, what they do, and the page of help that lists them.

import { byId, make, makeButton } from "./page.js";
import { keepLetters, readLetters, withLetter, writeLetters } from "./shortcuts.js";
import { t } from "./strings/strings.js";

const MOUSE = [
  ["Click", "tumour is here"],
  ["Shift + click", "background is here"],
  ["Drag", "draw; with navigate and point, move the crosshair; in 3D, turn"],
  ["Right drag", "window: across is width, up and down is level"],
  ["Middle or Ctrl + drag", "pan"],
  ["Wheel", "slices"],
  ["Ctrl + wheel, pinch", "zoom at the pointer"],
];

/** The keys in the order of the help page: what is pressed, what it does, when it fits, and the act. */
function makeKeys(acts, letterOf) {
  const key = (code) => (event) => !event.ctrlKey && !event.metaKey && !event.altKey && event.key.toLowerCase() === letterOf(code);
  const control = (code, shift = false) => (event) =>
    (event.ctrlKey || event.metaKey) && event.shiftKey === shift && event.key.toLowerCase() === code;
  const digit = (event) => !event.ctrlKey && !event.metaKey && !event.altKey && /^[1-4]$/.test(event.key);
  return [
    { keys: ["Enter"], says: "tumour at the crosshair", onCanvas: true, fits: (e) => e.key === "Enter" && !e.shiftKey && !e.ctrlKey && !e.metaKey, act: () => acts.clickHere(false) },
    { keys: ["Shift", "Enter"], says: "background at the crosshair", onCanvas: true, fits: (e) => e.key === "Enter" && e.shiftKey, act: () => acts.clickHere(true) },
    { keys: ["← → ↑ ↓"], says: "move the crosshair in the plane under the pointer", onCanvas: true, fits: (e) => e.key in STEPS && e.key.startsWith("Arrow"), act: (e) => acts.move(e.key) },
    { keys: ["Page Up", "Page Down"], says: "next or previous slice of the plane under the pointer", onCanvas: true, fits: (e) => e.key.startsWith("Page"), act: (e) => acts.move(e.key) },
    { keys: ["V"], says: "navigate: no click segments", fits: key("v"), act: () => acts.tool("navigate") },
    { keys: ["P"], says: "point: a click segments; on a mark, move or remove it", fits: key("p"), act: () => acts.tool("point") },
    { keys: ["L"], says: "line: drag along the longest diameter", fits: key("l"), act: () => acts.tool("line") },
    { keys: ["R"], says: "box: drag around it; again in another plane, a box in space", fits: key("r"), act: () => acts.tool("box") },
    { keys: ["S"], says: "scribble: drag inside it", fits: key("s"), act: () => acts.tool("scribble") },
    { keys: ["C"], says: "lasso: drag a curve around it", fits: key("c"), act: () => acts.tool("lasso") },
    { keys: ["D"], says: "brush: paint voxels; Shift erases", fits: key("d"), act: () => acts.tool("brush") },
    { keys: ["E"], says: "eraser: take voxels away; Shift paints", fits: key("e"), act: () => acts.tool("eraser") },
    { keys: ["M"], says: "ruler: drag to measure; a click takes the rulers away", fits: key("m"), act: () => acts.tool("ruler") },
    { keys: [",", "."], says: "brush smaller, larger; also Alt + wheel", fits: (e) => ",.".includes(e.key), act: (e) => acts.brushSize(e.key === "." ? 1 : -1) },
    { keys: ["Tab", "Shift Tab"], says: "next or previous of the masks that the model offers", onCanvas: true, fits: (e) => e.key === "Tab" && e.target.id === "canvas" && acts.isOffered(), act: (e) => acts.nextCandidate(e.shiftKey ? -1 : 1) },
    { keys: ["G"], says: "go to where a click would say most", fits: key("g"), act: acts.goToNextClick },
    { keys: ["Y"], says: "accept the proposal", fits: key("y"), act: acts.acceptProposal },
    { keys: ["Q"], says: "reject the proposal", fits: key("q"), act: acts.rejectProposal },
    { keys: ["Delete"], says: "remove the mark that was pressed", fits: (e) => e.key === "Delete" || e.key === "Backspace", act: acts.removeMark },
    { keys: ["Escape"], says: "leave what is being drawn; keep the mask, so that Tab moves on again", fits: (e) => e.key === "Escape", act: acts.escape },
    { keys: ["Space"], says: "hide the masks, or show them again", fits: (e) => e.key === " " && !e.target.matches?.("button, [role=switch]"), act: acts.hideMasks },
    { keys: ["T"], says: "a click takes voxels of other objects, or leaves them", fits: key("t"), act: acts.switchOverlap },
    { keys: ["X"], says: "name, term, colour and size of the object", fits: key("x"), act: acts.describeSelected },
    { keys: ["J"], says: "go to the largest difference from the reference", fits: key("j"), act: acts.goToDifference },
    { keys: ["W"], says: "large axial plane, or four equal ones", fits: key("w"), act: acts.switchLayout },
    { keys: ["K"], says: "play through the slices of the plane under the pointer, or stop", fits: key("k"), act: acts.cine },
    { keys: ["I"], says: "greys inverted", fits: key("i"), act: acts.invert },
    { keys: ["Ctrl", "Z"], says: "undo", fits: control("z"), act: acts.undo },
    { keys: ["Ctrl", "Shift", "Z"], says: "redo; also Ctrl Y", fits: (e) => control("z", true)(e) || control("y")(e), act: acts.redo },
    { keys: ["N"], says: "next object", fits: key("n"), act: acts.nextObject },
    { keys: ["A"], says: "add an object", fits: key("a"), act: acts.addObject },
    { keys: ["F"], says: "freeze the object, or let it go", fits: key("f"), act: acts.freezeSelected },
    { keys: ["B"], says: "clicks mark background, or tumour again", fits: key("b"), act: acts.switchMode },
    { keys: ["1", "…", "4"], says: "window preset", fits: digit, act: (e) => acts.preset(Number(e.key) - 1) },
    { keys: ["[", "]"], says: "mask fainter, stronger", fits: (e) => "[]".includes(e.key), act: (e) => acts.opacity(e.key === "]" ? 0.1 : -0.1) },
    { keys: ["O"], says: "outline on or off", fits: key("o"), act: acts.switchOutline },
    { keys: ["+", "−", "0"], says: "zoom; 0 shows all", fits: (e) => !e.ctrlKey && !e.metaKey && "+=-0".includes(e.key), act: (e) => acts.zoom({ "-": 1 / 1.25, 0: 0 }[e.key] ?? 1.25) },
    { keys: ["Ctrl", "Enter"], says: "of a worklist: save the case and open the next", fits: control("enter"), act: acts.saveAndNext },
    { keys: ["Ctrl", "S"], says: "save", fits: control("s"), act: acts.save },
    { keys: ["?"], says: "this page", fits: (e) => e.key === "?", act: acts.help },
  ];
}

// By the axis across the plane: the RAS axis that an arrow to the left goes along, that of one upwards, that of a page.
// The patient's right is at the left of the screen; in a sagittal plane the nose is.
const AXES = { 0: [1, 2, 0], 1: [0, 2, 1], 2: [0, 1, 2] };
const STEPS = {
  ArrowLeft: [0, 1],
  ArrowRight: [0, -1],
  ArrowUp: [1, 1],
  ArrowDown: [1, -1],
  PageUp: [2, 1],
  PageDown: [2, -1],
};

/** Return the step of a key in RAS voxels, in the plane that an axis goes across. */
export function stepOf(key, axis) {
  const [role, sign] = STEPS[key];
  const step = [0, 0, 0];
  step[AXES[axis][role]] = sign;
  return step;
}

const isTyping = (target) => target.matches?.("input[type=text], textarea, select");

/** Listen to the keys; `acts` are what they do. */
export function listenToKeys(canvas, acts) {
  let letters = readLetters();
  const keys = makeKeys(acts, (own) => letters[own] ?? own);
  const write = () => {
    writeLetters(letters);
    writeHelp(keys, letters, (own, letter) => {
      letters = withLetter(letters, own, letter, ownLetters(keys));
      keepLetters(letters);
      write();
    });
  };
  document.addEventListener(
    "keydown",
    (event) => {
      const onCanvas = event.target === canvas;
      // NiiVue has keys of its own, among them one that opens an alert.
      if (onCanvas) event.stopPropagation();
      if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
      const fitting = keys.find((key) => key.fits(event));
      // Keys of the planes work wherever the focus is not in a control that has the key for itself.
      const isFree = onCanvas || !(/** @type {Element | null} */ (event.target)?.closest?.("button, input, [role=listbox]"));
      if (!fitting || (fitting.onCanvas && !isFree)) return;
      event.preventDefault();
      fitting.act(event);
    },
    { capture: true },
  );
  document.addEventListener(
    "keyup",
    (event) => {
      if (event.target === canvas) event.stopPropagation();
    },
    { capture: true },
  );
  byId("own-keys").addEventListener("click", () => {
    letters = {};
    keepLetters(letters);
    write();
  });
  write();
}

const isLetter = (caps) => caps.length === 1 && /^[A-Z]$/.test(caps[0]);
const ownLetters = (keys) => keys.filter((key) => isLetter(key.keys)).map((key) => key.keys[0].toLowerCase());

/** Return a button with the letter of a command, which takes the next letter that is pressed. */
function letterButton(own, letter, give) {
  const button = makeButton({ className: "letter", title: t("Change this key") }, () => (button.firstChild.textContent = "…"), make("kbd", { textContent: letter.toUpperCase() }));
  button.dataset.letter = own;
  button.setAttribute("aria-label", t("Change the key {letter}", { letter: letter.toUpperCase() }));
  button.addEventListener("keydown", (event) => {
    if (button.firstChild.textContent !== "…" || !/^[a-z]$/i.test(event.key) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    give(own, event.key.toLowerCase());
    byId("keys").querySelector(`[data-letter="${own}"]`)?.focus();
  });
  button.addEventListener("blur", () => (button.firstChild.textContent = letter.toUpperCase()));
  return button;
}

function writeHelp(keys, letters, give) {
  const list = (title, lines) => {
    const section = document.createElement("section");
    const head = document.createElement("h3");
    head.textContent = t(title);
    const table = document.createElement("dl");
    for (const [caps, says] of lines) {
      const term = document.createElement("dt");
      const own = [caps].flat().join("").toLowerCase();
      if (title === "Keys" && isLetter(caps)) term.append(letterButton(own, letters[own] ?? own, give));
      else for (const cap of [caps].flat()) {
        const element = document.createElement("kbd");
        element.textContent = t(cap);
        term.append(element, " ");
      }
      const meaning = document.createElement("dd");
      meaning.textContent = t(says);
      table.append(term, meaning);
    }
    section.append(head, table);
    return section;
  };
  byId("keys").replaceChildren(
    list("Mouse", MOUSE),
    list("Keys in the planes", keys.filter((key) => key.onCanvas).map((key) => [key.keys, key.says])),
    list("Keys", keys.filter((key) => !key.onCanvas).map((key) => [key.keys, key.says])),
  );
}
