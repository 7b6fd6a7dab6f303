/* Elements. Whatever a machine says becomes text here, never markup. */

/** element("p", {class: "x", onclick: f}, "text", other, null, [more]) */
export function element(name, attributes = {}, ...children) {
	const made = name === "svg" || name === "path" || name === "line" || name === "text" || name === "title"
		? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
	for (const [key, value] of Object.entries(attributes)) {
		if (key.startsWith("on"))
			made.addEventListener(key.slice(2), value);
		else if (value === true)
			made.setAttribute(key, "");
		else if (value !== false && value !== null && value !== undefined)
			made.setAttribute(key, value);
	}
	made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
	return made;
}

export function bytes(value) {
	const units = ["B", "KiB", "MiB", "GiB", "TiB"];
	let unit = 0;
	if (value === undefined || value === null || Number.isNaN(value))
		return "–";
	while (value >= 1024 && unit + 1 < units.length) {
		value /= 1024;
		unit++;
	}
	return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export const time = (milliseconds) => new Date(milliseconds).toLocaleTimeString();

export function facts(rows) {
	return element("dl", { class: "facts" }, rows.filter(([, value]) => value !== undefined && value !== null && value !== "")
		.map(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

export function table(caption, heads, rows) {
	return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
		element("table", {},
			element("thead", {}, element("tr", {}, heads.map((head) => element("th", { scope: "col" }, head)))),
			element("tbody", {}, rows.map((row) => element("tr", {}, row.map((cell) => element("td", {}, cell)))))));
}

export const state = (word) => element("span", { class: `state ${word}` }, word);

/** What has happened, or has not: read out, and gone after a while. */
export function say(text, bad = false) {
	const line = element("p", { class: bad ? "bad" : "" }, text);
	document.getElementById("said").append(line);
	setTimeout(() => line.remove(), bad ? 15000 : 6000);
}

/**
 * A dialog with fields; resolves to what was filled in, by name, or null.
 * fields: {name, label, kind: "text"|"number"|"check"|"select"|"texts", value, hint, needed, words}
 */
export function askFor(title, fields, act, harm = false) {
	return new Promise((resolve) => {
		const rows = fields.map(fieldRow);
		const dialog = element("dialog", { "aria-label": title },
			element("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); dialog.close("yes"); } },
				element("h2", {}, title), rows.map((row) => row.whole),
				element("div", { class: "actions" },
					element("button", { type: "submit", class: harm ? "harm" : "main" }, act),
					element("button", { type: "button", onclick: () => dialog.close("no") }, "Cancel"))));
		dialog.addEventListener("close", () => {
			dialog.remove();
			resolve(dialog.returnValue === "yes" ? read(rows) : null);
		});
		document.body.append(dialog);
		dialog.showModal();
	});
}

let serial = 0;

export function fieldRow(field) {
	const id = `field-${serial++}`;
	const hint = field.hint ? element("p", { class: "hint", id: `${id}-hint` }, field.hint) : null;
	const common = { id, name: field.name, required: field.needed, "aria-describedby": hint ? `${id}-hint` : null };
	let input;
	if (field.kind === "select")
		input = element("select", common, field.words.map((word) => element("option", { value: word, selected: word === field.value }, word || "–")));
	else if (field.kind === "texts")
		input = element("textarea", Object.assign(common, { rows: 2 }), (field.value || []).join("\n"));
	else
		input = element("input", Object.assign(common, { type: field.kind === "check" ? "checkbox" : field.kind === "number" ? "number" : "text",
			min: field.least, max: field.most, autocomplete: "off", spellcheck: "false", value: field.kind === "check" ? null : field.value, checked: field.kind === "check" && field.value }));
	const label = element("label", { for: id }, field.label);
	const whole = field.kind === "check" ? element("div", { class: "field" }, element("div", { class: "field check" }, input, label), hint)
		: element("div", { class: "field" }, label, input, hint);
	return { whole, input, field };
}

/** What is filled in; what is not said is left out. */
export function read(rows) {
	const said = {};
	for (const { input, field } of rows) {
		if (field.kind === "check") {
			if (input.checked)
				said[field.name] = true;
		} else if (field.kind === "texts") {
			const lines = input.value.split("\n").map((line) => line.trim()).filter(Boolean);
			if (lines.length)
				said[field.name] = lines;
		} else if (input.value !== "") {
			said[field.name] = field.kind === "number" ? Number(input.value) : input.value;
		}
	}
	return said;
}
