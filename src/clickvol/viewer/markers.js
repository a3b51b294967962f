// Drawn over the planes: the crosshair, and the clicks as rings in the object's colour, with + for tumour
// and − for background.

import { colourOf } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";
const RADIUS = 7;
const FAINT_SLICES = 3; // a click this many slices away is still hinted at
const GAP = 16; // pixels of the crosshair left out around what it points at

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function marker({ x, y }, click, nearness) {
  const group = element("g", {
    class: `marker ${click.positive ? "tumour" : "background"}${click.isPending ? " pending" : ""}`,
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

/** Return the lines of the crosshair in one tile, on whole pixels so that they are sharp. */
function crosshair({ x, y, tile }) {
  const [cx, cy] = [Math.round(x) + 0.5, Math.round(y) + 0.5];
  const { left, top, width, height } = tile;
  const lines = [
    [left, cy, cx - GAP, cy],
    [cx + GAP, cy, left + width, cy],
    [cx, top, cx, cy - GAP],
    [cx, cy + GAP, cx, top + height],
  ].filter(([x1, y1, x2, y2]) => x2 > x1 || y2 > y1);
  return element("path", { class: "crosshair", d: lines.map(([a, b, c, d]) => `M${a} ${b}L${c} ${d}`).join("") });
}

const clicksOf = ({ session, pending }) => [
  ...session.objects.flatMap((object) => object.clicks.map((click) => ({ ...click, object_id: object.id }))),
  ...pending.map((click) => ({ ...click, isPending: true })),
];

/** Return a function that draws crosshair and clicks of a state over a scene. */
export function makeMarkers(svg, scene) {
  return function draw(state) {
    if (!scene.image) return svg.replaceChildren();
    const spacing = scene.spacingMm;
    const drawn = clicksOf(state).flatMap((click) =>
      scene.placesOf(click.ras_mm).flatMap((place) => {
        const slices = place.distanceMm / spacing[place.axis];
        if (slices > FAINT_SLICES + 0.5) return [];
        return [marker(place, click, slices <= 0.75 ? 1 : 0.45)];
      }),
    );
    return svg.replaceChildren(...scene.placesOf(scene.crosshairMm()).map(crosshair), ...drawn);
  };
}
