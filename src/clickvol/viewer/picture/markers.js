// Drawn over the planes: the crosshair, the clicks as rings in the object's colour, with + for tumour and − for
// background, lines, boxes and drawings as they stand, and where a click would say most.

import { colourOf } from "../state.js";

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 7;
const FAINT_SLICES = 3; // what is this many slices away is still hinted at
const HERE_SLICES = 0.75;
const GAP = 16; // pixels of the crosshair left out around what it points at
const REACH_PIXELS = 9; // of the pointer from a handle

// Which marks a tool takes hold of; the point takes all.
const HELD_BY = { line: ["line"], box: ["box"], scribble: [], lasso: [] };

/** Make an element of SVG. */
export function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Return the path through places on the screen. */
export const pathThrough = (places) => places.map(({ x, y }, n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function clickMark({ x, y }, click, nearness) {
  const group = element("g", {
    class: `marker ${click.positive ? "tumour" : "background"}${click.isPending ? " pending" : ""}${click.isChosen ? " chosen" : ""}`,
    transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
    opacity: nearness.toFixed(2),
  });
  const bar = { stroke: "#fff", "stroke-width": 1.75, "stroke-linecap": "round" };
  group.append(
    element("circle", { r: RADIUS, stroke: colourOf(click.object_id), class: "ring" }),
    element("line", { x1: -3.2, x2: 3.2, ...bar }),
  );
  if (click.positive) group.append(element("line", { y1: -3.2, y2: 3.2, ...bar }));
  return group;
}

/** Return how much of something is seen whose ends lie so many slices behind and before the slice shown. */
function nearnessOf(ends) {
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const away = low > 0 ? low : high < 0 ? -high : 0;
  return away <= HERE_SLICES ? 1 : away <= FAINT_SLICES + 0.5 ? 0.45 : 0;
}

/** Return the elements of a line, box or drawing in one tile, and what of it can be taken hold of. */
function drawn(tile, mark) {
  const places = mark.points_ras_mm.map((mm) => tile.placeOf(mm));
  const look = {
    class: `mark ${mark.kind}${mark.positive ? "" : " background"}${mark.isPending ? " pending" : ""}${mark.isChosen ? " chosen" : ""}`,
    stroke: colourOf(mark.object_id),
  };
  const [first, second] = places;
  if (mark.kind === "line") {
    const opacity = nearnessOf(places.map(({ slices }) => slices));
    if (!opacity) return { elements: [], handles: [] };
    const ends = places.map(({ x, y }) => element("circle", { ...look, cx: x, cy: y, r: 4, opacity }));
    const handles = places.map((place, n) => ({ ...place, mark, other_mm: mark.points_ras_mm[1 - n], isMovable: true }));
    return { elements: [element("path", { ...look, d: pathThrough(places), opacity }), ...ends], handles };
  }
  if (mark.kind === "box") {
    if (nearnessOf(places.map(({ slices }) => slices)) < 1) return { elements: [], handles: [] };
    const corners = [first, second].flatMap(({ x }) => [first, second].map(({ y }) => ({ x, y })));
    const ring = [corners[0], corners[1], corners[3], corners[2]];
    const handles = corners.map((corner, n) => ({ ...corner, mark, other: corners[3 - n], isMovable: true }));
    return { elements: [element("path", { ...look, d: `${pathThrough(ring)}Z` })], handles };
  }
  if (mark.isPending) return { elements: [element("path", { ...look, d: pathThrough(places) })], handles: [] };
  const here = places.filter(({ slices }) => Math.abs(slices) <= HERE_SLICES);
  const dots = here.map(({ x, y }) => `M${x.toFixed(1)} ${y.toFixed(1)}h.01`).join("");
  const elements = here.length ? [element("path", { ...look, d: dots, "stroke-width": 3.5 })] : [];
  return { elements, handles: here.map((place) => ({ ...place, mark })) };
}

/** Return the lines of the crosshair in one tile, on whole pixels so that they are sharp. */
function crosshair({ tile, placeOf }, mm) {
  const [x, y] = [placeOf(mm).x, placeOf(mm).y];
  const [cx, cy] = [Math.round(x) + 0.5, Math.round(y) + 0.5];
  const { left, top, width, height } = tile;
  const [right, bottom] = [left + width, top + height];
  if (cx < left || cx > right || cy < top || cy > bottom) return [];
  const lines = [
    [left, cy, cx - GAP, cy],
    [cx + GAP, cy, right, cy],
    [cx, top, cx, cy - GAP],
    [cx, cy + GAP, cx, bottom],
  ].filter(([x1, y1, x2, y2]) => x2 > x1 || y2 > y1);
  return [element("path", { class: "crosshair", d: lines.map(([a, b, c, d]) => `M${a} ${b}L${c} ${d}`).join("") })];
}

/** Return the mark of the place where a click would say most. */
function nextClick({ x, y }) {
  const group = element("g", { class: "next-click", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
  const letter = element("text", { y: 4, "text-anchor": "middle" });
  letter.textContent = "?";
  group.append(element("path", { d: "M0 -10L10 0L0 10L-10 0Z" }), letter);
  return group;
}

/** Return all prompts of a state, those on their way last: clicks, and others with `points_ras_mm`. */
function promptsOf({ session, pending, chosenMark }) {
  const standing = session.objects.flatMap((object) => {
    const own = { object_id: object.id, isFrozen: object.frozen };
    return [...object.clicks.map((click) => ({ ...click, kind: "click", ...own })), ...object.marks.map((mark) => ({ ...mark, ...own }))];
  });
  const isChosen = ({ object_id, place }) => chosenMark?.object_id === object_id && chosenMark.place === place;
  return [
    ...standing.map((mark) => ({ ...mark, isChosen: isChosen(mark) })),
    ...pending.map((mark) => ({ kind: "click", ...mark, isPending: true })),
  ];
}

/** Make the layer of marks over a scene: `draw` draws a state, `handleAt` says what lies under the pointer. */
export function makeMarkers(layer, scene) {
  let handles = [];

  function drawTile(tile, state) {
    const shown = [];
    for (const mark of promptsOf(state)) {
      if (mark.kind === "click") {
        const place = tile.placeOf(mark.ras_mm);
        const nearness = tile.holds(place) ? nearnessOf([place.slices]) : 0;
        if (!nearness) continue;
        shown.push(clickMark(place, mark, nearness));
        handles.push({ ...place, mark, isMovable: true });
      } else {
        const { elements, handles: held } = drawn(tile, mark);
        shown.push(...elements);
        handles.push(...held);
      }
    }
    const next = state.advice?.next_click_ras_mm;
    const place = next && tile.placeOf(next);
    if (place && tile.holds(place) && nearnessOf([place.slices])) shown.push(nextClick(place));
    const { left, top, width, height } = tile.tile;
    const clipped = element("svg", { x: left, y: top, width, height, viewBox: `${left} ${top} ${width} ${height}` });
    clipped.append(...shown);
    return [clipped, ...crosshair(tile, scene.crosshairMm())];
  }

  return {
    draw(state) {
      handles = [];
      if (!scene.image) return layer.replaceChildren();
      return layer.replaceChildren(...scene.tilesShown().flatMap((tile) => drawTile(tile, state)));
    },
    /** Return what a tool takes hold of at a pixel of the page; null for nothing. */
    handleAt(clientX, clientY, tool) {
      if (tool !== "point" && !(tool in HELD_BY)) return null;
      const box = scene.canvas.getBoundingClientRect();
      const [x, y] = [clientX - box.left, clientY - box.top];
      const near = handles
        .filter(({ mark }) => !mark.isPending && !mark.isFrozen && (tool === "point" || HELD_BY[tool].includes(mark.kind)))
        .map((handle) => ({ handle, distance: Math.hypot(handle.x - x, handle.y - y) }))
        .filter(({ distance }) => distance <= REACH_PIXELS)
        .toSorted((one, other) => one.distance - other.distance)[0]?.handle;
      if (!near) return null;
      const { mark, other, other_mm, isMovable = false } = near;
      const plane = scene.planeUnder(clientX, clientY);
      const opposite = other ? scene.mmIn(plane, other.x + box.left, other.y + box.top) : other_mm;
      const { kind, positive, object_id, place } = mark;
      return { kind, positive, object_id, place, isMovable, other_mm: opposite, mark, x: near.x, y: near.y };
    },
  };
}
