// What is written over the four views: their names, where they are, the window, and a button to enlarge.

import { PLANES } from "./scene.js";
import { t } from "../strings/strings.js";
import { windowText } from "./windows.js";

// The patient's sides at the left, right, top and bottom of a plane: radiological convention, nose left.
const SIDES = { axial: "RLAP", coronal: "RLSI", sagittal: "APSI" };

const DIRECTIONS = [["L", "R"], ["P", "A"], ["I", "S"]]; // towards negative and positive RAS

function placeText(axis, mm) {
  const [negative, positive] = DIRECTIONS[axis];
  return `${mm[axis] < 0 ? negative : positive} ${Math.abs(mm[axis]).toFixed(1)} mm`;
}

function whereText({ axis }, mm, scene) {
  const { number, count } = scene.sliceOf(axis);
  return `${number} / ${count}   ${placeText(axis, mm)}`;
}

/** Return a function that writes a state over the tiles; `onEnlarge(planeId)` is told of the buttons. */
export function makeTiles(place, scene, onEnlarge) {
  const tiles = PLANES.map((plane) => {
    const tile = document.createElement("div");
    tile.className = `tile ${plane.id}`;
    const name = document.createElement("span");
    name.className = "tile-name";
    name.textContent = t(plane.name);
    const where = document.createElement("span");
    where.className = "tile-where";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "tile-button";
    button.addEventListener("click", () => onEnlarge(plane.id));
    const sides = [...(SIDES[plane.id] ?? "")].map((letter, n) => {
      const side = document.createElement("span");
      side.className = `side ${["left", "right", "top", "bottom"][n]}`;
      side.textContent = letter;
      return side;
    });
    tile.append(name, where, ...sides, button);
    place.append(tile);
    return { plane, tile, where, button };
  });
  const grey = document.createElement("span");
  grey.className = "tile-window";
  tiles[0].tile.append(grey);

  return function write(state) {
    place.hidden = !state.opened;
    place.classList.toggle("one", scene.enlarged !== null);
    place.classList.toggle("large-axial", state.layout === "large" && scene.enlarged === null);
    for (const { plane, tile, where, button } of tiles) {
      const isLarge = scene.enlarged === plane.id;
      tile.hidden = scene.enlarged !== null && !isLarge;
      tile.classList.toggle("large", isLarge);
      if (plane.axis !== null && state.place) where.textContent = whereText(plane, state.place.mm, scene);
      const words = isLarge ? t("Show all four views") : t("Enlarge {view}", { view: t(plane.name) });
      if (button.title !== words) {
        button.title = words;
        button.setAttribute("aria-label", words);
        button.textContent = isLarge ? "⤡" : "⤢";
      }
    }
    if (state.window) grey.textContent = windowText(state.window);
  };
}
