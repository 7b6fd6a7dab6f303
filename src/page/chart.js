/* Lines over time, in SVG; beside it the same in words, for who does not see it. */
import { element } from "./dom.js";

const WIDTH = 640, HEIGHT = 200, LEFT = 96, BOTTOM = 28, TOP = 10;

function pathOf(values, most) {
	let path = "", pen = "M";
	values.forEach((value, n) => {
		if (value === null || value === undefined) {
			pen = "M";
			return;
		}
		const x = LEFT + (values.length > 1 ? n / (values.length - 1) : 0) * (WIDTH - LEFT - 6);
		const y = TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
		path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
		pen = "L";
	});
	return path;
}

/** series: [{name, values, colour (0 to 5), dash}]; shown(value): text; span: what the width is */
export function chart(title, series, shown, span) {
	const most = Math.max(1e-9, ...series.flatMap((one) => one.values.filter((value) => value !== null && value !== undefined))) * 1.1;
	const words = series.map((one) => `${one.name}: ${shown(one.values[one.values.length - 1] || 0)}`).join(", ");
	const grid = [0, 0.5, 1].map((part) => {
		const y = TOP + (1 - part) * (HEIGHT - TOP - BOTTOM);
		return [element("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y, y2: y }),
			element("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, shown(most * part))];
	});
	return element("figure", { class: "figure" },
		element("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. Now: ${words}` },
			grid, series.map((one) => element("path", { class: `s${one.colour % 6}${one.dash ? " dash" : ""}`, d: pathOf(one.values, most) })),
			element("text", { x: LEFT, y: HEIGHT - 5 }, span), element("text", { x: WIDTH, y: HEIGHT - 5, "text-anchor": "end" }, "now")),
		element("ul", { class: "legend" }, series.map((one) => element("li", {},
			element("svg", { viewBox: "0 0 30 8", "aria-hidden": "true" }, element("path", { class: `s${one.colour % 6}${one.dash ? " dash" : ""}`, d: "M0 4L30 4" })),
			` ${one.name}: ${shown(one.values[one.values.length - 1] || 0)}`))));
}
