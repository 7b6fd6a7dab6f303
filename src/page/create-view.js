/* A new machine: its form is what the API's document says that one takes. */
import { apiDocument, ask, done } from "./api.js";
import { element, fieldRow, read, say } from "./dom.js";
import { link } from "./machines-view.js";

const FIRST = ["name", "image", "kernel", "initrd", "append", "memory", "cpus", "disks", "networks"];

function fieldOf(name, schema, needed) {
	const kind = { integer: "number", boolean: "check", array: "texts" }[schema.type] || (schema.enum ? "select" : "text");
	const hint = schema.description + (kind === "texts" ? "; one a line" : "");
	return { name, label: name, kind, hint, needed, words: schema.enum && ["", ...schema.enum], least: schema.minimum, most: schema.maximum,
		value: { cpus: 1, memory: "512M" }[name] };
}

export function show(main) {
	const form = element("form", { class: "card" });
	main.append(element("div", { class: "head" }, element("h1", {}, "New machine")), form);
	apiDocument().then((document) => {
		const schema = document.paths["/v1/machines"].post.requestBody.content["application/json"].schema;
		const names = Object.keys(schema.properties).filter((name) => name !== "start");
		const order = [...FIRST.filter((name) => names.includes(name)), ...names.filter((name) => !FIRST.includes(name))];
		const rows = order.map((name) => fieldRow(fieldOf(name, schema.properties[name], (schema.required || []).includes(name))));
		const starts = fieldRow({ name: "start", label: "Start it at once", kind: "check", value: true });
		const wrong = element("p", { class: "wrong", role: "alert" });
		form.append(...rows.slice(0, FIRST.length).map((row) => row.whole),
			element("details", {}, element("summary", {}, "More"), rows.slice(FIRST.length).map((row) => row.whole)),
			starts.whole, wrong, element("div", { class: "actions" }, element("button", { type: "submit", class: "main" }, "Create"), element("a", { class: "button", href: "#/machines" }, "Cancel")));
		form.addEventListener("submit", async (event) => {
			event.preventDefault();
			wrong.textContent = "";
			const said = read([...rows, starts]);
			try {
				const answer = await ask("POST", "/v1/machines", said);
				if (answer.id)
					await done(answer);
				say(`${said.name}: ${answer.id ? "started" : "described"}`);
				location.hash = link(said.name);
			} catch (error) {
				wrong.textContent = error.message;
			}
		});
	}).catch((error) => say(error.message, true));
	return () => {};
}
