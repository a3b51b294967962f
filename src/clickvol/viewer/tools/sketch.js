// What is being drawn, and what the pointer would do: drawn over the marks, at every move of the mouse.

import { element, pathThrough } from "../picture/markers.js";
import { colourOf } from "../state.js";

// What the pointer carries, 14 pixels to the right and below; the brush has its circle instead.
const SIGNS = {
  line: "M0 10L10 0",
  ruler: "M0 10L10 0M-2 8L2 12M8 -2L12 2",
  box: "M0 0H11V9H0Z",
  scribble: "M0 8C2 -2 5 -2 5 4S8 12 11 2",
  lasso: "M5.5 0C12 0 12 7 6 7S-2 0 5.5 0ZM5 7L3 11",
};
const PLUS = "M0 4H8M4 0V8";
const MINUS = "M0 4H8";
const HANDLE = "M-4 0H4M0 -4V4M-4 0l2 -2M-4 0l2 2M4 0l-2 -2M4 0l-2 2M0 -4l-2 2M0 -4l2 2M0 4l-2 -2M0 4l2 -2";
const OFFSET = 12;

/** Make the layer of what is being drawn: `draw` and `clear` for a gesture, `point` and `leave` for the pointer. */
export function makeSketch(layer, scene, store, { isPositive, handleAt }) {
  const [gesture, pointer] = [element("g", {}), element("g", { class: "pointer" })];
  layer.append(gesture, pointer);

  function drawnIn(tile, mark) {
    const places = (mark.points_ras_mm ?? [mark.ras_mm]).map((mm) => tile.placeOf(mm));
    if (!places.some((place) => Math.abs(place.slices) <= 0.75)) return [];
    const look = { class: `sketch${mark.positive === false ? " background" : ""}`, stroke: colourOf(store.get().selected) };
    const [{ x, y }, second] = places;
    if (mark.kind === "click") return [element("circle", { ...look, cx: x, cy: y, r: 7 })];
    if (mark.kind === "box") return [element("path", { ...look, d: `M${x} ${y}H${second.x}V${second.y}H${x}Z` })];
    return [element("path", { ...look, d: pathThrough(places) + (mark.kind === "curve" ? "Z" : "") })];
  }

  /** Return what the pointer carries at a place of the layer. */
  function signOf({ tool, brush }, clientX, clientY, isShift) {
    const box = scene.canvas.getBoundingClientRect();
    const [x, y] = [clientX - box.left, clientY - box.top];
    const place = `translate(${x + OFFSET} ${y + OFFSET})`;
    if (tool === "brush" || tool === "eraser") {
      const isAdding = (tool === "brush") !== isShift;
      const plane = scene.planeUnder(clientX, clientY);
      const radius = Math.max(2, brush.radiusMm * scene.pixelsPerMm(plane));
      const circle = element("circle", { class: `brush${isAdding ? "" : " eraser"}`, cx: x, cy: y, r: radius.toFixed(1), stroke: colourOf(store.get().selected) });
      const sign = element("path", { d: isAdding ? PLUS : MINUS, transform: `translate(${x - 4} ${y - 4})` });
      return [circle, sign];
    }
    if (!isShift && handleAt(clientX, clientY, tool)) return [element("path", { d: HANDLE, transform: place })];
    const sign = element("path", { d: isPositive(isShift) ? PLUS : MINUS, transform: place });
    if (tool === "point") return [sign];
    const shape = element("path", { d: SIGNS[tool], transform: place });
    if (tool === "line" || tool === "ruler") return [shape];
    sign.setAttribute("transform", `translate(${x + OFFSET + 14} ${y + OFFSET})`);
    return [shape, sign];
  }

  return {
    draw: (mark) => gesture.replaceChildren(...scene.tilesShown().flatMap((tile) => drawnIn(tile, mark))),
    clear: () => gesture.replaceChildren(),
    /** Show at a pixel of the page what the tool would do there. */
    point(clientX, clientY, isShift) {
      const state = store.get();
      const plane = scene.planeUnder(clientX, clientY);
      const isOver = state.opened && plane && plane.axis !== null && state.tool !== "navigate";
      pointer.replaceChildren(...(isOver ? signOf(state, clientX, clientY, isShift) : []));
    },
    leave: () => pointer.replaceChildren(),
  };
}
