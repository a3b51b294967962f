// Rulers over the planes: dragged with the mouse, or the longest diameters that the server measured.

import { element, pathThrough } from "../picture/markers.js";
import { numberText } from "../strings/strings.js";

const HERE_SLICES = 0.75; // ends so far from the slice shown lie on it
const CLICK_PIXELS = 4; // a shorter drag is a click, which takes the rulers away

/** Return the distance of two places in mm. */
export const distanceMm = (one, other) => Math.hypot(...one.map((value, axis) => value - other[axis]));

/** Make the layer of rulers: `draw` draws a state, `drag` takes the mouse where the ruler is the tool. */
export function makeRulers(layer, scene, store) {
  let begun = /** @type {{plane: object, mm: number[], x: number, y: number} | null} */ (null);

  function drawnIn(tile, ruler) {
    const places = ruler.ends.map((mm) => tile.placeOf(mm));
    const slices = places.map((place) => place.slices);
    if (Math.min(...slices) > HERE_SLICES || Math.max(...slices) < -HERE_SLICES) return [];
    if (!places.every((place) => tile.holds(place))) return [];
    const [a, b] = places;
    const across = { x: b.y - a.y, y: a.x - b.x }; // the little bars at the ends
    const length = Math.hypot(across.x, across.y) || 1;
    const bars = places.map(({ x, y }) => {
      const [dx, dy] = [(5 * across.x) / length, (5 * across.y) / length];
      return `M${x - dx} ${y - dy}L${x + dx} ${y + dy}`;
    });
    const text = element("text", { class: "ruler-text", x: Math.max(a.x, b.x) + 8, y: (a.x > b.x ? a : b).y + 4 });
    text.textContent = `${numberText(ruler.mm, 1)} mm`;
    return [element("path", { class: "ruler", d: pathThrough(places) + bars.join("") }), text];
  }

  return {
    draw: ({ rulers }) =>
      layer.replaceChildren(...scene.tilesShown().flatMap((tile) => rulers.flatMap((ruler) => drawnIn(tile, ruler)))),
    /** Take a drag, and say whether it was taken. */
    drag(kind, x, y) {
      if (kind === "down") {
        const plane = scene.planeUnder(x, y);
        const mm = plane && plane.axis !== null ? scene.mmUnder(x, y) : null;
        begun = mm && { plane, mm, x, y };
        if (begun) store.set({ rulers: [...store.get().rulers, { ends: [begun.mm, begun.mm], mm: 0 }] });
      } else if (begun) {
        const mm = scene.mmIn(begun.plane, x, y) ?? begun.mm;
        const isClick = kind === "up" && Math.hypot(x - begun.x, y - begun.y) < CLICK_PIXELS;
        const others = store.get().rulers.slice(0, -1);
        store.set({ rulers: isClick ? [] : [...others, { ends: [begun.mm, mm], mm: distanceMm(begun.mm, mm) }] });
        if (kind === "up") begun = null;
      }
      return true;
    },
  };
}
